"""Tells Jupyter where the front end lies: the panel and the results table of nbscale."""

from __future__ import annotations

from typing import Any


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Return where the built labextension lies and the name it is served under."""
    return [{"src": "labextension", "dest": "nbscale-lab"}]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Return the module that Jupyter Server loads."""
    return [{"module": "nbscale_lab"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    """Say in the server's log that the front end is installed; the kernel does all the work."""
    server_app.log.info("nbscale: panel and results table are installed")
