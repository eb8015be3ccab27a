"""What a backend gives to the scheduler: slots that each run one batch of inputs at a time.

    scheduler ── start(spec) ──> backend        "one more worker, please"
    scheduler ── run(batch) ───> slot           one batch in flight a slot
    scheduler <── poll() ─────── backend        events: ready, begun, result, output, died

All calls come from the scheduler's thread, but `wake`, which any thread may call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "Backend",
    "Batch",
    "Begun",
    "Died",
    "Event",
    "Output",
    "Ready",
    "Result",
    "Slot",
    "WorkerSpec",
]


@dataclass(frozen=True)
class WorkerSpec:
    """What must be the same for two functions to share a worker's process.

    Attributes:
        env: environment variables of the process, sorted pairs.
        threads: cap for the thread pools of BLAS and OpenMP, or None for no cap.
    """

    env: tuple[tuple[str, str], ...] = ()
    threads: int | None = None


@dataclass
class Batch:
    """Inputs for one worker, run one after the other in this order.

    Attributes:
        digest: names the function.
        function: its pickle, sent when the worker does not have it yet.
        context: pickle of (cwd, sys.path, environ) as they were at the call.
        context_digest: names the context.
        inputs: (index, pickled (args, kwargs)) pairs.
    """

    digest: bytes
    function: bytes
    context: bytes
    context_digest: bytes
    inputs: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass
class Ready:
    """The worker of `slot` is up and waits for a batch."""

    slot: Slot


@dataclass
class Begun:
    """The worker of `slot` starts with the first input of its batch now."""

    slot: Slot


@dataclass
class Result:
    """One input ended. `ok` says whether `payload` is a pickled value or a pickled exception."""

    slot: Slot
    index: int
    ok: bool
    payload: bytes
    traceback: str
    duration_s: float


@dataclass
class Output:
    """An input printed `text`."""

    slot: Slot
    index: int
    text: str


@dataclass
class Died:
    """The worker's process ended; `exit_code` is negative for a signal."""

    slot: Slot
    exit_code: int | None


Event = Ready | Begun | Result | Output | Died


class Slot(Protocol):
    """A place where one batch runs at a time: one worker."""

    @property
    def name(self) -> str:
        """What the worker is called in an `Outcome`: its process id, here."""

    def run(self, batch: Batch) -> None:
        """Send the batch; the events of its inputs follow in order."""

    def cancel(self) -> None:
        """Raise `InputCancellation` in the running input and skip the rest of the batch."""

    def kill(self) -> None:
        """End the worker at once; a `Died` event follows."""


class Backend(Protocol):
    """Starts workers and reports what they do."""

    def start(self, spec: WorkerSpec) -> Slot:
        """Start a worker; `Ready`, or `Died`, follows."""

    def close(self, slot: Any) -> None:
        """End an idle worker; no event follows."""

    def poll(self, timeout_s: float | None) -> Sequence[Event]:
        """Wait for events, up to `timeout_s` (None: until there is one or `wake` is called)."""

    def wake(self) -> None:
        """Make `poll` return soon; from any thread."""

    def shutdown(self) -> None:
        """Kill every worker; return when they are gone or a second has passed."""
