"""Bounded, ordered dispatch of inputs to slots, with retries, timeouts and cancellation.

    user threads ── submit, cancel, wake ──> scheduler thread ── run ──> slots
    user threads <── job.changed (condition) ── scheduler thread <── poll ── backend

One thread per process owns the backend and every job's state changes; it lives as long as the
process, which is also what the workers' parent-death signal asks for.
"""

from __future__ import annotations

import atexit
import heapq
import os
import pickle
import signal
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..exception import (
    CancelledError,
    Error,
    FunctionTimeoutError,
    SerializationError,
    WorkerDiedError,
)
from ..options import FunctionOptions
from . import payload
from .backend import Backend, Batch, Begun, Died, Event, Output, Ready, Result, Slot, WorkerSpec

__all__ = ["CANCELLED", "FAILED", "OK", "PENDING", "RUNNING", "Job", "Limit", "Scheduler"]

PENDING, RUNNING, OK, FAILED, CANCELLED = range(5)

# A batch aims at this much work; an input that takes longer travels alone.
BATCH_AIM_S = 0.025
BATCH_MAX = 1000
# A running input that is cancelled has this long to clean up before its worker is killed.
CANCEL_GRACE_S = 2.0
OUTPUT_KEPT_CHARS = 64 * 1024
# A worker that cannot even start (broken environment) must not be started for ever.
START_FAILURES = 3


@dataclass(eq=False)
class Limit:
    """How many inputs may run at once; `parent` is a limit over several of these."""

    limit: int
    parent: Limit | None = None
    running: int = 0

    def room(self) -> int:
        """Return how many more may start now."""
        room = self.limit - self.running
        return room if self.parent is None else min(room, self.parent.room())

    def add(self, count: int) -> None:
        """Count `count` more (or fewer) as running."""
        self.running += count
        if self.parent is not None:
            self.parent.add(count)


