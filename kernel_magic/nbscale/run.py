"""MapRun: one map, from the first input sent to the last outcome read.

A run is a view on the engine's `Job`: the engine's thread fills the job's columns, whoever
iterates waits on its condition. Views (widget, panel, terminal) read `summary`, `rows` and
`detail`, which are plain JSON values of bounded size, and `subscribe` to be told of changes.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import reprlib
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, overload

from .engine import scheduler as engine
from .engine.scheduler import CANCELLED, FAILED, OK, PENDING, RUNNING, Job
from .exception import CancelledError, Error, InvalidError, UserCodeException

if TYPE_CHECKING:
    from .function import Function

__all__ = ["MapRun", "Outcome", "enable_output", "last_run", "observers"]

STATUS_NAMES = ("pending", "running", "ok", "failed", "cancelled")

# Called as (run, display) when a run is made; the package puts the notebook's view in here.
observers: list[Callable[[MapRun, bool | None], None]] = []

_last: MapRun | None = None
_output_enabled = True

# A view is told of changes at most this often.
NOTIFY_INTERVAL_S = 0.1
# Look-ahead of a streamed run beyond what was consumed (see `Function.map`).
LOOK_AHEAD_BYTES = 64 * 1024 * 1024

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 160
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 8
_repr.maxlevel = 4


def enable_output(enabled: bool = True) -> None:
    """Show progress and results of the runs that follow (the default), or show nothing.

    `display=` of a single map wins.
    """
    global _output_enabled
    _output_enabled = enabled


def last_run() -> MapRun | None:
    """Return the run that was started last in this process, or None."""
    return _last


def short_repr(value: object) -> str:
    """Return one bounded line for `value`; never raises."""
    try:
        text = _repr.repr(value)
    except Exception as error:  # a user's __repr__ may raise anything
        text = f"<{type(value).__name__}; its repr raised {type(error).__name__}>"
    return " ".join(text[:400].split())[:200]


def _error_text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return " ".join(line[:400].split())[:200]


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        index: place of the input, from 0.
        status: "pending", "running", "ok", "failed" or "cancelled".
        value: the result, or None while there is none or where values are not kept.
        exception: the exception of a failed or cancelled input, or None.
        traceback: the worker's traceback as text, or None.
        duration: seconds of the last attempt in the worker, or None.
        attempts: how many times it was started.
        worker: the worker's process id as text, or None.
        stdout: what it printed, at most 64 kB (head and tail).
    """

    index: int
    status: str
    value: Any = None
    exception: BaseException | None = None
    traceback: str | None = None
    duration: float | None = None
    attempts: int = 0
    worker: str | None = None
    stdout: str = ""


