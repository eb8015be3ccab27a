"""LocalEntrypoint: the function that a script starts with, as a command of the shell."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import App

__all__ = ["LocalEntrypoint"]


class LocalEntrypoint:
    """A registered entry point: call it as the plain function that it is, or by `main`.

    Attributes:
        app: the app whose functions it uses.
        raw: the function as it was written.
    """

    def __init__(self, app: App, raw: Callable[..., Any]) -> None:
        self.app = app
        self.raw = raw
        functools.update_wrapper(self, raw)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function here; a coroutine function gives its coroutine."""
        return self.raw(*args, **kwargs)

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Run with parameters read from `argv` (None: the shell's), then end the workers.

        Annotations give the types (bool, int, float, str, Path, datetime, Optional, Enum, list)
        and the docstring the help; parsed by typer.

        Raises:
            SystemExit: wrong options (2), or an interrupt (130).
        """
        import typer

        command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        command.command()(self._synchronous())
        try:
            with self.app.run():
                command(args=None if argv is None else list(argv))
        except SystemExit as end:
            # A command always ends by exiting; that it went well must not end a notebook.
            if end.code:
                raise

    def _synchronous(self) -> Callable[..., Any]:
        raw = self.raw

        @functools.wraps(raw)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                value = raw(*args, **kwargs)
                if inspect.iscoroutine(value):
                    asyncio.run(value)
            except KeyboardInterrupt:
                raise SystemExit(130) from None  # 128 + SIGINT, as shells have it

        return run
