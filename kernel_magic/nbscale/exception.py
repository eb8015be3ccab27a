"""Every error that a user of nbscale can meet.

Error
 ├── InvalidError (ValueError)            a wrong argument, option or use: fix the call
 ├── RemoteError                          an exception that could not be sent back as itself
 ├── SerializationError                   something that cannot cross to a worker or back
 ├── WorkerDiedError                      the worker's process ended under an input
 ├── FunctionTimeoutError (TimeoutError)  one attempt took longer than `timeout`
 ├── CancelledError                       the run was cancelled; also concurrent.futures'
 └── UserCodeException                    wraps a user's exception among results
InputCancellation (BaseException)         raised inside a running input that is cancelled
"""

from __future__ import annotations

import concurrent.futures

__all__ = [
    "CancelledError",
    "Error",
    "FunctionTimeoutError",
    "InputCancellation",
    "InvalidError",
    "RemoteError",
    "SerializationError",
    "UserCodeException",
    "WorkerDiedError",
]


class Error(Exception):
    """The root of nbscale's own errors."""


class InvalidError(Error, ValueError):
    """An argument, an option or a call is wrong; nothing was started."""


class RemoteError(Error):
    """An exception of a worker that could not travel as itself: its type, message and traceback
    are here as text.

    Attributes:
        type_name: name of the exception's class in the worker.
        traceback_text: the worker's traceback as text, or "".
    """

    def __init__(self, message: str, type_name: str = "", traceback_text: str = "") -> None:
        super().__init__(message, type_name, traceback_text)
        self.type_name = type_name
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return str(self.args[0])


class SerializationError(Error):
    """A function, an input or a result cannot be pickled or unpickled; the message says which."""


class WorkerDiedError(Error):
    """The worker's process ended while it ran this input.

    Attributes:
        exit_code: the process's exit status; negative for the signal that killed it; None when
            it is not known.
        input_index: the index of the input that it was running, or None.
    """

    def __init__(
        self, message: str, exit_code: int | None = None, input_index: int | None = None
    ) -> None:
        super().__init__(message, exit_code, input_index)
        self.exit_code = exit_code
        self.input_index = input_index

    def __str__(self) -> str:
        return str(self.args[0])


class FunctionTimeoutError(Error, TimeoutError):
    """One attempt at one input took longer than the function's `timeout`; its worker was killed."""


class CancelledError(Error, concurrent.futures.CancelledError):
    """The run was cancelled before this result was there."""


class UserCodeException(Error):
    """A user's exception in its place among the results (`return_exceptions=True`).

    Attributes:
        exception: the original exception, with the worker's traceback.
    """

    def __init__(self, exception: BaseException) -> None:
        super().__init__(exception)
        self.exception = exception

    def __repr__(self) -> str:
        return f"UserCodeException({self.exception!r})"


class InputCancellation(BaseException):
    """Raised inside a running input that is cancelled; no `except Exception` swallows it.

    The input has 2 seconds to clean up before its worker is killed.
    """
