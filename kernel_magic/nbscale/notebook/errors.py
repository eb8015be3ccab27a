"""Shows an error in a cell without this package's own frames, with a hint where one helps."""

from __future__ import annotations

import ast
import linecache
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_MAGICS = str(Path(__file__).with_name("magics.py").resolve())
_CALLS = ("map", "starmap", "for_each", "remote", "spawn", "local")


def _frames(tb: TracebackType | None) -> list[TracebackType]:
    found = []
    while tb is not None:
        found.append(tb)
        tb = tb.tb_next
    return found


def trim(tb: TracebackType | None) -> TracebackType | None:
    """Return `tb` without our frames, and without the magic that ran the user's cell."""
    frames = _frames(tb)
    files = [frame.tb_frame.f_code.co_filename for frame in frames]
    if _MAGICS in files[:-1]:
        # The first frame is IPython's, which its formatter drops by position.
        cut = files.index(_MAGICS)
        frames, files = frames[:1] + frames[cut + 1 :], files[:1] + files[cut + 1 :]
    kept, inside = [], False
    for frame, name in zip(frames, files, strict=True):
        ours = name.startswith(_PACKAGE)
        library = "/loky/" in name or "/concurrent/futures/" in name
        inside = ours or (inside and library)
        if not inside:
            kept.append(frame)
    if not kept:
        return tb
    result: TracebackType | None = None
    for frame in reversed(kept):
        result = TracebackType(result, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return result


def hint_for(error: BaseException | None) -> str | None:
    """Return the right call when `error` comes from `f(inputs).map()` of a registered function."""
    if not isinstance(error, AttributeError) or error.name not in _CALLS:
        return None
    frames = _frames(error.__traceback__)
    if not frames:
        return None
    frame, line = frames[-1].tb_frame, frames[-1].tb_lineno
    try:
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename)))
    except SyntaxError:
        return None
    from nbscale.function import Function

    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and node.attr == error.name):
            continue
        inner = node.value
        if not (isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name)):
            continue
        if not node.lineno <= line <= (node.end_lineno or node.lineno):
            continue
        name = inner.func.id
        if isinstance(frame.f_locals.get(name, frame.f_globals.get(name)), Function):
            given = [ast.unparse(arg) for arg in inner.args]
            given += [ast.unparse(keyword) for keyword in inner.keywords]
            right = f"{name}.{node.attr}({', '.join(given)})"
            return f"Hint: {name}(...) is the result of a call. Write {right} instead."
    return None


def install(ip: Any) -> None:
    """Wrap `ip.showtraceback`; doing it again changes nothing."""
    if hasattr(ip.showtraceback, "nbscale_original"):
        return
    original = ip.showtraceback

    def showtraceback(exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        hint = None
        try:
            kind, value, tb = exc_tuple or sys.exc_info()
            if value is not None:
                hint = hint_for(value)
                exc_tuple = (kind, value, trim(tb))
        except Exception:
            pass  # the user's own error must be shown whatever happens here
        original(exc_tuple, *args, **kwargs)
        if hint:
            print(hint, file=sys.stderr)

    showtraceback.nbscale_original = original  # type: ignore[attr-defined]
    ip.showtraceback = showtraceback


def uninstall(ip: Any) -> None:
    """Give `ip` its own way of showing errors back."""
    original = getattr(ip.showtraceback, "nbscale_original", None)
    if original is not None:
        ip.showtraceback = original
