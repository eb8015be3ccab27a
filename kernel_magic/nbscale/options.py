"""A function's options: limits, timeouts and retries, validated once and then immutable."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .exception import InvalidError

__all__ = ["FunctionOptions", "Retries", "usable_cores"]


def usable_cores() -> int:
    """Return how many CPU cores this process may use, at least 1.

    Takes the affinity mask and the cgroup's CPU quota into account (by loky's `cpu_count`).
    """
    from loky import cpu_count

    return max(1, int(cpu_count()))


def _number(name: str, value: Any, what: str, minimum: float, *, whole: bool, cure: str) -> None:
    right_type = isinstance(value, int) if whole else isinstance(value, (int, float))
    if isinstance(value, bool) or not right_type:
        kind = "a whole number" if whole else "a number of seconds"
        raise InvalidError(f"{name}={value!r} for {what}: must be {kind}. {cure}")
    if not value >= minimum or value == float("inf"):
        raise InvalidError(f"{name}={value!r} for {what}: must be {minimum:g} or more. {cure}")


@dataclass(frozen=True)
class Retries:
    """How often, and after which delays, a failed input is tried again.

    `Retries(3)` waits 1, 2, 4 s; `Retries(3, backoff_coefficient=1.0)` waits 1, 1, 1 s;
    `Retries(3, initial_delay=0)` does not wait. The plain int n as `retries=n` means
    `Retries(n, backoff_coefficient=1.0)`. Delays are seconds.

    Raises:
        InvalidError: a value is negative or of a wrong type.
    """

    max_retries: int
    backoff_coefficient: float = field(default=2.0, kw_only=True)
    initial_delay: float = field(default=1.0, kw_only=True)
    max_delay: float = field(default=60.0, kw_only=True)

    def __post_init__(self) -> None:
        what = "Retries"
        _number("max_retries", self.max_retries, what, 0, whole=True, cure="Use 0 for none.")
        cure = "Use 1.0 for equal delays."
        _number("backoff_coefficient", self.backoff_coefficient, what, 1, whole=False, cure=cure)
        _number("initial_delay", self.initial_delay, what, 0, whole=False, cure="0 is no delay.")
        _number("max_delay", self.max_delay, what, 0, whole=False, cure="0 is no delay.")

    def delay_s(self, failed_attempts: int) -> float:
        """Return the seconds to wait after the attempt number `failed_attempts` (1 or more)."""
        try:
            delay = self.initial_delay * self.backoff_coefficient ** (failed_attempts - 1)
        except OverflowError:
            delay = self.max_delay
        return float(min(delay, self.max_delay))


@dataclass(frozen=True)
class FunctionOptions:
    """The checked options of one function; see `App.function` for what each means."""

    name: str | None = None
    concurrency_limit: int | None = None
    timeout: float | None = None
    retries: Retries = field(default_factory=lambda: Retries(0))
    env: tuple[tuple[str, str], ...] = ()
    max_inputs: int | None = None
    scaledown_window: float = 60.0

    @property
    def limit(self) -> int:
        """The concurrency limit: what was given, or the usable cores."""
        return usable_cores() if self.concurrency_limit is None else self.concurrency_limit

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as plain JSON values."""
        found: dict[str, Any] = {}
        default = FunctionOptions()
        for each in fields(self):
            value = getattr(self, each.name)
            if value == getattr(default, each.name) or each.name == "name":
                continue
            if isinstance(value, Retries):
                value = value.max_retries
            found[each.name] = dict(value) if each.name == "env" else value
        return found

    @classmethod
    def parse(cls, function_name: str, given: Mapping[str, Any]) -> FunctionOptions:
        """Check the keywords of `App.function` for the function named and return them.

        Raises:
            InvalidError: an unknown keyword (the nearest right one is named) or a wrong value.
        """
        what = f"`{function_name}`"
        known = [each.name for each in fields(cls)]
        accepted = [*known, "max_containers", *_NOT_YET]
        values: dict[str, Any] = {}
        for key, value in given.items():
            if key not in accepted:
                near = difflib.get_close_matches(key, accepted, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]}?" if near else f" Known: {', '.join(accepted)}."
                raise InvalidError(f"unknown option {key}= for {what}.{hint}")
            if key == "max_containers":
                if given.get("concurrency_limit") is not None:
                    raise InvalidError(
                        f"both concurrency_limit= and max_containers= for {what}: they are two "
                        "names of one option. Give one."
                    )
                key = "concurrency_limit"
            if key in _NOT_YET:
                if value not in _NOT_YET[key]:
                    raise InvalidError(
                        f"{key}={value!r} for {what}: not supported by this version of nbscale. "
                        f"Leave {key}= out."
                    )
                continue
            if key == "concurrency_limit" and value is None and key in values:
                continue
            values[key] = value
        _check(values, what)
        return cls(**values)


# Names of the API that this version accepts only at the values that change nothing.
_NOT_YET: dict[str, tuple[Any, ...]] = {
    "gpu": (None,),
    "backend": (None, "local"),
    "min_containers": (None, 0),
    "max_concurrent_inputs": (None, 1),
}


def _check(values: dict[str, Any], what: str) -> None:
    """Check `values` in place, bringing each option to the type that `FunctionOptions` holds."""
    name = values.get("name")
    if name is not None and (not isinstance(name, str) or not name):
        raise InvalidError(f"name={name!r} for {what}: must be a non-empty string.")
    for key, minimum in (("concurrency_limit", 1), ("max_inputs", 1)):
        if values.get(key) is not None:
            cure = "Leave it out for the default."
            _number(key, values[key], what, minimum, whole=True, cure=cure)
    if values.get("timeout") is not None:
        cure = "Leave it out for no timeout."
        _number("timeout", values["timeout"], what, 0, whole=False, cure=cure)
        if values["timeout"] == 0:
            raise InvalidError(f"timeout=0 for {what}: must be more than 0 seconds. {cure}")
    if "scaledown_window" in values:
        if values["scaledown_window"] is None:
            del values["scaledown_window"]
        else:
            cure = "It is in seconds."
            _number("scaledown_window", values["scaledown_window"], what, 0, whole=False, cure=cure)
    retries = values.get("retries", 0)
    if retries is None:
        retries = 0
    if not isinstance(retries, Retries):
        cure = "Use 0 to turn retries off."
        _number("retries", retries, what, 0, whole=True, cure=cure)
        retries = Retries(retries, backoff_coefficient=1.0) if retries else Retries(0)
    values["retries"] = retries
    env = values.get("env") or {}
    if not isinstance(env, Mapping) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in env.items()
    ):
        raise InvalidError(f"env={env!r} for {what}: must be a dict of strings to strings.")
    for key, value in env.items():
        if not key or "=" in key or "\0" in key + value or os.fsencode(key) == b"":
            raise InvalidError(f"env={{{key!r}: ...}} for {what}: not a valid variable name.")
    values["env"] = tuple(sorted(env.items()))