@dataclass(eq=False)
class Job:
    """The inputs of one run and what became of them, in columns with one place an input.

    The scheduler's thread writes; others read under `changed`. `values` holds the results that
    are kept; `errors` the exceptions.
    """

    what: str
    function: bytes
    context: bytes
    options: FunctionOptions
    limit: Limit
    spec: WorkerSpec
    kwargs: dict[str, Any] = field(default_factory=dict)
    stop_on_error: bool = True
    on_output: Callable[[int, str], None] | None = None

    def __post_init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.args: dict[int, tuple[Any, ...]] = {}
        self.packed: dict[int, bytes] = {}
        self.status = bytearray()
        self.values: dict[int, Any] = {}
        self.errors: dict[int, BaseException] = {}
        self.tracebacks: dict[int, str] = {}
        self.stdout: dict[int, str] = {}
        self.duration = array("d")
        self.attempts = array("H")
        self.worker = array("l")
        self.counts = [0, 0, 0, 0, 0]
        self.order: deque[int] = deque()
        self.first_error: int | None = None
        self.cancelled = False
        self.stopped = False
        self.source_done = False
        self.settled = False
        self.ready: deque[int] = deque()
        self.delayed: list[tuple[float, int]] = []
        self.slots: set[_Held] = set()
        self.mean_s = 0.0
        self.listeners: list[Callable[[], None]] = []
        self.use(self.function, self.context, self.options)

    def use(self, function: bytes, context: bytes, options: FunctionOptions) -> None:
        """Take this pickled function from now on, as it is defined now."""
        self.function, self.context, self.options = function, context, options
        self.digest = payload.digest(function)
        self.context_digest = payload.digest(context)

    def add(self, args: tuple[Any, ...], packed: bytes | None = None) -> int:
        """Append one input and return its index; call under `changed`."""
        index = len(self.status)
        self.args[index] = args
        if packed is not None:
            self.packed[index] = packed
        self.status.append(PENDING)
        self.counts[PENDING] += 1
        self.duration.append(-1.0)
        self.attempts.append(0)
        self.worker.append(0)
        self.ready.append(index)
        return index

    def set_status(self, index: int, status: int) -> None:
        """Move one input to `status`; call under `changed`."""
        self.counts[self.status[index]] -= 1
        self.counts[status] += 1
        self.status[index] = status
        if status >= OK:
            self.order.append(index)

    def batch_size(self) -> int:
        """Return how many inputs to send at once: about 25 ms of work, one while unmeasured."""
        if self.mean_s <= 0.0:
            return 1
        fair = max(1, len(self.ready) // (2 * max(1, self.limit.limit)))
        return max(1, min(int(BATCH_AIM_S / self.mean_s), fair, BATCH_MAX))

    def pack(self, index: int) -> bytes:
        """Return the pickled arguments of one input.

        Raises:
            SerializationError: naming the input and, where it can be told, the argument.
        """
        packed = self.packed.pop(index, None)
        return self.pack_args(self.args[index], index) if packed is None else packed

    def pack_args(self, args: tuple[Any, ...], index: int) -> bytes:
        """Pickle `args` and the run's kwargs as `pack` does."""
        try:
            return (
                pickle.dumps((args, self.kwargs), protocol=5)
                if _plain(args)
                else payload.dump((args, self.kwargs), "x")
            )
        except Exception as error:
            named = [*enumerate(args), *self.kwargs.items()]
            for key, value in named:
                label = f"argument {key!r} of input {index} of {self.what}"
                payload.dump(value, f"{label} ({type(value).__name__})")
            raise SerializationError(f"input {index} of {self.what}: {error}") from error


def _plain(args: tuple[Any, ...]) -> bool:
    """Whether pickle alone does: cloudpickle is ten times slower to set up."""
    return all(type(arg) in (int, float, str, bytes, bool, type(None)) for arg in args)


@dataclass(eq=False)
class _Held:
    """A slot and what the scheduler knows of it."""

    slot: Slot
    spec: WorkerSpec
    job: Job | None = None
    inputs: deque[int] = field(default_factory=deque)
    up: bool = False
    begun: bool = False
    head_start: float = 0.0
    idle_since: float = 0.0
    keep_s: float = 60.0
    inputs_run: int = 0
    kill_reason: Error | None = None
    kill_at: float | None = None


class Scheduler:
    """Runs jobs on a backend, in a daemon thread of its own."""

    def __init__(self, make_backend: Callable[[], Backend]) -> None:
        self._make_backend = make_backend
        self._backend = make_backend()
        self._commands: deque[Callable[[], None]] = deque()
        self._jobs: list[Job] = []
        self._held: dict[int, _Held] = {}
        self._start_failures = 0
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="nbscale-engine", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def is_usable(self) -> bool:
        """Whether this process may use it: not in a forked child, whose thread is gone."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def call(self, command: Callable[[], None]) -> None:
        """Run `command` in the scheduler's thread, soon."""
        self._commands.append(command)
        self._backend.wake()

    def submit(self, job: Job) -> None:
        """Start to dispatch the job's inputs."""
        self.call(lambda: self._jobs.append(job) if job not in self._jobs else None)

    def wake(self) -> None:
        """Look for work again: inputs were added, or a limit was changed."""
        self._backend.wake()

    def cancel(self, job: Job) -> None:
        """Cancel what waits at once; interrupt what runs."""
        with job.changed:
            if job.settled:
                return
            job.cancelled = True
            self._drop_waiting(job)
            job.changed.notify_all()
        self.call(lambda: self._cancel_running(job))

    def shutdown_workers(self, timeout_s: float = 5.0) -> None:
        """Cancel every job and end all workers; the next job starts afresh."""
        if not self.is_usable():
            return
        for job in list(self._jobs):
            self.cancel(job)
        done = threading.Event()

        def stop() -> None:
            for held in list(self._held.values()):
                if held.job is not None:
                    held.kill_reason = CancelledError("the app was shut down")
                    self._end_of_slot(held, None)
            self._held.clear()
            self._backend.shutdown()
            done.set()

        self.call(stop)
        done.wait(timeout_s)

    def _at_exit(self) -> None:
        if os.getpid() != self._pid:
            return
        for job in list(self._jobs):
            with job.changed:
                job.on_output = None
        self.shutdown_workers(3.0)
        self._stop.set()
        self._backend.wake()
        self._thread.join(1.0)

    # Everything below runs in the scheduler's thread.

    def _loop(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Signals are the main thread's business.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while not self._stop.is_set():
            try:
                while self._commands:
                    self._commands.popleft()()
                self._dispatch()
                for event in self._backend.poll(self._timeout()):
                    self._handle(event)
                self._expire()
                self._settle()
            except Exception as error:  # an engine that dies silently would hang its users
                self._fail_everything(error)

    def _fail_everything(self, error: Exception) -> None:
        import traceback

        print("nbscale: internal error\n" + traceback.format_exc(), file=sys.__stderr__)
        for job in self._jobs:
            with job.changed:
                for index, status in enumerate(job.status):
                    if status < OK:
                        job.errors[index] = Error(f"internal error of nbscale: {error!r}")
                        job.set_status(index, FAILED)
                job.ready.clear()
                job.delayed.clear()
                job.stopped = True
                job.slots.clear()
        for held in self._held.values():
            if held.job is not None:
                held.job.limit.add(-1)
        self._held.clear()
        self._backend.shutdown()
        self._settle()

    def _dispatch(self) -> None:
        now = time.monotonic()
        for job in self._jobs:
            with job.changed:
                while job.delayed and job.delayed[0][0] <= now:
                    job.ready.append(heapq.heappop(job.delayed)[1])
        for job in self._jobs:
            while job.ready and job.limit.room() > 0:
                held = self._idle_slot(job.spec)
                if held is None:
                    break
                self._send(held, job)
            self._start_slots(job)

    def _idle_slot(self, spec: WorkerSpec) -> _Held | None:
        # The one used last: the others become old enough to be closed.
        idle = [h for h in self._held.values() if h.up and h.job is None and h.spec == spec]
        return max(idle, key=lambda held: held.idle_since, default=None)

    def _start_slots(self, job: Job) -> None:
        starting = sum(1 for h in self._held.values() if not h.up and h.spec == job.spec)
        batches = -(-len(job.ready) // job.batch_size())
        for _ in range(min(job.limit.room(), batches) - starting):
            slot = self._backend.start(job.spec)
            self._held[id(slot)] = _Held(slot, job.spec)

    def _send(self, held: _Held, job: Job) -> None:
        batch = Batch(job.digest, job.function, job.context, job.context_digest)
        size = job.batch_size()
        max_inputs = job.options.max_inputs
        if max_inputs is not None:
            size = min(size, max(1, max_inputs - held.inputs_run))
        with job.changed:
            while job.ready and len(batch.inputs) < size:
                index = job.ready.popleft()
                try:
                    packed = job.pack(index)
                except Exception as error:
                    job.attempts[index] += 1
                    self._fail(job, index, error, "")
                    continue
                job.attempts[index] = min(job.attempts[index] + 1, 65535)
                job.worker[index] = int(held.slot.name)
                job.set_status(index, RUNNING)
                batch.inputs.append((index, packed))
        if not batch.inputs:
            return
        held.job, held.begun, held.kill_reason, held.kill_at = job, False, None, None
        held.inputs.extend(index for index, _ in batch.inputs)
        held.keep_s = job.options.scaledown_window
        job.limit.add(1)
        job.slots.add(held)
        held.slot.run(batch)
        self._changed(job)

    def _handle(self, event: Event) -> None:
        held = self._held.get(id(event.slot))
        if held is None:
            return
        job = held.job
        if isinstance(event, Ready):
            held.up = True
            held.idle_since = time.monotonic()
            self._start_failures = 0
        elif isinstance(event, Died):
            self._end_of_slot(held, event.exit_code)
        elif job is None:
            return
        elif isinstance(event, Begun):
            held.begun = True
            held.head_start = time.monotonic()
        elif isinstance(event, Output):
            self._output(job, event.index, event.text)
        elif isinstance(event, Result):
            self._result(held, job, event)

    def _result(self, held: _Held, job: Job, event: Result) -> None:
        index = event.index
        held.inputs.popleft()
        held.inputs_run += 1
        held.head_start = time.monotonic()
        job.mean_s = (
            event.duration_s
            if not job.mean_s
            else (0.8 * job.mean_s + 0.2 * max(event.duration_s, 2e-5))
        )
        value: Any = None
        error: BaseException | None = None
        if event.payload == b"cancelled" and not event.ok:
            error = CancelledError(f"input {index} of {job.what} was cancelled")
        elif event.ok:
            try:
                value = payload.load(event.payload, f"the result of input {index} of {job.what}")
            except SerializationError as failure:
                error = failure
        else:
            error = payload.load_exception(event.payload)
        with job.changed:
            job.duration[index] = event.duration_s
            if error is None:
                job.values[index] = value
                job.set_status(index, OK)
            elif isinstance(error, CancelledError) and job.cancelled:
                job.errors[index] = error
                job.set_status(index, CANCELLED)
            else:
                self._fail(job, index, error, event.traceback)
        self._changed(job)
        if not held.inputs:
            self._free(held)

    def _free(self, held: _Held) -> None:
        job = held.job
        if job is None:
            return
        job.limit.add(-1)
        job.slots.discard(held)
        held.job = None
        held.kill_at = None
        held.idle_since = time.monotonic()
        if job.options.max_inputs is not None and held.inputs_run >= job.options.max_inputs:
            self._close(held)

    def _close(self, held: _Held) -> None:
        self._held.pop(id(held.slot), None)
        self._backend.close(held.slot)

    def _fail(self, job: Job, index: int, error: BaseException, text: str) -> None:
        """Fail one input, or put it back for another attempt; call under `changed`."""
        retries = job.options.retries
        again = job.attempts[index] <= retries.max_retries and not (job.cancelled or job.stopped)
        if again and not isinstance(error, SerializationError):
            job.set_status(index, PENDING)
            delay = retries.delay_s(job.attempts[index])
            heapq.heappush(job.delayed, (time.monotonic() + delay, index))
            return
        job.errors[index] = error
        if text:
            job.tracebacks[index] = text
        job.set_status(index, FAILED)
        if job.stop_on_error:
            if job.first_error is None or index < job.first_error:
                job.first_error = index
            job.stopped = True
            self._drop_waiting(job)

    def _drop_waiting(self, job: Job) -> None:
        """Cancel the inputs that have not started; call under `changed`."""
        waiting = [*job.ready, *(index for _, index in job.delayed)]
        job.ready.clear()
        job.delayed.clear()
        for index in waiting:
            job.packed.pop(index, None)
            if job.status[index] == PENDING:
                job.set_status(index, CANCELLED)

    def _cancel_running(self, job: Job) -> None:
        with job.changed:
            self._drop_waiting(job)
        for held in list(job.slots):
            if held.kill_at is None:
                held.kill_at = time.monotonic() + CANCEL_GRACE_S
                held.kill_reason = CancelledError("the run was cancelled")
                held.slot.cancel()
        self._changed(job)

    def _end_of_slot(self, held: _Held, exit_code: int | None) -> None:
        """Charge a worker's death to the input that it was running, and to no other."""
        self._held.pop(id(held.slot), None)
        job = held.job
        if job is None:
            if not held.up and held.kill_reason is None:
                self._could_not_start(held, exit_code)
            return
        with job.changed:
            rest = list(held.inputs)
            held.inputs.clear()
            reason = held.kill_reason
            if rest and (held.begun or reason is not None):
                guilty = rest.pop(0)
                job.duration[guilty] = time.monotonic() - held.head_start if held.begun else 0.0
                if isinstance(reason, CancelledError):
                    job.errors[guilty] = CancelledError(
                        f"input {guilty} of {job.what} was cancelled; its worker was killed"
                    )
                    job.set_status(guilty, CANCELLED)
                else:
                    error = reason or _death(job, guilty, exit_code)
                    self._fail(job, guilty, error, f"{type(error).__name__}: {error}\n")
            for index in reversed(rest):
                job.attempts[index] -= 1
                if job.cancelled or job.stopped:
                    job.set_status(index, CANCELLED)
                else:
                    job.set_status(index, PENDING)
                    job.ready.appendleft(index)
        job.limit.add(-1)
        job.slots.discard(held)
        held.job = None
        self._changed(job)

    def _could_not_start(self, held: _Held, exit_code: int | None) -> None:
        self._start_failures += 1
        if self._start_failures < START_FAILURES:
            return
        self._start_failures = 0
        for job in self._jobs:
            if job.spec != held.spec:
                continue
            with job.changed:
                waiting = list(job.ready)
                job.ready.clear()
                for index in waiting:
                    error = WorkerDiedError(
                        f"workers for {job.what} end before they are ready (exit code "
                        f"{exit_code}). What they wrote is on this process's stderr.",
                        exit_code,
                        index,
                    )
                    job.attempts[index] = 65535  # no retry can help
                    self._fail(job, index, error, "")
            self._changed(job)

    def _output(self, job: Job, index: int, text: str) -> None:
        with job.changed:
            kept = job.stdout.get(index, "") + text
            if len(kept) > OUTPUT_KEPT_CHARS:
                half = OUTPUT_KEPT_CHARS // 2
                kept = kept[:half] + "\n[...]\n" + kept[-half + 7 :]
            job.stdout[index] = kept
            on_output = job.on_output
        if on_output is not None:
            try:
                on_output(index, text)
            except Exception:
                job.on_output = None  # its stream is closed
        self._changed(job)

    def _timeout(self) -> float | None:
        """Return the seconds until the next deadline, or None."""
        now = time.monotonic()
        moments = [job.delayed[0][0] for job in self._jobs if job.delayed]
        for held in self._held.values():
            if held.kill_at is not None:
                moments.append(held.kill_at)
            if held.job is not None and held.begun and held.job.options.timeout is not None:
                moments.append(held.head_start + held.job.options.timeout)
            if held.job is None and held.up:
                moments.append(held.idle_since + held.keep_s)
        if self._commands:
            return 0.0
        return max(0.0, min(moments) - now) if moments else None

    def _expire(self) -> None:
        now = time.monotonic()
        for held in list(self._held.values()):
            job = held.job
            if job is None:
                if held.up and now - held.idle_since >= held.keep_s:
                    self._close(held)
                continue
            timeout = job.options.timeout
            if held.kill_at is not None and now >= held.kill_at:
                held.slot.kill()
                held.kill_at = None
            elif held.begun and timeout is not None and now - held.head_start >= timeout:
                if held.kill_reason is None and held.inputs:
                    index = held.inputs[0]
                    held.kill_reason = FunctionTimeoutError(
                        f"input {index} of {job.what} ran longer than timeout={timeout:g} s; "
                        "its worker was stopped"
                    )
                    held.slot.kill()
                held.head_start = now

    def _changed(self, job: Job) -> None:
        with job.changed:
            job.changed.notify_all()
            listeners = list(job.listeners)
        for listener in listeners:
            listener()

    def _settle(self) -> None:
        for job in list(self._jobs):
            with job.changed:
                waiting = job.ready or job.delayed or job.slots
                ended = job.source_done or job.cancelled or job.stopped
                if waiting or not ended:
                    continue
                job.settled = True
                self._jobs.remove(job)
            self._changed(job)


def _death(job: Job, index: int, exit_code: int | None) -> WorkerDiedError:
    if exit_code is None:
        how = "its process ended"
    elif exit_code < 0:
        try:
            how = f"it was killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            how = f"it was killed by signal {-exit_code}"
    else:
        how = f"it exited with code {exit_code}"
    hint = " The machine may be out of memory." if exit_code == -9 else ""
    return WorkerDiedError(
        f"the worker died while it ran input {index} of {job.what}: {how}.{hint}", exit_code, index
    )
