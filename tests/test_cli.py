"""The `nbscale` command as a shell sees it."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest

SCRIPT = """
import nbscale
app = nbscale.App()

@app.function()
def double(x: int):
    return 2 * x

@app.function()
def broken(x: int):
    raise LookupError("from the worker")

@app.local_entrypoint()
def main(n: int = 1):
    print(list(double.map(range(n))))

@app.local_entrypoint()
def gotcha():
    double([1]).map()
"""


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "s.py").write_text(SCRIPT)

    def run(*words):
        code = "from nbscale.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_run_starts_the_entry_point_with_its_options(shell):
    done = shell("run", "s.py", "--n", "3")

    assert (done.returncode, done.stdout) == (0, "[0, 2, 4]\n"), done.stderr


def test_run_calls_a_named_function_in_a_worker(shell):
    assert shell("run", "s.py::double", "4").stdout == "8\n"


def test_a_failure_exits_with_1_and_shows_the_users_frames(shell):
    done = shell("run", "s.py::broken", "4")

    assert done.returncode == 1 and "LookupError: from the worker" in done.stderr
    assert 'raise LookupError("from the worker")' in done.stderr
    assert "function.py" not in done.stderr and "run.py" not in done.stderr


def test_the_guides_first_gotcha_shows_the_right_call(shell):
    done = shell("run", "s.py::gotcha")

    assert done.returncode == 1 and ".map(inputs)" in done.stderr


def test_wrong_names_exit_with_2_and_one_line(shell):
    for words in (("run", "s.py::nothing"), ("run", "no.py"), ("export", "no.ipynb")):
        done = shell(*words)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


def test_export_writes_a_script_beside_the_notebook(shell, tmp_path):
    cells = [nbformat.v4.new_code_cell("print('hello')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "n.ipynb")

    assert shell("export", "n.ipynb").returncode == 0
    assert shell("run", "n.py").stdout == "hello\n"
    assert shell("export", "n.ipynb", "-o", "-").stdout == (tmp_path / "n.py").read_text()


def test_doctor_names_versions(shell):
    assert "loky" in shell("doctor").stdout
