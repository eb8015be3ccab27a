"""How objects cross between processes: cloudpickle, always inside a try that names the object."""

from __future__ import annotations

import hashlib
import pickle
import traceback
from typing import Any

import cloudpickle
from tblib import pickling_support

from ..exception import RemoteError, SerializationError

__all__ = ["digest", "dump", "dump_exception", "install", "load", "load_exception"]


def install() -> None:
    """Let tracebacks be pickled in this process (tblib)."""
    pickling_support.install()


def dump(value: Any, what: str) -> bytes:
    """Pickle `value`: by value what lives in `__main__` or a notebook, else by reference.

    Raises:
        SerializationError: `what` cannot be pickled; the message says so and why.
    """
    try:
        return bytes(cloudpickle.dumps(value, protocol=5))
    except Exception as error:
        raise SerializationError(
            f"{what} cannot be sent to another process: {type(error).__name__}: {error}"
        ) from error


def load(data: bytes, what: str) -> Any:
    """Unpickle what `dump` made.

    Raises:
        SerializationError: it cannot be rebuilt here; the message names `what` and says why.
    """
    try:
        return pickle.loads(data)
    except Exception as error:
        raise SerializationError(
            f"{what} cannot be rebuilt in this process: {type(error).__name__}: {error}"
        ) from error


def digest(data: bytes) -> bytes:
    """Return the name under which a worker keeps `data`: 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


def dump_exception(error: BaseException) -> bytes:
    """Pickle an exception with its traceback, causes and notes, or, where it does not survive the
    way there and back, a `RemoteError` with its text.

    An exception that is no `Exception` (`SystemExit`) becomes a `RemoteError` too: raised in
    the notebook it would end the kernel.
    """
    if isinstance(error, Exception):
        try:
            pickling_support.install(error)
            data = bytes(cloudpickle.dumps(error, protocol=5))
            if type(pickle.loads(data)) is type(error):
                return data
        except BaseException:  # a user's __reduce__ or __init__ may raise anything
            pass
    try:
        message = f"{type(error).__name__}: {error}"
    except BaseException:
        message = type(error).__name__
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:
        text = ""
    return pickle.dumps(RemoteError(message, type(error).__name__, text), protocol=5)


def load_exception(data: bytes) -> Exception:
    """Rebuild what `dump_exception` made; never raises."""
    try:
        error = pickle.loads(data)
        if isinstance(error, Exception):
            return error
        return RemoteError(f"the worker sent {type(error).__name__} in place of an exception")
    except Exception as error:
        return RemoteError(f"the exception cannot be rebuilt here: {type(error).__name__}: {error}")
