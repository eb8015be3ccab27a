"""App: a registry of functions and entry points, and the life of the workers behind them."""

from __future__ import annotations

import inspect
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .engine.local import LocalBackend
from .engine.scheduler import Limit, Scheduler
from .exception import InvalidError
from .function import Function
from .options import FunctionOptions

if TYPE_CHECKING:
    from .entrypoint import LocalEntrypoint
    from .run import MapRun

__all__ = ["App", "current_app"]

P = ParamSpec("P")
R = TypeVar("R")

RUNS_KEPT = 50
_NO_CAP = 1_000_000

_apps: weakref.WeakSet[App] = weakref.WeakSet()
_current: App | None = None
_scheduler: Scheduler | None = None
_lock = threading.Lock()


def _shared_scheduler() -> Scheduler:
    """Return this process's scheduler; a forked child gets one of its own."""
    global _scheduler
    with _lock:
        if _scheduler is None or not _scheduler.is_usable():
            _scheduler = Scheduler(LocalBackend)
        return _scheduler


def current_app() -> App:
    """Return the app that `%%remote_function` registers with; made at the first call."""
    global _current
    if _current is None:
        _current = App("notebook")
    return _current


class App:
    """A set of functions that run in workers.

    Args:
        name: shown in the panel; anything.
        backend: "local", the processes of this machine.
        max_workers: cap for the inputs that run at once over all of its functions; None for none.

    Raises:
        InvalidError: a wrong value.
    """

    def __init__(
        self, name: str | None = None, *, backend: str = "local", max_workers: int | None = None
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise InvalidError(
                f"App({name!r}): the name must be a string. Decorate with @app.function()."
            )
        if backend != "local":
            raise InvalidError(f"backend={backend!r}: this version of nbscale has only 'local'.")
        if max_workers is not None and (
            isinstance(max_workers, bool) or not isinstance(max_workers, int) or max_workers < 1
        ):
            raise InvalidError(f"max_workers={max_workers!r}: must be a whole number, 1 or more.")
        self.name = name
        self.functions: dict[str, Function[..., Any]] = {}
        self.entrypoints: dict[str, LocalEntrypoint] = {}
        self.limit = Limit(_NO_CAP if max_workers is None else max_workers)
        self._runs: deque[MapRun] = deque(maxlen=RUNS_KEPT)
        _apps.add(self)

    @staticmethod
    def all() -> list[App]:
        """Return the apps of this process that are alive."""
        return sorted(_apps, key=lambda app: app.name or "")

    @property
    def runs(self) -> Sequence[MapRun]:
        """The runs of this app, the newest last; the last 50 are kept."""
        return list(self._runs)

    def function(
        self, *misplaced: Any, **options: Any
    ) -> Callable[[Callable[P, R]], Function[P, R]]:
        """Register a function: `@app.function()` or `@app.function(concurrency_limit=5)`.

        Options: `name`; `concurrency_limit` (or `max_containers`), how many inputs run at once,
        default the usable cores; `timeout`, seconds for one attempt at one input, None for none;
        `retries`, a number or `Retries`; `env`, variables of the workers; `max_inputs`, a worker
        is replaced after that many; `scaledown_window`, idle seconds before a worker stops (60).
        A name registered again replaces the earlier one.

        Raises:
            InvalidError: an unknown option (the nearest right one is named) or a wrong value.
        """
        if misplaced:
            raise InvalidError(
                "@app.function needs parentheses: write @app.function() above the function"
            )

        def register(raw: Callable[P, R]) -> Function[P, R]:
            if isinstance(raw, Function):
                raw = raw.raw
            if not callable(raw) or inspect.isclass(raw):
                raise InvalidError(
                    f"@app.function() on {raw!r}: it needs a function, and this is a "
                    f"{type(raw).__name__}"
                )
            shown = str(options.get("name") or getattr(raw, "__name__", "function"))
            made: Function[P, R] = Function(self, raw, FunctionOptions.parse(shown, options))
            self.functions[made.name] = made
            return made

        return register

    def local_entrypoint(
        self, *misplaced: Any, name: str | None = None
    ) -> Callable[[Callable[..., Any]], LocalEntrypoint]:
        """Register the function that `nbscale run script.py` and `app.main()` start.

        Raises:
            InvalidError: used without parentheses.
        """
        if misplaced:
            raise InvalidError("@app.local_entrypoint needs parentheses: @app.local_entrypoint()")

        def register(raw: Callable[..., Any]) -> LocalEntrypoint:
            from .entrypoint import LocalEntrypoint

            made = LocalEntrypoint(self, raw)
            self.entrypoints[name or raw.__name__] = made
            return made

        return register

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Run the app's local entry point with its parameters read from `argv` (or the shell's).

        Raises:
            InvalidError: the app has no entry point, or several of which none is called main.
        """
        if not self.entrypoints:
            raise InvalidError("app.main(): this app has no @app.local_entrypoint()")
        found = self.entrypoints.get("main")
        if found is None and len(self.entrypoints) > 1:
            names = ", ".join(self.entrypoints)
            raise InvalidError(f"app.main(): several entry points ({names}); none is called main")
        (found or next(iter(self.entrypoints.values()))).main(argv)

    @contextmanager
    def run(self) -> Iterator[App]:
        """Run the body with the app; what is left running at its end is cancelled."""
        try:
            yield self
        finally:
            self.shutdown()

    def shutdown(self) -> None:
        """Cancel this app's runs and end the workers; a later call starts afresh."""
        for run in self.runs:
            if not run.done():
                run.cancel()
        if _scheduler is not None and _scheduler.is_usable():
            _scheduler.shutdown_workers()

    def scheduler(self) -> Scheduler:
        """Return the scheduler that runs this app's functions."""
        return _shared_scheduler()

    def wake(self) -> None:
        """Tell the scheduler that a limit was changed."""
        if _scheduler is not None and _scheduler.is_usable():
            _scheduler.wake()

    def remember(self, run: MapRun) -> None:
        """Keep a run for `runs`."""
        self._runs.append(run)

    def __repr__(self) -> str:
        return f"<App {self.name or ''}: {', '.join(self.functions) or 'no functions'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A function that mentions its app finds the app of the worker's own process.
        return current_app, ()


def _in_child() -> None:
    """A forked child has no engine thread: it must not touch the parent's workers."""
    global _scheduler
    _scheduler = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
