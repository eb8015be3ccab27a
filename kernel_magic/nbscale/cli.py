"""The `nbscale` command: run a script, export a notebook, look at the installation."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Annotated, Any

import typer

from .app import App
from .exception import InvalidError
from .export import ExportError, export_file
from .options import usable_cores

__all__ = ["main"]

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Scale notebook functions out over every core.",
)


def main() -> None:
    """Start the command line."""
    command()


@command.command()
def export(
    notebook: Annotated[Path, typer.Argument(help="the notebook, NB.ipynb")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="the script; - is stdout; default NB.py")
    ] = None,
    name: Annotated[str, typer.Option(help="name of the entry point")] = "main",
    force: Annotated[bool, typer.Option(help="replace a file that no export wrote")] = False,
) -> None:
    """Write a notebook as a script that does the same from a shell."""
    if not name.isidentifier():
        _fail(f"--name {name}: not a Python name")
    target = None if output == "-" else Path(output or notebook.with_suffix(".py"))
    try:
        script = export_file(notebook, target, name=name, force=force)
    except (ExportError, OSError) as error:
        _fail(str(error))
    if target is None:
        typer.echo(script, nl=False)
    else:
        typer.echo(f"wrote {target}", err=True)


@command.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="SCRIPT.py or SCRIPT.py::NAME")],
) -> None:
    """Run a script's local entry point; what follows goes to its parameters."""
    path, _, name = target.partition("::")
    if path in ("--help", "-h"):
        typer.echo(context.get_help())
        raise typer.Exit
    if not Path(path).is_file():
        _fail(f"{path}: no such file")
    try:
        module = _load(Path(path))
        _entrypoint(module, path, name).main(context.args)
    except InvalidError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        _print_error(error)
        raise SystemExit(1) from None


@command.command()
def doctor() -> None:
    """Print what matters when something does not work."""
    typer.echo(f"python {sys.version.split()[0]}, {usable_cores()} usable cores")
    packages = ["nbscale", "loky", "cloudpickle", "ipykernel", "ipywidgets", "anywidget"]
    for package in [*packages, "jupyterlab"]:
        try:
            typer.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            typer.echo(f"{package}: not installed")
    if hasattr(os, "statvfs") and Path("/dev/shm").is_dir():
        shared = os.statvfs("/dev/shm")
        typer.echo(f"/dev/shm: {shared.f_bavail * shared.f_frsize // 2**20} MB free")
    extension = Path(sys.prefix) / "share/jupyter/labextensions/nbscale-lab/package.json"
    typer.echo(f"JupyterLab panel: {'installed' if extension.is_file() else 'not installed'}")


def _fail(message: str) -> Any:
    typer.echo(f"nbscale: {' '.join(message.split())}", err=True)
    raise typer.Exit(2)


def _load(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _entrypoint(module: ModuleType, path: str, name: str) -> Any:
    from .entrypoint import LocalEntrypoint
    from .function import Function

    apps = [app for app in vars(module).values() if isinstance(app, App)]
    entrypoints = {key: each for app in apps for key, each in app.entrypoints.items()}
    functions = {key: each for app in apps for key, each in app.functions.items()}
    if name:
        if name in entrypoints:
            return entrypoints[name]
        if name in functions:
            function: Function[..., Any] = functions[name]
            return LocalEntrypoint(function.app, _printed(function))
        known = ", ".join([*entrypoints, *functions]) or "none"
        raise InvalidError(f"{path} has no {name}. It has: {known}")
    found = entrypoints.get("main")
    if found is None and len(entrypoints) == 1:
        found = next(iter(entrypoints.values()))
    if found is None:
        known = ", ".join([*entrypoints, *functions]) or "nothing to run"
        raise InvalidError(f"{path}: say what to run, as {path}::NAME. It has: {known}")
    return found


def _printed(function: Any) -> Any:
    import functools

    @functools.wraps(function.raw)
    def call(*args: Any, **kwargs: Any) -> None:
        value = function.remote(*args, **kwargs)
        if value is not None:
            print(value)

    return call


def _print_error(error: Exception) -> None:
    """Print the traceback without the frames of this package and of the import system."""
    here = str(Path(__file__).parent)
    hidden = (here, "<frozen importlib")

    def trim(trace: TracebackType | None) -> TracebackType | None:
        kept: list[TracebackType] = []
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if not name.startswith(hidden) and f"{os.sep}typer{os.sep}" not in name:
                kept.append(trace)
            trace = trace.tb_next
        chain: TracebackType | None = None
        for each in reversed(kept):
            chain = TracebackType(chain, each.tb_frame, each.tb_lasti, each.tb_lineno)
        return chain

    traceback.print_exception(error.with_traceback(trim(error.__traceback__)))
    if isinstance(error, AttributeError) and error.name in ("map", "starmap", "for_each"):
        print(f"Did you mean f.{error.name}(inputs)? Do not call f itself.", file=sys.stderr)
