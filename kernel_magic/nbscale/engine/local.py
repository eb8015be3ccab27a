"""The embedded default backend: processes of loky's context on this machine, each with a private
pipe.

loky starts a clean interpreter (no fork of a kernel full of threads, no `__main__` guard). A pipe
of its own for each worker means that a death has one owner: no lock or queue is shared that a
killed worker could leave locked.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from loky.backend.context import get_context

from . import worker
from .backend import Batch, Begun, Died, Event, Output, Ready, Result, WorkerSpec

__all__ = ["LocalBackend"]

# What joblib caps, too; a value that the user set wins.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class LocalSlot:
    """One worker process and the parent's end of its pipe."""

    def __init__(self, spec: WorkerSpec) -> None:
        env = dict(spec.env)
        if spec.threads is not None:
            for key in _THREAD_VARIABLES:
                if key not in os.environ:
                    env.setdefault(key, str(spec.threads))
        self.connection, child = Pipe(duplex=True)
        try:
            self.process = get_context("loky").Process(
                target=worker.main,
                args=(child, os.getpid(), sorted(env)),
                name="nbscale-worker",
                daemon=False,  # a daemon may have no children, and nested maps start some
                env=env,
            )
            self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            child.close()
        self.functions: set[bytes] = set()
        self.context_digest = b""
        self.dead = False

    @property
    def name(self) -> str:
        """The worker's process id."""
        return str(self.process.pid)

    def run(self, batch: Batch) -> None:
        """Send what the worker lacks of the function and the context, then the inputs."""
        messages: list[tuple[Any, ...]] = []
        if batch.digest not in self.functions:
            if len(self.functions) >= worker.FUNCTIONS_KEPT:
                # The worker forgets the oldest; forget all here, and send again when needed.
                self.functions.clear()
            self.functions.add(batch.digest)
            messages.append(("function", batch.digest, batch.function))
        if batch.context_digest != self.context_digest:
            self.context_digest = batch.context_digest
            messages.append(("context", batch.context_digest, batch.context))
        messages.append(("batch", batch.digest, batch.inputs))
        try:
            for message in messages:
                self.connection.send_bytes(pickle.dumps(message, protocol=5))
        except OSError:
            pass  # the worker has died: poll() reports it

    def cancel(self) -> None:
        """Interrupt the running input by a signal; where there is none, kill the worker."""
        pid = self.process.pid
        if hasattr(signal, "SIGUSR1") and pid is not None:
            try:
                os.kill(pid, signal.SIGUSR1)
            except OSError:
                pass
        else:
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        pid = self.process.pid
        try:
            if hasattr(signal, "SIGKILL") and pid is not None and self.process.exitcode is None:
                os.kill(pid, signal.SIGKILL)
            else:
                self.process.terminate()  # Windows: TerminateProcess, which is as final
        except (OSError, ValueError):
            pass  # it is gone

    def close(self) -> None:
        """End an idle worker: the end of its pipe tells it."""
        self.dead = True
        try:
            self.connection.send_bytes(pickle.dumps(("stop",)))
        except OSError:
            pass
        self.connection.close()

    def exit_code(self) -> int | None:
        """Wait shortly for the process and return its exit code, or None."""
        self.process.join(2.0)
        code = self.process.exitcode
        return None if code is None else int(code)


class LocalBackend:
    """Workers on this machine; see `nbscale.engine.backend.Backend`."""

    def __init__(self) -> None:
        self._slots: dict[Connection, LocalSlot] = {}
        self._closed: list[LocalSlot] = []
        self._wake_read, self._wake_write = Pipe(duplex=False)
        self._woken = False

    def start(self, spec: WorkerSpec) -> LocalSlot:
        """Start a process; returns before it is up."""
        slot = LocalSlot(spec)
        self._slots[slot.connection] = slot
        return slot

    def poll(self, timeout_s: float | None) -> Sequence[Event]:
        """Read one message of every worker that has one."""
        events: list[Event] = []
        for ready in wait([*self._slots, self._wake_read], timeout_s):
            if ready is self._wake_read:
                self._woken = False
                self._wake_read.recv_bytes()
                continue
            slot = self._slots.get(cast("Connection[Any, Any]", ready))
            if slot is None or slot.dead:
                continue
            try:
                event = _event(slot, pickle.loads(slot.connection.recv_bytes()))
            except (EOFError, OSError, pickle.UnpicklingError):
                self._forget(slot)
                slot.kill()
                event = Died(slot, slot.exit_code())
            events.append(event)
        self._reap()
        return events

    def wake(self) -> None:
        """Make `poll` return."""
        if not self._woken:
            self._woken = True
            self._wake_write.send_bytes(b"x")

    def close(self, slot: LocalSlot) -> None:
        """End an idle worker and reap it later."""
        self._forget(slot, close=False)
        slot.close()
        self._closed.append(slot)

    def shutdown(self) -> None:
        """Kill every worker first, then wait: a worker stuck in C must not hold the exit."""
        slots = [*self._slots.values(), *self._closed]
        for slot in slots:
            slot.kill()
        deadline = time.monotonic() + 1.0
        for slot in slots:
            slot.process.join(max(0.0, deadline - time.monotonic()))
        for slot in list(self._slots.values()):
            self._forget(slot)
        self._closed.clear()

    def _forget(self, slot: LocalSlot, close: bool = True) -> None:
        self._slots.pop(slot.connection, None)
        slot.dead = True
        if close:
            slot.connection.close()

    def _reap(self) -> None:
        self._closed = [slot for slot in self._closed if slot.process.exitcode is None]


def _event(slot: LocalSlot, message: tuple[Any, ...]) -> Event:
    kind = message[0]
    if kind == "result":
        return Result(slot, *message[1:])
    if kind == "output":
        return Output(slot, message[1], message[2])
    return Begun(slot) if kind == "begun" else Ready(slot)
