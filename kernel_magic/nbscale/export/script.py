"""From cells to one script: a module section, one entry point, and the guard.

Imports, remote functions and the definitions and constants that need no running come first, at
module level; every other statement goes, in the order of the notebook, into the entry point.
Source is cut out, never written anew, so that comments and literals stay as they are.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cells import Cell, ExportError, read_cells

__all__ = ["ExportError", "export_file", "script_of"]

MARK = "# Exported from a notebook by nbscale."
# Packages whose name in the index is not that of their module.
_PACKAGES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
_HELPERS = {
    "_nbscale_show": '''def _nbscale_show(value):
    """Print the last value of a cell, as the notebook shows it."""
    if value is not None:
        print(repr(value))
''',
    "display": '''def display(*values):
    """Print what the notebook displays."""
    for value in values:
        print(repr(value))
''',
    "_nbscale_shell": '''def _nbscale_shell(command, program="bash"):
    """Run a shell command with its output in its place among what the script prints."""
    import subprocess

    sys.stdout.flush()
    subprocess.run([program, "-c", command], check=False)
''',
    "_nbscale_lines": '''def _nbscale_lines(command):
    """Return the lines that a shell command prints."""
    import subprocess

    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.splitlines()
''',
}


@dataclass
class _Unit:
    """One or more statements that share their lines, with the comments above them."""

    cell: Cell
    text: str
    nodes: list[ast.stmt]
    offset: int
    shows: bool = False
    hoisted: bool = False
    remote: str | None = None
    bound: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)

    @property
    def node(self) -> ast.stmt:
        """The first statement."""
        return self.nodes[0]


def script_of(notebook: Any, name: str = "main") -> str:
    """Return the script of an nbformat notebook; `name` is that of its entry point.

    Raises:
        ExportError: a cell holds what no script can do.
    """
    cells = read_cells(notebook)
    units = [unit for cell in cells if cell.is_code for unit in _units(cell)]
    bindings = Counter(bound for unit in units for bound in unit.bound)
    own_app = _own_app(units)
    app = own_app or ("app" if not bindings["app"] else "_nbscale_app")
    _hoist(units, bindings, app)
    module = [unit for unit in units if unit.hoisted]
    body = [unit for unit in units if not unit.hoisted]
    return _layout(cells, module, body, app, own_app is not None, name)


def export_file(
    source: Path, target: Path | None, *, name: str = "main", force: bool = False
) -> str:
    """Export the notebook `source` to `target` (None: only return it) and return the script.

    Raises:
        ExportError: no notebook, nothing that can be exported, or a target that an export did
            not write (unless `force`). Nothing is written then.
    """
    import nbformat

    try:
        read: Any = nbformat.read  # untyped
        notebook = read(source, as_version=4)
    except FileNotFoundError:
        raise ExportError(f"{source}: no such file") from None
    except Exception as error:
        raise ExportError(f"{source}: not a notebook: {error}") from None
    script = script_of(notebook, name)
    if target is not None:
        if target.exists() and not force and MARK not in target.read_text(errors="replace"):
            raise ExportError(f"{target} exists and is no earlier export; --force replaces it")
        target.write_text(script, encoding="utf-8")
    return script


def _units(cell: Cell) -> list[_Unit]:
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:
        try:
            # Top-level `await` parses only inside a coroutine function.
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
            tree = compile(cell.source, "cell", "exec", flags, dont_inherit=True)
        except SyntaxError as error:
            raise ExportError(f"cell {cell.number}: {error.msg} (line {error.lineno})") from None
    lines = cell.source.split("\n")
    units: list[_Unit] = []
    at = 0
    for node in tree.body:
        end = node.end_lineno or node.lineno
        if units and node.lineno <= at:
            units[-1].nodes.append(node)
            if end > at:
                units[-1].text += "\n" + "\n".join(lines[at:end])
                at = end
            continue
        units.append(_Unit(cell, "\n".join(lines[at:end]), [node], at))
        at = end
    if units and len(lines) > at:
        units[-1].text += "\n" + "\n".join(lines[at:])
    for unit in units:
        for node in unit.nodes:
            unit.bound |= _bound(node)
            unit.read |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if (
            isinstance(unit.node, ast.FunctionDef | ast.AsyncFunctionDef)
            and cell.remote is not None
        ):
            if not cell.remote_names or unit.node.name in cell.remote_names:
                unit.remote = cell.remote
    last = units[-1] if units else None
    if last is not None and isinstance(last.nodes[-1], ast.Expr):
        code = lines[(last.nodes[-1].end_lineno or 1) - 1][last.nodes[-1].end_col_offset or 0 :]
        last.shows = not code.split("#")[0].strip().endswith(";")
    return units


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement binds in the scope that it stands in."""
    names: set[str] = set()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        names.add(node.id)
    if isinstance(node, ast.ExceptHandler) and node.name:
        names.add(node.name)
    if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
        names.add(node.name)
    for child in ast.iter_child_nodes(node):
        names |= _bound(child)
    return names


