"""The code that runs inside a worker's process.

A worker reads a message from its private pipe, does it, and writes the outcome to the same
pipe itself: there is no feeder thread, so an outcome that was written survives the worker.
Each result is written as its input ends, in order: when a worker dies, the first input of its
batch that has no result is the one that it was running.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import io
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from ..exception import InputCancellation, SerializationError
from . import payload

__all__ = ["main"]

# Output is sent at a newline, but not more often than this while an input prints a lot.
OUTPUT_INTERVAL_S = 0.05
OUTPUT_KEPT_CHARS = 64 * 1024
FUNCTIONS_KEPT = 32


class _Worker:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.write_lock = threading.Lock()
        self.functions: OrderedDict[bytes, Any] = OrderedDict()
        self.context_digest = b""
        self.started_env = dict(os.environ)
        self.index = -1
        self.in_user_code = False
        self.batch_cancelled = False
        self.cancel_raised = False
        self.stdout = _Output(self)

    def send(self, message: tuple[Any, ...]) -> None:
        data = pickle.dumps(message, protocol=5)
        with self.write_lock:
            # A cancellation that came in the middle of a write would leave half a message.
            was, self.in_user_code = self.in_user_code, False
            try:
                self.connection.send_bytes(data)
            finally:
                self.in_user_code = was
        if was and self.batch_cancelled and not self.cancel_raised:
            self.cancel_raised = True
            raise InputCancellation("the run was cancelled")

    def on_cancel(self, _signal: int, _frame: FrameType | None) -> None:
        self.batch_cancelled = True
        if self.in_user_code and not self.cancel_raised:
            self.cancel_raised = True
            raise InputCancellation("the run was cancelled")

    def serve(self) -> None:
        self.send(("ready",))
        while True:
            try:
                message = pickle.loads(self.connection.recv_bytes())
            except (EOFError, OSError):
                return
            if message[0] == "stop":
                return
            if message[0] == "function":
                self.functions[message[1]] = message[2]
                while len(self.functions) > FUNCTIONS_KEPT:
                    self.functions.popitem(last=False)
            elif message[0] == "context":
                self.use_context(message[1], message[2])
            else:
                self.run_batch(message[1], message[2])

    def use_context(self, digest: bytes, data: bytes) -> None:
        """Take over the caller's working directory, import path and environment."""
        cwd, path, environ = pickle.loads(data)
        # What the process was started with (thread caps, env=) wins over the caller's.
        overrides = {key: os.environ[key] for key in _own_variables if key in self.started_env}
        for key in [key for key in os.environ if key not in environ and key not in overrides]:
            del os.environ[key]
        os.environ.update({**environ, **overrides})
        sys.path[:] = path
        try:
            os.chdir(cwd)
        except OSError:
            pass  # the folder is gone: the user's own open() says it better than we could
        self.context_digest = digest

    def function(self, digest: bytes) -> Callable[..., Any]:
        kept = self.functions[digest]
        self.functions.move_to_end(digest)
        if isinstance(kept, bytes):
            kept = payload.load(kept, "the function")
            self.functions[digest] = kept
        found: Callable[..., Any] = kept
        return found

    def run_batch(self, digest: bytes, inputs: list[tuple[int, bytes]]) -> None:
        self.batch_cancelled = self.cancel_raised = False
        self.send(("begun",))
        for index, data in inputs:
            if self.batch_cancelled:
                self.send(("result", index, False, _CANCELLED, "", 0.0))
                continue
            self.run_input(digest, index, data)

    def run_input(self, digest: bytes, index: int, data: bytes) -> None:
        self.index = index
        start = time.perf_counter()
        ok, out, text = False, b"", ""
        try:
            try:
                function = self.function(digest)
                args, kwargs = payload.load(data, f"input {index}")
                self.in_user_code = True
                value = function(*args, **kwargs)
                if inspect.iscoroutine(value):
                    value = asyncio.run(value)
            finally:
                self.in_user_code = False
            duration = time.perf_counter() - start
            ok, out = True, payload.dump(value, f"the result of input {index}")
        except SerializationError as error:
            duration = time.perf_counter() - start
            out = payload.dump_exception(error.with_traceback(None))
            text = f"SerializationError: {error}"
        except BaseException as error:
            duration = time.perf_counter() - start
            # Our own frame is no part of what went wrong.
            if error.__traceback__ is not None:
                error.__traceback__ = error.__traceback__.tb_next
            try:
                text = "".join(traceback.format_exception(error))
            except BaseException:  # a user's __str__ may raise anything
                text = type(error).__name__
            out = _CANCELLED if isinstance(error, InputCancellation) else b""
            if not out:
                out = payload.dump_exception(error)
        self.stdout.end_of_input()
        self.send(("result", index, ok, out, text, duration))


class _Output(io.TextIOBase):
    """Stands in for sys.stdout and sys.stderr: what is printed goes to the parent, tagged."""

    def __init__(self, worker: _Worker) -> None:
        self.worker = worker
        self.buffer_text: list[str] = []
        self.sent_chars = 0
        self.last_sent = 0.0
        self.lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8: text is pickled, not encoded."""
        return "utf-8"

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Keep `text`; send at a newline once the interval has passed."""
        with self.lock:
            self.buffer_text.append(text)
            if "\n" in text and time.monotonic() - self.last_sent >= OUTPUT_INTERVAL_S:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what was printed so far, up to the size kept for one input."""
        with self.lock:
            text, self.buffer_text = "".join(self.buffer_text), []
            if not text:
                return
            room = OUTPUT_KEPT_CHARS - self.sent_chars
            if len(text) > room:
                note = f"\n[... {len(text) - room} more characters not kept]\n"
                text = text[:room] + note if room > 0 else ""
            self.sent_chars += len(text)
            self.last_sent = time.monotonic()
            if text:
                self.worker.send(("output", self.worker.index, text))

    def end_of_input(self) -> None:
        """Send the rest; the next input starts with the full size again."""
        self.flush()
        self.sent_chars = 0
        self.last_sent = 0.0


_CANCELLED = b"cancelled"
_own_variables: list[str] = []


def _die_with_parent(parent: int) -> None:
    """End this process when the parent does, also while C code holds the GIL (Linux).

    Elsewhere the pipe's end of file does it as soon as the running input returns, and a thread
    looks at the parent's id meanwhile.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
        except (OSError, AttributeError):
            pass
    if hasattr(os, "getppid"):
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(1.0)
            os._exit(1)

        threading.Thread(target=watch, name="nbscale-parent-watch", daemon=True).start()


def main(connection: Connection, parent: int, own_variables: list[str]) -> None:
    """Serve the pipe until it ends. `own_variables` names what the process's env= set."""
    _die_with_parent(parent)
    _own_variables[:] = own_variables
    # Ctrl-C goes to the whole group of processes; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    payload.install()
    worker = _Worker(connection)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, worker.on_cancel)
    sys.stdout = sys.stderr = worker.stdout
    try:
        worker.serve()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    finally:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