class _Outcomes(Sequence[Outcome]):
    """The outcomes of a run in input order, made as they are looked at."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __len__(self) -> int:
        return len(self._job.status)

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> list[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | list[Outcome]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"outcome {index} of {len(self)}")
        job = self._job
        with job.changed:
            duration = job.duration[index]
            return Outcome(
                index,
                STATUS_NAMES[job.status[index]],
                job.values.get(index),
                job.errors.get(index),
                job.tracebacks.get(index),
                None if duration < 0 else duration,
                job.attempts[index],
                str(job.worker[index]) if job.worker[index] else None,
                job.stdout.get(index, ""),
            )

    def __repr__(self) -> str:
        return f"<{len(self)} outcomes>"


class _Notifier:
    """One thread that tells subscribers of changed runs, at most 10 times a second each."""

    def __init__(self) -> None:
        self._dirty: dict[MapRun, None] = {}
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def mark(self, run: MapRun) -> None:
        with self._lock:
            self._dirty[run] = None
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._loop, name="nbscale-views", daemon=True
                )
                self._thread.start()
        self._event.set()

    def _loop(self) -> None:
        while True:
            self._event.wait()
            self._event.clear()
            with self._lock:
                runs, self._dirty = list(self._dirty), {}
            for run in runs:
                run._tell()
            time.sleep(NOTIFY_INTERVAL_S)


_notifier = _Notifier()


class MapRun:
    """One map: iterate it for the results, or look at `outcomes` while it runs.

    Made by `Function.map` and `Function.starmap`; returns at once. `for r in run`, `next(run)`,
    `async for r in run` and `await run` (a list) give results in the order of the inputs. The
    first failed input's own exception is raised unless the map was asked to return exceptions.
    """

    def __init__(
        self,
        function: Function[..., Any],
        scheduler: engine.Scheduler,
        job: Job,
        inputs: Iterable[tuple[Any, ...]],
        *,
        total: int | None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool = True,
        keep_results: bool | None = None,
        display: bool | None = None,
        remember: bool = True,
    ) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.function = function
        self._scheduler = scheduler
        self._job = job
        self._source: Iterator[tuple[Any, ...]] | None = None
        self._source_error: BaseException | None = None
        self._pull_lock = threading.Lock()
        self._total = total
        self._ordered = order_outputs
        self._return = return_exceptions
        self._wrap = wrap_returned_exceptions
        self._keep = (total is not None) if keep_results is None else keep_results
        self._consumed = 0
        self._packed_mean = 0.0
        self._iterated = False
        self._tracebacks: dict[int, Any] = {}
        self.started_at = time.time()
        self._start = time.monotonic()
        self._elapsed: float | None = None
        self._subscribers: list[Callable[[MapRun], None]] = []
        self._cursor = _Cursor(self)
        job.on_output = _writer()
        job.listeners.append(self._on_change)
        if total is None:
            self._source = iter(inputs)
        else:
            for args in inputs:
                job.add(args)
            job.source_done = True
        if remember:
            global _last
            _last = self
            function.app.remember(self)
        scheduler.submit(job)
        for observer in list(observers):
            observer(self, _output_enabled if display is None else display)

    # Results

    def __iter__(self) -> Iterator[Any]:
        if self._keep:
            return _Cursor(self)
        if self._iterated:
            raise InvalidError(
                f"the results of this run of `{self.function.name}` were streamed and are gone: "
                "its inputs have no length. Pass keep_results=True, or a list of inputs."
            )
        self._iterated = True
        return self._cursor

    def __next__(self) -> Any:
        return next(self._cursor)

    def __aiter__(self) -> AsyncIterator[Any]:
        return _AsyncCursor(iter(self))

    def __await__(self) -> Generator[Any, None, list[Any]]:
        async def collect() -> list[Any]:
            return [value async for value in self]

        return collect().__await__()

    def __len__(self) -> int:
        if self._total is None:
            raise TypeError("this run's inputs come from an iterator: their number is not known")
        return self._total

    def __bool__(self) -> bool:
        return True

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """The outcomes so far, in input order: a live sequence."""
        return _Outcomes(self._job)

    @property
    def results(self) -> list[Any]:
        """The values that are there, in input order, without the inputs that failed."""
        with self._job.changed:
            return [self._job.values[index] for index in sorted(self._job.values)]

    @property
    def errors(self) -> dict[int, BaseException]:
        """The exceptions of failed and cancelled inputs by index."""
        with self._job.changed:
            return {index: self._job.errors[index] for index in sorted(self._job.errors)}

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row an input.

        Columns: input, status, value, exception, duration (s), attempts, worker.

        Raises:
            InvalidError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InvalidError(
                "to_frame() needs pandas, which is not installed: pip install 'nbscale[frames]'"
            ) from None
        rows = [
            {
                "input": self._input(each.index),
                "status": each.status,
                "value": each.value,
                "exception": each.exception,
                "duration": each.duration,
                "attempts": each.attempts,
                "worker": each.worker,
            }
            for each in self.outcomes
        ]
        names = ["input", "status", "value", "exception", "duration", "attempts", "worker"]
        return pandas.DataFrame(rows, columns=names)

    # Control

    @property
    def status(self) -> str:
        """ "pending", "running", "ok", "failed" or "cancelled"."""
        job = self._job
        with job.changed:
            if not job.settled:
                started = any(job.counts[RUNNING:]) or self._elapsed is not None
                return "running" if started else "pending"
            if job.cancelled:
                return "cancelled"
            return "failed" if job.counts[FAILED] or self._source_error is not None else "ok"

    def done(self) -> bool:
        """Return whether every input has ended."""
        return self._job.settled

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds (None: for ever) and return whether the run is done.

        Raises nothing of the inputs' exceptions. An interrupt cancels the run.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                self._pull(consumer_waits=False)
                with self._job.changed:
                    if self._job.settled:
                        return True
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    streaming = self._source is not None
                    if streaming and not self._keep:
                        # Nobody takes the results: pull on, as a consumer would.
                        self._consumed = sum(self._job.counts[OK:])
                    self._job.changed.wait(min(0.5 if not streaming else 0.05, left or 0.5))
        except KeyboardInterrupt:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancel the run: waiting inputs at once, running ones by `InputCancellation`."""
        self._close_source()
        self._scheduler.cancel(self._job)
        self._on_change()

    def retry_failed(self) -> MapRun:
        """Run the failed and cancelled inputs again, into this run, and return it.

        The function is taken as it is defined now. Does nothing where none has failed.

        Raises:
            InvalidError: the run is not done yet.
        """
        job = self._job
        if not job.settled:
            raise InvalidError("retry_failed() on a run that is not done: wait() or cancel() first")
        current = self.function.app.functions.get(self.function.name, self.function)
        packed, context = current.packed(), current.context()
        with job.changed:
            again = [i for i, status in enumerate(job.status) if status in (FAILED, CANCELLED)]
            again = [i for i in again if i in job.args]
            if not again:
                return self
            job.use(packed, context, current.options)
            redo = set(again)
            job.order = type(job.order)(i for i in job.order if i not in redo)
            for index in again:
                job.errors.pop(index, None)
                job.tracebacks.pop(index, None)
                job.stdout.pop(index, None)
                self._tracebacks.pop(index, None)
                job.attempts[index] = 0
                job.duration[index] = -1.0
                job.set_status(index, PENDING)
                job.ready.append(index)
            job.first_error = None
            job.cancelled = job.stopped = job.settled = False
            job.source_done = True
        self._start = time.monotonic() - (self._elapsed or 0.0)
        self._elapsed = None
        self._scheduler.submit(job)
        self._on_change()
        return self

    # What views read

    def summary(self) -> dict[str, Any]:
        """Return the run's progress as plain JSON values; times in seconds."""
        job = self._job
        status = self.status
        elapsed = self._elapsed_s()
        with job.changed:
            pending, running, ok, failed, cancelled = job.counts
            known = len(job.status)
            settled = job.settled
        total = self._total if self._total is not None else (known if settled else None)
        finished = ok + failed + cancelled
        rate = finished / elapsed if finished and elapsed > 0 else None
        left = None if total is None else total - finished
        return {
            "id": self.id,
            "function": self.function.name,
            "status": status,
            "total": total,
            "done": finished,
            "ok": ok,
            "failed": failed,
            "cancelled": cancelled,
            "running": running,
            "pending": pending,
            "limit": job.limit.limit,
            "elapsed_s": round(elapsed, 3),
            "rate": None if rate is None else round(rate, 3),
            "eta_s": None if settled or not rate or left is None else round(left / rate, 1),
            "started_at": self.started_at,
        }

    def rows(
        self, start: int = 0, stop: int = 100, status: str | None = None, text: str | None = None
    ) -> dict[str, Any]:
        """Return {"total", "rows"}: the rows start..stop (not included) of those that match.

        `status` keeps rows of that status, `text` those whose input or value contains it.
        """
        job = self._job
        start = max(0, start)
        stop = min(max(start, stop), start + 1000)
        with job.changed:
            if status is None:
                matching: Sequence[int] = range(len(job.status))
            else:
                wanted = STATUS_NAMES.index(status) if status in STATUS_NAMES else -1
                matching = [i for i, each in enumerate(job.status) if each == wanted]
        if text:
            low = text.lower()
            matching = [
                i
                for i in matching
                if low in self._input(i).lower() or low in self._value(i).lower()
            ]
        return {
            "total": len(matching),
            "rows": [self._row(index) for index in matching[start:stop]],
        }

    def detail(self, index: int) -> dict[str, Any]:
        """Return one row with "traceback", "stdout" and the value's "repr" (20,000 characters).

        Raises:
            IndexError: there is no such input.
        """
        outcome = self.outcomes[index]
        try:
            whole = repr(outcome.value) if outcome.status == "ok" else ""
        except Exception as error:
            whole = f"<its repr raised {type(error).__name__}>"
        return {
            **self._row(index),
            "traceback": outcome.traceback[-20_000:] if outcome.traceback else None,
            "stdout": outcome.stdout,
            "repr": whole[:20_000],
        }

    def subscribe(self, callback: Callable[[MapRun], None]) -> Callable[[], None]:
        """Call `callback(run)` after changes, at most 10 times a second, and when it is settled.

        Returns a function that ends the subscription. Callbacks come from a thread of nbscale.
        """
        self._subscribers.append(callback)
        self._on_change()

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def __repr__(self) -> str:
        with self._job.changed:
            done, known = sum(self._job.counts[OK:]), len(self._job.status)
        of = known if self._total is None else self._total
        return f"<MapRun of {self.function.name}: {done}/{of} done, {self.status}>"

    # Inside

    def _row(self, index: int) -> dict[str, Any]:
        job = self._job
        duration = job.duration[index]
        return {
            "index": index,
            "input": self._input(index),
            "status": STATUS_NAMES[job.status[index]],
            "value": self._value(index),
            "duration": None if duration < 0 else duration,
            "attempts": job.attempts[index],
            "worker": str(job.worker[index]) if job.worker[index] else "",
        }

    def _input(self, index: int) -> str:
        args = self._job.args.get(index)
        if args is None:
            return "(not kept)"
        return short_repr(args[0]) if len(args) == 1 else short_repr(args)

    def _value(self, index: int) -> str:
        job = self._job
        error = job.errors.get(index)
        if error is not None:
            return _error_text(error)
        if job.status[index] != OK:
            return ""
        return short_repr(job.values[index]) if index in job.values else "(not kept)"

    def _elapsed_s(self) -> float:
        if self._elapsed is not None:
            return self._elapsed
        return time.monotonic() - self._start

    def _on_change(self) -> None:
        if self._job.settled and self._elapsed is None:
            self._elapsed = time.monotonic() - self._start
        if self._subscribers:
            _notifier.mark(self)

    def _tell(self) -> None:
        for callback in list(self._subscribers):
            try:
                callback(self)
            except Exception as error:  # a view that fails must not stop the others
                self._subscribers.remove(callback)
                print(f"nbscale: a view failed: {error!r}", file=sys.__stderr__)

    def _close_source(self) -> None:
        with self._job.changed:
            self._job.source_done = True
        self._source = None

    def _look_ahead(self) -> int:
        """How many inputs may be pulled beyond those consumed: two batches a slot."""
        job = self._job
        ahead = 2 * job.limit.limit
        if job.mean_s > 0:
            ahead = max(ahead, min(int(0.1 * job.limit.limit / job.mean_s), 20_000))
        if self._packed_mean > 0:
            ahead = max(1, min(ahead, int(LOOK_AHEAD_BYTES / self._packed_mean)))
        return ahead

    def _pull(self, consumer_waits: bool = True) -> None:
        """Pull inputs of a stream, on the consumer's thread, up to the look-ahead."""
        if self._source is None:
            return
        job = self._job
        with self._pull_lock:
            pulled = False
            while self._source is not None and not job.stopped and not job.cancelled:
                if len(job.status) - self._consumed >= self._look_ahead():
                    break
                try:
                    args = next(self._source)
                except StopIteration:
                    self._close_source()
                    pulled = True
                    break
                except Exception as error:
                    self._source_error = error
                    self._close_source()
                    pulled = True
                    break
                packed: bytes | None = None
                try:
                    packed = job.pack_args(args, len(job.status))
                    self._packed_mean += (len(packed) - self._packed_mean) * 0.2
                except Error:
                    pass  # the engine meets the same error and fails this input with it
                with job.changed:
                    job.add(args, packed)
                pulled = True
            if job.stopped or job.cancelled:
                self._close_source()
            if pulled:
                self._scheduler.wake()

    def _take(self, index: int) -> Any:
        """Return the result of an ended input in the form asked for, or raise."""
        job = self._job
        if job.status[index] == OK:
            value = job.values[index]
            if not self._keep:
                del job.values[index]
                job.args.pop(index, None)
            return value
        error = job.errors.get(index)
        if job.status[index] == CANCELLED or error is None:
            raise CancelledError(f"the run of `{self.function.name}` was cancelled")
        if self._return:
            wrapped = self._wrap and not isinstance(error, Error)
            return UserCodeException(error) if wrapped else error
        raise self._clean(index, error)

    def _clean(self, index: int, error: BaseException) -> BaseException:
        """Return the error with the worker's frames only, though it was raised before."""
        kept = self._tracebacks.setdefault(index, error.__traceback__)
        return error.with_traceback(kept)