def _is_app(node: ast.expr | None) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in (
        "App",
        "Stub",
    )


def _own_app(units: list[_Unit]) -> str | None:
    for unit in units:
        if isinstance(unit.node, ast.Assign) and _is_app(unit.node.value):
            target = unit.node.targets[0]
            if isinstance(target, ast.Name):
                return target.id
    return None


def _is_constant(node: ast.expr) -> bool:
    """Whether evaluating it needs nothing and does nothing."""
    try:
        ast.literal_eval(node)
        return True
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def _changes_imports(unit: _Unit) -> bool:
    text = unit.text
    marks = ("sys.path", "os.environ", ".environ[", "chdir", "_nbscale_shell", "matplotlib.use")
    return any(mark in text for mark in marks) or "open(" in text


def _hoist(units: list[_Unit], bindings: Counter[str], app: str) -> None:
    """Mark what goes to module level; names there must be ready when a definition needs them."""
    ready = set(dir(builtins)) | {app}
    importing = True
    wanted = {name for unit in units if _is_remote(unit) for name in unit.read}
    while True:
        more = {
            name
            for unit in units
            if unit.bound & wanted and isinstance(unit.node, _DEFINITIONS)
            for name in unit.read
        }
        if more <= wanted:
            break
        wanted |= more
    for unit in units:
        node = unit.node
        once = all(bindings[name] == 1 for name in unit.bound)
        if len(unit.nodes) > 1 and not all(isinstance(n, _IMPORTS) for n in unit.nodes):
            pass
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            unit.hoisted = True
        elif isinstance(node, _IMPORTS):
            unit.hoisted = importing
        elif isinstance(node, _DEFINITIONS):
            unit.hoisted = once and _needed_now(node) <= ready
        elif isinstance(node, ast.Assign | ast.AnnAssign) and once:
            value = node.value
            unit.hoisted = _is_app(value) or (
                value is not None and _is_constant(value) and bool(unit.bound & wanted)
            )
        if unit.hoisted:
            ready |= unit.bound
        elif _changes_imports(unit):
            importing = False


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


def _is_remote(unit: _Unit) -> bool:
    return unit.remote is not None or bool(getattr(unit.node, "decorator_list", []))


def _needed_now(node: ast.stmt) -> set[str]:
    """The names that a definition needs at the moment it is executed."""
    parts: list[ast.AST] = list(getattr(node, "decorator_list", []))
    if isinstance(node, ast.ClassDef):
        parts += [*node.bases, *node.keywords]
        inner = _bound_in(node)
        for each in node.body:
            if isinstance(each, _DEFINITIONS):
                return _names(parts) | (_needed_now(each) - inner)
            parts.append(each)
        return _names(parts) - inner
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = node.args
        parts += [*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)]
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        parts += [a.annotation for a in every if a.annotation is not None]
        if node.returns is not None:
            parts.append(node.returns)
    return _names(parts)


def _bound_in(node: ast.ClassDef) -> set[str]:
    return {name for each in node.body for name in _bound(each)}


def _names(parts: list[ast.AST]) -> set[str]:
    return {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}


