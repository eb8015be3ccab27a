"""What a notebook's cells say, as plain Python: magics are translated, dropped or refused."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Cell", "ExportError", "read_cells"]

# They set up the notebook's front end and mean nothing in a script.
_DROPPED = {"load_ext", "reload_ext", "matplotlib", "autoreload", "config", "pinfo", "pinfo2"}
_DROPPED |= {"whos", "who", "remote_functions", "remote_runs", "remote_export"}
_DROPPED_CELLS = {"html", "javascript", "js", "svg", "latex", "markdown"}
_BODY_CELLS = {"time", "capture"}


class ExportError(Exception):
    """The notebook cannot be exported; the message names the cell and the reason."""


@dataclass
class Cell:
    """One cell: Python source, or text for a comment.

    Attributes:
        number: its place in the notebook, from 1.
        source: Python source, or Markdown.
        is_code: which of the two.
        remote: the options of `%%remote_function` as keyword source, or None.
        remote_names: the functions named after it; empty means all.
        installs: packages that `%pip install` names.
    """

    number: int
    source: str
    is_code: bool
    remote: str | None = None
    remote_names: list[str] = field(default_factory=list)
    installs: list[str] = field(default_factory=list)


def read_cells(notebook: Any) -> list[Cell]:
    """Return the cells of an nbformat notebook.

    Raises:
        ExportError: the notebook is not Python, or a cell holds what no script can do.
    """
    language = notebook.metadata.get("language_info", {}).get("name", "python")
    spec = notebook.metadata.get("kernelspec", {}).get("language", "python")
    for name in (language, spec):
        if name.lower() not in ("python", "ipython"):
            raise ExportError(f"the notebook is written in {name}, not in Python")
    cells = []
    for number, raw in enumerate(notebook.cells, start=1):
        tags = set(raw.metadata.get("tags", []))
        if raw.cell_type == "markdown":
            cells.append(Cell(number, raw.source, False))
        elif raw.cell_type == "code" and raw.source.strip() and not tags & {"skip", "remove-cell"}:
            cells.append(_code(number, raw.source))
    return cells


def _code(number: int, source: str) -> Cell:
    cell = Cell(number, source, True)
    first, _, body = source.lstrip().partition("\n")
    if first.startswith("%%"):
        name, _, line = first[2:].partition(" ")
        if name == "remote_function":
            cell.remote, cell.remote_names = _remote_options(number, line)
            cell.source = body
        elif name in _BODY_CELLS:
            cell.source = body
        elif name in _DROPPED_CELLS:
            cell.source = ""
        elif name in ("bash", "sh"):
            cell.source = f"_nbscale_shell({body!r}, program={name!r})"
        elif name == "writefile":
            append = line.startswith("-a ")
            path = line.removeprefix("-a ").strip()
            mode = "a" if append else "w"
            text = body if body.endswith("\n") else body + "\n"
            cell.source = f"with open({path!r}, {mode!r}) as _file:\n    _file.write({text!r})"
        else:
            raise ExportError(f"cell {number}: unsupported magic %%{name}")
    cell.source = _plain_python(cell)
    return cell


def _remote_options(number: int, line: str) -> tuple[str, list[str]]:
    words, names, options = shlex.split(line), [], []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise ExportError(f"cell {number}: %%remote_function {word} without a value")
            value = words.pop(0)
        try:
            value = repr(ast.literal_eval(value))
        except (ValueError, SyntaxError):
            value = repr(value)
        options.append(f"{key.replace('-', '_')}={value}")
    return ", ".join(options), names


def _plain_python(cell: Cell) -> str:
    """Translate line magics and shell lines, found as IPython finds them."""
    try:
        ast.parse(cell.source)
        return cell.source
    except SyntaxError:
        pass
    from IPython.core.inputtransformer2 import TransformerManager

    manager: Any = TransformerManager  # untyped
    source: str = manager().transform_cell(cell.source)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        try:
            ast.parse(f"async def _():\n{_indented(source)}")
            return cell.source if source.strip() == cell.source.strip() else source
        except SyntaxError:
            raise ExportError(f"cell {cell.number}: {error.msg} (line {error.lineno})") from None
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr | ast.Assign):
            continue
        found = _ipython_call(node.value)
        if found is None:
            continue
        method, arguments = found
        target = ""
        if isinstance(node, ast.Assign):
            target = ast.get_source_segment(source, node.targets[0]) or ""
        line = _translated(cell, method, arguments, target)
        start = node.lineno - 1
        indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())]
        lines[start] = indent + line
        for index in range(start + 1, node.end_lineno or node.lineno):
            lines[index] = ""
    text = "\n".join(lines).rstrip("\n")
    if "get_ipython()" in text:
        raise ExportError(f"cell {cell.number}: a magic inside an expression is not supported")
    return text


def _ipython_call(node: ast.expr) -> tuple[str, list[str]] | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return None
    owner = node.func.value
    if not (isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name)):
        return None
    if owner.func.id != "get_ipython":
        return None
    return node.func.attr, [str(a.value) for a in node.args if isinstance(a, ast.Constant)]


def _translated(cell: Cell, method: str, arguments: list[str], target: str) -> str:
    assign = f"{target} = " if target else ""
    if method in ("system", "getoutput"):
        command = arguments[0]
        if re.match(r"(pip|conda|python -m pip)3? install\b", command.strip()):
            cell.installs += _packages(command)
            return "pass"
        text = f"f{command!r}" if re.search(r"(?<!\$)\{[A-Za-z_]", command) else repr(command)
        function = "_nbscale_lines" if method == "getoutput" else "_nbscale_shell"
        return f"{assign}{function}({text})"
    name, line = [*arguments, ""][:2]
    if name in ("pip", "conda", "uv"):
        cell.installs += _packages(line)
        return "pass"
    if name in _DROPPED:
        return "pass"
    if name == "time":
        return assign + line
    if name in ("env", "set_env") and "=" in line:
        key, _, value = line.partition("=")
        return f"__import__('os').environ[{key.strip()!r}] = {value.strip()!r}"
    if name == "cd":
        return f"__import__('os').chdir(__import__('os').path.expanduser({line.strip()!r}))"
    raise ExportError(f"cell {cell.number}: unsupported magic %{name}")


def _packages(command: str) -> list[str]:
    words = command.split("install", 1)[-1].split()
    return [word.strip("'\"") for word in words if not word.startswith("-")]


def _indented(source: str) -> str:
    return "\n".join("    " + line for line in source.split("\n"))