_WAIT = object()


class _Cursor(Iterator[Any]):
    """A place in the results of a run; shared by the blocking and the asynchronous form."""

    def __init__(self, run: MapRun) -> None:
        self.run = run
        self.next = 0

    def step(self) -> Any:
        """Return the next result, or `_WAIT`; raise what iteration raises."""
        run, job = self.run, self.run._job
        run._pull()
        with job.changed:
            index = self._ready()
            if index is not None:
                self.next += 1
                run._consumed = max(run._consumed, self.next)
                return run._take(index)
            if job.first_error is not None and not run._return:
                first = job.first_error
                raise run._clean(first, job.errors[first])
            if job.cancelled:
                raise CancelledError(f"the run of `{run.function.name}` was cancelled")
            if job.source_done and self.next >= len(job.status):
                if run._source_error is not None:
                    raise run._source_error
                raise StopIteration
        return _WAIT

    def _ready(self) -> int | None:
        job = self.run._job
        if not self.run._ordered:
            if self.next >= len(job.order):
                return None
            # A tail of cancelled inputs stands behind what is raised for them.
            index = job.order[self.next]
            return None if job.status[index] == CANCELLED else index
        index = self.next
        if index >= len(job.status) or job.status[index] not in (OK, FAILED):
            return None
        return index

    def __next__(self) -> Any:
        job = self.run._job
        try:
            while True:
                value = self.step()
                if value is not _WAIT:
                    return value
                with job.changed:
                    if self._ready() is None and not _at_end(job):
                        job.changed.wait(0.5)
        except KeyboardInterrupt:
            # What the cell waits for stops with it.
            self.run.cancel()
            raise


