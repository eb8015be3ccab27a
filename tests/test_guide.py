"""Every code block of the guide "Scaling out" runs as printed, as a script and in a notebook."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAD = "import nbscale as modal\n\napp = modal.App()\n\n"
DEFINITIONS = {
    "map": (
        """
@app.function()
def evaluate_model(x):
    ...


@app.local_entrypoint()
def main():
    inputs = list(range(100))
    for result in evaluate_model.map(inputs):  # runs many inputs in parallel
        ...
""",
        "",
    ),
    "exceptions": (
        """
@app.function()
def my_func(a):
    if a == 2:
        raise Exception("ohno")
    return a ** 2

@app.local_entrypoint()
def main():
    print(list(my_func.map(range(3), return_exceptions=True)))
    # [0, 1, UserCodeException(Exception('ohno'))]
""",
        "[0, 1, UserCodeException(Exception('ohno'))]\n",
    ),
    "starmap": (
        """
@app.function()
def my_func(a, b):
    return a + b

@app.local_entrypoint()
def main():
    assert list(my_func.starmap([(1, 2), (3, 4)])) == [3, 7]
""",
        "",
    ),
    "limit": (
        """
app = modal.App()

@app.function(concurrency_limit=5)
def f(x):
    print(x)

@app.local_entrypoint()
def main():
    f.remote(7)
""",
        "7\n",
    ),
    "builtin map": (
        """
@app.function()
def evaluate_model(x):
    return x

@app.local_entrypoint()
def main():
    inputs = [1, 2]
    results = map(evaluate_model, inputs)
    print(list(results))
""",
        "[1, 2]\n",
    ),
}


@pytest.mark.parametrize("block", DEFINITIONS)
def test_the_guides_block_runs_as_a_script(block, tmp_path):
    code, printed = DEFINITIONS[block]
    script = tmp_path / "script.py"
    script.write_text(HEAD + code + '\nif __name__ == "__main__":\n    app.main()\n')

    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


@pytest.mark.kernel
def test_the_guides_blocks_run_in_a_notebook():
    import nbformat
    from nbclient import NotebookClient

    cells = ["%load_ext nbscale\n" + HEAD]
    for code, _ in DEFINITIONS.values():
        cells.append(code + "\nmain()")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])

    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    for cell, (_, printed) in zip(notebook.cells[1:], DEFINITIONS.values(), strict=True):
        streams = [
            out["text"]
            for out in cell.outputs
            if out.output_type == "stream" and out.name == "stdout"
        ]
        assert "".join(streams) == printed
