"""The magics: register a cell's functions, list functions, list runs."""

# IPython's magic decorators carry no types.
# mypy: disable-error-code="no-untyped-call, untyped-decorator"

from __future__ import annotations

import ast
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display

from nbscale.app import App, current_app
from nbscale.exception import InvalidError
from nbscale.function import Function
from nbscale.notebook import bridge, errors, html
from nbscale.options import FunctionOptions

_OPTIONS = (
    "--concurrency-limit",
    "--timeout",
    "--retries",
    "--gpu",
    "--backend",
    "--max-concurrent-inputs",
)


@magics_class
class NbscaleMagics(Magics):
    """The magics of `%load_ext nbscale`."""

    @magic_arguments()
    @argument("names", nargs="*", help="register only these functions of the cell")
    @argument("--concurrency-limit", type=int, help="inputs that run at once")
    @argument("--timeout", type=float, help="seconds for one attempt at one input")
    @argument("--retries", type=int, help="attempts after a failed one")
    @argument("--gpu", help="GPUs of a worker, as any, 1 or H100:2")
    @argument("--backend", help="where calls run: local")
    @argument("--max-concurrent-inputs", type=int, help="inputs at once in one worker")
    @cell_magic
    def remote_function(self, line: str, cell: str) -> None:
        """Run the cell, then register the functions that its top level defines."""
        given = dict(vars(parse_argstring(self.remote_function, line)))
        names = given.pop("names")
        options = {key: value for key, value in given.items() if value is not None}
        try:
            FunctionOptions.parse("the cell's functions", options)
        except InvalidError as error:
            raise UsageError(" ".join(str(error).split())) from None
        ip: Any = self.shell
        source = ip.transform_cell(cell)
        filename = ip.compile.cache(source, ip.execution_count, raw_code=cell)
        tree = ip.compile.ast_parse(source, filename)
        defined = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for name in names:
            if name not in defined:
                raise UsageError(f"%%remote_function: the cell defines no function {name}")
        self._execute(tree, filename)
        for name in dict.fromkeys(names or defined):
            value = ip.user_ns.get(name)
            if callable(value) and not isinstance(value, Function):
                try:
                    ip.user_ns[name] = current_app().function(**options)(value)
                except InvalidError as error:
                    raise UsageError(" ".join(str(error).split())) from None
        bridge.notify_functions()

    def _execute(self, tree: ast.Module, filename: str) -> None:
        # Not run_cell: it would show the error itself and let the outer cell end as "ok".
        ip: Any = self.shell
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(ip.compile(tree, filename, "exec"), ip.user_global_ns, ip.user_ns)
        if last is not None:
            code = ip.compile(ast.Interactive([last]), filename, "single")
            exec(code, ip.user_global_ns, ip.user_ns)

    @line_magic
    def remote_functions(self, line: str) -> None:
        """Show the registered functions."""
        rows = [
            [
                f"{name}{function.signature}",
                function.concurrency_limit,
                ", ".join(f"{k}={v}" for k, v in function.options.changed().items()),
            ]
            for app in App.all()
            for name, function in app.functions.items()
        ]
        _show_table(["function", "limit", "options"], rows)

    @line_magic
    def remote_runs(self, line: str) -> None:
        """Show the runs of this kernel."""
        found = [run.summary() for app in App.all() for run in app.runs]
        found.sort(key=lambda run: run.get("started_at") or 0)
        rows = [
            [
                run["function"],
                run["status"],
                run["done"],
                run["total"],
                run["failed"],
                f"{run['elapsed_s'] or 0.0:.1f} s",
            ]
            for run in found[-50:]
        ]
        _show_table(["function", "status", "done", "total", "failed", "time"], rows)


def _show_table(header: list[str], rows: list[list[Any]]) -> None:
    data = {
        "text/html": html.table_html(header, rows),
        "text/plain": html.table_text(header, rows),
    }
    display(data, raw=True)


def _complete(ip: Any, event: Any) -> list[str]:
    names = [name for app in App.all() for name in app.functions]
    return [*_OPTIONS, *names]


def load(ip: Any) -> None:
    """Set up magics, messages and errors in `ip`; loading again changes nothing."""
    ip.register_magics(NbscaleMagics(ip))
    ip.set_hook("complete_command", _complete, str_key="%%remote_function")
    errors.install(ip)
    kernel = bridge.running_kernel()
    if kernel is not None:
        bridge.install(kernel)


def unload(ip: Any) -> None:
    """Take away what `load` has set up."""
    for kind, name in (
        ("cell", "remote_function"),
        ("line", "remote_functions"),
        ("line", "remote_runs"),
    ):
        ip.magics_manager.magics[kind].pop(name, None)
    errors.uninstall(ip)
    kernel = bridge.running_kernel()
    if kernel is not None:
        bridge.uninstall(kernel)