def _at_end(job: Job) -> bool:
    return job.settled or job.cancelled or job.first_error is not None


class _AsyncCursor(AsyncIterator[Any]):
    def __init__(self, cursor: Iterator[Any]) -> None:
        self.cursor = cursor

    async def __anext__(self) -> Any:
        assert isinstance(self.cursor, _Cursor)
        job = self.cursor.run._job
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def listener() -> None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:
                pass  # the loop was closed while the run goes on

        job.listeners.append(listener)
        try:
            while True:
                changed.clear()
                try:
                    value = self.cursor.step()
                except StopIteration:
                    raise StopAsyncIteration from None
                if value is not _WAIT:
                    return value
                await asyncio.wait_for(changed.wait(), None)
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.cursor.run.cancel()
            raise
        finally:
            job.listeners.remove(listener)


def _writer() -> Callable[[int, str], None]:
    """Return what passes printed text on to the output of the cell or script that calls this."""
    context = contextvars.copy_context()

    def write(_index: int, text: str) -> None:
        stream: TextIO = sys.stdout
        context.run(stream.write, text)
        context.run(stream.flush)

    return write


def zipped(iterables: Sequence[Any], name: str) -> tuple[Iterable[tuple[Any, ...]], int | None]:
    """Return the inputs of a map and their number, or None where one iterable has no length.

    Raises:
        InvalidError: nothing, or something that cannot be iterated, was given.
    """
    if not iterables:
        raise InvalidError(f"{name}.map() without inputs: give at least one iterable")
    for place, each in enumerate(iterables):
        if not hasattr(each, "__iter__") and not hasattr(each, "__getitem__"):
            raise InvalidError(
                f"{name}.map(): argument {place} is a {type(each).__name__}, which cannot be "
                f"iterated. Put it in a list, or pass what all inputs share by kwargs="
            )
    lengths = []
    for each in iterables:
        try:
            lengths.append(len(each))
        except TypeError:
            return zip(*map(_iterator, iterables), strict=False), None
    inputs = zip(*map(_iterator, iterables), strict=False)
    return itertools.islice(inputs, min(lengths)), min(lengths)


def _iterator(iterable: Any) -> Iterator[Any]:
    return iter(iterable)
