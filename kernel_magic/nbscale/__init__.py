"""nbscale: run a notebook's functions on every core, with the API of Modal's "Scaling out"."""

from __future__ import annotations

from typing import Any

from . import exception, run
from .app import App, current_app
from .exception import UserCodeException
from .function import Function
from .options import Retries
from .run import MapRun, Outcome, enable_output, last_run

__version__ = "0.1.0"

__all__ = [
    "App",
    "Function",
    "MapRun",
    "Outcome",
    "Retries",
    "UserCodeException",
    "current_app",
    "enable_output",
    "exception",
    "last_run",
]


def _show(started: MapRun, display: bool | None) -> None:
    from .notebook.display import show  # loads with the first run, not with the package

    show(started, display)


run.observers.append(_show)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext nbscale`: the magics, the cell's view and the panel's messages."""
    from .notebook import magics

    magics.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext nbscale`."""
    from .notebook import magics

    magics.unload(shell)
