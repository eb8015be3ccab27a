"""Function: a registered function, and the ways to call it: here, in a worker, in many."""

from __future__ import annotations

import functools
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .engine import payload
from .engine.backend import WorkerSpec
from .engine.scheduler import Job, Limit
from .exception import InvalidError
from .options import FunctionOptions, usable_cores
from .run import MapRun, zipped

if TYPE_CHECKING:
    from .app import App

__all__ = ["Function"]

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")

# So many calls here, in a row, are a loop that was meant to be a map.
LOCAL_CALLS_BEFORE_HINT = 20


class Twin(Generic[P, R, A]):
    """A bound blocking method, called as it is, with its asynchronous form as `.aio`."""

    def __init__(self, blocking: Callable[P, R], aio: Callable[P, A]) -> None:
        functools.update_wrapper(self, blocking)
        self._blocking = blocking
        self.aio = aio

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._blocking(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._blocking)


class Function(Generic[P, R]):
    """A function registered with an app.

    Calling it runs it here; `remote`, `map`, `starmap` and `for_each` run it in workers. Each of
    them has an asynchronous twin: `await f.remote.aio(x)`, `async for r in f.map.aio(xs)`.

    Attributes:
        raw: the function as it was written.
        name: its name in the app.
        options: its checked options.
    """

    def __init__(self, app: App, raw: Callable[P, R], options: FunctionOptions) -> None:
        self.app = app
        self.raw = raw
        self.options = options
        self.name: str = options.name or str(getattr(raw, "__name__", type(raw).__name__))
        self._limit = Limit(options.limit, app.limit)
        self._local_calls = 0
        functools.update_wrapper(self, raw, updated=())

    # Calls

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, in this process, and return what it returns."""
        self._local_calls += 1
        if self._local_calls == LOCAL_CALLS_BEFORE_HINT:
            print(
                f"nbscale: {self.name}(...) runs here, one call after the other. "
                f"For all cores: {self.name}.map(inputs)",
                file=sys.stderr,
            )
        return self.raw(*args, **kwargs)

    @property
    def local(self) -> Twin[P, R, Coroutine[Any, Any, Any]]:
        """Run the function here, in this process."""

        async def aio(*args: P.args, **kwargs: P.kwargs) -> Any:
            value = self.raw(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value

        return Twin(self.raw, aio)

    @property
    def remote(self) -> Twin[P, R, Coroutine[Any, Any, R]]:
        """Run one input in a worker, wait, and return its result or raise its exception."""

        def blocking(*args: P.args, **kwargs: P.kwargs) -> R:
            value: R = next(self._one(args, kwargs))
            return value

        async def aio(*args: P.args, **kwargs: P.kwargs) -> R:
            value: R = (await self._one(args, kwargs))[0]
            return value

        return Twin(blocking, aio)

    @property
    def map(self) -> Twin[..., MapRun, MapRun]:
        """Call the function once for each input, spread over the workers: a `MapRun`.

        `map(*iterables, kwargs={}, order_outputs=True, return_exceptions=False,
        wrap_returned_exceptions=True, display=None, keep_results=None)`. Several iterables are
        zipped, ending with the shortest; `kwargs` go to every call. Inputs with a length start
        at once, in the background; an iterator is pulled as results are consumed, with a
        look-ahead of two batches a worker (about 100 ms of work, at most 64 MB). `display=False`
        shows nothing. `keep_results` says whether values stay on the run (default: when the
        inputs have a length).

        Raises:
            InvalidError: no inputs, inputs that cannot be iterated, an unknown keyword.
            SerializationError: the function cannot be sent to a worker.

        Follows Modal's `Function.map`.
        """
        return Twin(self._map, self._map)

    @property
    def starmap(self) -> Twin[..., MapRun, MapRun]:
        """Call the function once for each sequence of arguments: a `MapRun`, as from `map`.

        `list(add.starmap([(1, 2), (3, 4)])) == [3, 7]`.
        """
        return Twin(self._starmap, self._starmap)

    @property
    def for_each(self) -> Twin[..., None, Coroutine[Any, Any, None]]:
        """Call the function once for each input, wait, and return None; keeps no results.

        `for_each(*iterables, kwargs={}, ignore_exceptions=False)`.
        """

        def start(
            *iterables: Iterable[Any],
            kwargs: Mapping[str, Any] | None = None,
            ignore_exceptions: bool = False,
        ) -> MapRun:
            return self._map(
                *iterables, kwargs=kwargs, return_exceptions=ignore_exceptions, keep_results=False
            )

        def blocking(*iterables: Iterable[Any], **options: Any) -> None:
            for _ in start(*iterables, **options):
                pass

        async def aio(*iterables: Iterable[Any], **options: Any) -> None:
            async for _ in start(*iterables, **options):
                pass

        return Twin(blocking, aio)

    def with_options(self, **options: Any) -> Function[P, R]:
        """Return the same function under other options, with a limit of its own.

        Raises:
            InvalidError: an unknown keyword or a wrong value.
        """
        given = {
            "name": self.name,
            "concurrency_limit": self.options.concurrency_limit,
            "timeout": self.options.timeout,
            "retries": self.options.retries,
            "env": dict(self.options.env),
            "max_inputs": self.options.max_inputs,
            "scaledown_window": self.options.scaledown_window,
        }
        if "max_containers" in options:
            del given["concurrency_limit"]
        return Function(self.app, self.raw, FunctionOptions.parse(self.name, {**given, **options}))

    @property
    def concurrency_limit(self) -> int:
        """How many inputs run at once, over all runs; may be set while runs are in flight."""
        return self._limit.limit

    @concurrency_limit.setter
    def concurrency_limit(self, limit: int) -> None:
        checked = FunctionOptions.parse(self.name, {"concurrency_limit": limit})
        self._limit.limit = checked.limit
        self.app.wake()

    @property
    def signature(self) -> str:
        """The function's parameters as text, such as "(x, y=2)"."""
        try:
            return str(inspect.signature(self.raw))
        except (TypeError, ValueError):
            return "(...)"

    def __repr__(self) -> str:
        return f"<Function {self.name}{self.signature}, limit {self.concurrency_limit}>"

    # Inside

    def _one(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> MapRun:
        return self._start([args], 1, kwargs, display=False, remember=False)

    def _map(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool = True,
        display: bool | None = None,
        keep_results: bool | None = None,
    ) -> MapRun:
        inputs, total = zipped(iterables, self.name)
        return self._start(
            inputs,
            total,
            dict(kwargs or {}),
            order_outputs=order_outputs,
            return_exceptions=return_exceptions,
            wrap_returned_exceptions=wrap_returned_exceptions,
            display=display,
            keep_results=keep_results,
        )

    def _starmap(self, iterable: Iterable[Sequence[Any]], **options: Any) -> MapRun:
        inputs, total = zipped((iterable,), self.name)
        kwargs = options.pop("kwargs", None)
        _check_keywords(options, self.name)

        def spread(item: Any) -> tuple[Any, ...]:
            try:
                return tuple(item)
            except TypeError:
                raise InvalidError(
                    f"{self.name}.starmap(): an input is a {type(item).__name__}, which cannot "
                    f"be spread over the arguments. Use {self.name}.map for single arguments."
                ) from None

        spreaded = (spread(item) for (item,) in inputs)
        return self._start(spreaded, total, dict(kwargs or {}), **options)

    def _start(
        self, inputs: Iterable[tuple[Any, ...]], total: int | None, kwargs: Any, **options: Any
    ) -> MapRun:
        if inspect.isgeneratorfunction(self.raw) or inspect.isasyncgenfunction(self.raw):
            raise InvalidError(
                f"`{self.name}` is a generator function: map and remote need one that returns. "
                "Return a list instead of yielding."
            )
        limit = self._limit.limit
        job = Job(
            f"`{self.name}`",
            self.packed(),
            self.context(),
            self.options,
            self._limit,
            WorkerSpec(self.options.env, max(1, usable_cores() // limit)),
            kwargs=kwargs,
            stop_on_error=not options.get("return_exceptions", False),
        )
        return MapRun(self, self.app.scheduler(), job, inputs, total=total, **options)

    def packed(self) -> bytes:
        """Return the function pickled by value, with the globals that it uses now.

        Raises:
            SerializationError: it uses something that cannot be pickled.
        """
        return payload.dump(self.raw, f"the function `{self.name}`")

    def context(self) -> bytes:
        """Return the pickled state of this process that a call sees: cwd, path, environment."""
        try:
            cwd = os.getcwd()
        except OSError:
            cwd = "/"
        path = [cwd if entry == "" else entry for entry in sys.path]
        return pickle.dumps((cwd, path, dict(os.environ)), protocol=5)

    def __reduce__(self) -> tuple[Any, ...]:
        # In a worker it belongs to an app of that process: it runs there by a plain call, and
        # nested maps have workers of their own.
        return _blank, (), {"raw": self.raw, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from .app import current_app  # the app of this process; it imports this module

        Function.__init__(self, current_app(), state["raw"], state["options"])


def _blank() -> Function[..., Any]:
    return Function.__new__(Function)


def _check_keywords(options: dict[str, Any], name: str) -> None:
    known = {
        "order_outputs",
        "return_exceptions",
        "wrap_returned_exceptions",
        "display",
        "keep_results",
    }
    for key in options:
        if key not in known:
            raise TypeError(f"{name}.starmap() got an unexpected keyword argument {key!r}")
