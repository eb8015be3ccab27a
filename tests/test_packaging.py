"""What an installed nbscale brings: command, panel, server extension, exporter and wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def output_of(*command: str) -> str:
    """All that a command prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_importing_nbscale_loads_neither_ipython_nor_ipywidgets() -> None:
    code = "import nbscale, sys; print([m for m in ('IPython', 'ipywidgets') if m in sys.modules])"

    assert output_of(sys.executable, "-c", code).strip() == "[]"


def test_the_command_says_what_it_can_do() -> None:
    assert "export" in output_of(str(BIN / "nbscale"), "--help")


def test_jupyterlab_finds_the_panel() -> None:
    listed = output_of(sys.executable, "-m", "jupyter", "labextension", "list")
    line = next(line for line in listed.splitlines() if "nbscale-lab" in line)

    assert "enabled" in line and "OK" in line


def test_the_jupyter_server_loads_the_server_extension() -> None:
    listed = output_of(sys.executable, "-m", "jupyter", "server", "extension", "list")

    assert any("nbscale_lab" in line and "OK" in line for line in listed.splitlines())


def test_nbconvert_knows_the_exporter() -> None:
    (entry,) = entry_points(group="nbconvert.exporters", name="nbscale")

    assert entry.load().__name__ == "ScriptExporter"


@pytest.mark.slow
def test_the_wheel_holds_all_that_runs_without_node(tmp_path: Path) -> None:
    output_of(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(ROOT)),
        f"--wheel-dir={tmp_path}",
    )
    (wheel,) = tmp_path.glob("nbscale-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = f"nbscale-{version('nbscale')}.data/data"

    assert {
        "nbscale/__init__.py",
        "nbscale/py.typed",
        "nbscale/notebook/static/widget.js",
        "nbscale_lab/__init__.py",
        f"{data}/share/jupyter/labextensions/nbscale-lab/package.json",
        f"{data}/share/jupyter/labextensions/nbscale-lab/install.json",
        f"{data}/etc/jupyter/jupyter_server_config.d/nbscale_lab.json",
    } <= names
    assert not [name for name in names if "node_modules" in name or name.startswith("tests")]