def _awaits(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return False
    if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
        return True
    return any(_awaits(child) for child in ast.iter_child_nodes(node))


def _text(unit: _Unit, app: str, unannotated: set[str]) -> str:
    """The source of a unit, with what a script needs put in."""
    lines = unit.text.split("\n")
    first = unit.node.lineno - unit.offset - 1
    if unit.remote is not None:
        decorators = getattr(unit.node, "decorator_list", [])
        top = min([unit.node.lineno, *(each.lineno for each in decorators)]) - unit.offset - 1
        lines.insert(top, f"@{app}.function({unit.remote})")
    node = unit.nodes[-1]
    if isinstance(unit.node, ast.AnnAssign) and unit.bound & unannotated and unit.node.value:
        target = unit.node.target
        line = lines[first].encode()
        start, end = target.end_col_offset or 0, unit.node.annotation.end_col_offset or 0
        lines[first] = (line[:start] + line[end:]).decode()
    if unit.shows and isinstance(node, ast.Expr):
        begin, end = node.lineno - unit.offset - 1, (node.end_lineno or 0) - unit.offset - 1
        last = lines[end].encode()
        cut = node.end_col_offset or 0
        lines[end] = (last[:cut] + b")" + last[cut:]).decode()
        line = lines[begin].encode()
        lines[begin] = (
            line[: node.col_offset] + b"_nbscale_show(" + line[node.col_offset :]
        ).decode()
    return "\n".join(lines)


def _indent(text: str) -> str:
    """Indent by four, but for the insides of strings that span lines."""
    inside: set[int] = set()
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    for node in ast.walk(compile(text, "cell", "exec", flags, dont_inherit=True)):
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        ):
            inside |= set(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    lines = text.split("\n")
    return "\n".join(
        line if number in inside or not line.strip() else "    " + line
        for number, line in enumerate(lines, start=1)
    )


def _comment(source: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in source.split("\n"))


def _requirements(cells: list[Cell], units: list[_Unit]) -> list[str]:
    found = {package for cell in cells for package in cell.installs}
    for unit in units:
        for node in unit.nodes:
            for each in ast.walk(node):
                names = []
                if isinstance(each, ast.Import):
                    names = [alias.name for alias in each.names]
                elif isinstance(each, ast.ImportFrom) and each.module and not each.level:
                    names = [each.module]
                for name in names:
                    top = name.split(".")[0]
                    if top not in sys.stdlib_module_names:
                        found.add(_PACKAGES.get(top, top))
    return sorted(found | {"nbscale"})


def _layout(
    cells: list[Cell], module: list[_Unit], body: list[_Unit], app: str, has_app: bool, name: str
) -> str:
    in_module = {bound for unit in module for bound in unit.bound} | {app}
    in_body = {bound for unit in body for bound in unit.bound}
    inner = [u for u in body if isinstance(u.node, _DEFINITIONS)]
    seen = {
        n for unit in [*module, *inner] if isinstance(unit.node, _DEFINITIONS) for n in unit.read
    }
    shared = sorted(in_body & (seen | in_module))
    texts = {id(unit): _text(unit, app, set(shared)) for unit in [*module, *body]}
    every = "\n".join(texts.values())
    head = [MARK, "#", "# Run it: python SCRIPT.py   or: nbscale run SCRIPT.py", "#"]
    head += ["# /// script", '# requires-python = ">=3.11"', "# dependencies = ["]
    head += [f'#     "{each}",' for each in _requirements(cells, [*module, *body])]
    head += ["# ]", "# ///", ""]
    imports = [u for u in module if isinstance(u.node, _IMPORTS)]
    future = [u for u in imports if getattr(u.node, "module", "") == "__future__"]
    out = head + [texts[id(u)].strip("\n") for u in future]
    out += (
        ["import sys", "", "import nbscale", ""]
        if "_nbscale_shell" in every
        else ["import nbscale", ""]
    )
    out += [texts[id(unit)].strip("\n") for unit in imports if unit not in future]
    if not has_app:
        out += ["", f"{app} = nbscale.App()"]
    for helper, text in _HELPERS.items():
        if f"{helper}(" in every and helper not in in_module | in_body:
            out += ["", "", text.rstrip("\n")]
    for unit in module:
        if unit not in imports:
            gap = ["", ""] if isinstance(unit.node, _DEFINITIONS) else [""]
            out += [*gap, texts[id(unit)].strip("\n")]
    is_async = any(_awaits(node) for unit in body for node in unit.nodes)
    out += ["", "", f"@{app}.local_entrypoint()"]
    out += [f"{'async ' if is_async else ''}def {name}():"]
    out += ['    """Run the notebook\'s cells, in their order."""']
    if shared:
        out.append(f"    global {', '.join(shared)}")
    for cell in cells:
        if not cell.is_code:
            out += ["", _indent_comment(_comment(cell.source))]
            continue
        mine = [unit for unit in body if unit.cell is cell]
        if mine:
            out.append("")
            out += [_indent(texts[id(unit)].rstrip()).rstrip() for unit in mine]
    out += ["", "", 'if __name__ == "__main__":', f"    {app}.main()", ""]
    return "\n".join(out)


def _indent_comment(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))
