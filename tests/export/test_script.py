"""The exported script prints what the notebook printed."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest

from nbscale.export import ExportError, export_file, script_of


def _notebook(*cells):
    made = [
        nbformat.v4.new_markdown_cell(each[3:])
        if each.startswith("md:")
        else nbformat.v4.new_code_cell(each)
        for each in cells
    ]
    return nbformat.v4.new_notebook(cells=made)


def _printed(script, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, script + done.stderr
    return done.stdout


MAIN = (
    "md:# Squares\nof a few numbers",
    "%load_ext nbscale\n%matplotlib inline\nimport math\nOFFSET = 3",
    "def helper(x):\n    return math.floor(x) + OFFSET + late",
    "%%remote_function --concurrency-limit 2 --retries 1\ndef f(x):\n"
    "    # a comment that stays\n    if x == 2:\n        raise ValueError(x)\n    return helper(x)",
    "late = int('4')",
    "list(f.map(range(4), return_exceptions=True))",
)


def test_a_notebook_with_remote_functions_prints_the_same(tmp_path):
    script = script_of(_notebook(*MAIN))

    printed = _printed(script, tmp_path)

    assert printed == "[7, 8, UserCodeException(ValueError(2)), 10]\n"
    assert "@app.function(concurrency_limit=2, retries=1)\ndef f(x):" in script
    assert "# a comment that stays" in script and "# # Squares" in script


@pytest.mark.parametrize(
    ("cells", "printed"),
    [
        (("!echo $((1+1))",), "2\n"),
        (("name = 'you'\n!echo {name}",), "you\n"),
        (("o = !echo a; echo b\nprint(o)",), "['a', 'b']\n"),
        (("%%bash\necho one\necho two",), "one\ntwo\n"),
        (("%%time\nx = 5", "x"), "5\n"),
        (("%time y = 6\ny",), "6\n"),
        (("display('a')\n3;", "None", "'text'"), "'a'\n'text'\n"),
        (("import asyncio\nawait asyncio.sleep(0, 'slept')",), "'slept'\n"),
        (("if True:\n    %matplotlib inline\n    print('in')",), "in\n"),
        (("len?\nprint(1)",), "1\n"),
        (("%%writefile m.py\nV = 9", "import m\nm.V"), "9\n"),
        (("s = '''\n%ls\n!x\n'''\nprint(s)",), "\n%ls\n!x\n\n"),
        (("x = 1", "def g():\n    return x", "x = 2", "g()"), "2\n"),
        (("x: int = 5\ndef g():\n    return x\ng()",), "5\n"),
        (("%env NBSCALE_T=7\nimport os\nos.environ['NBSCALE_T']",), "'7'\n"),
        (("def g():\n    return 1", "def g():\n    return 2", "g()"), "2\n"),
        (("import time", "time = 5\ntime"), "5\n"),
        (("class A:\n    n = 1\n    def m(self) -> 'A':\n        return self.n\nA().m()",), "1\n"),
    ],
)
def test_everyday_features(cells, printed, tmp_path):
    assert _printed(script_of(_notebook(*cells)), tmp_path) == printed


def test_importing_the_script_does_nothing(tmp_path):
    (tmp_path / "mod.py").write_text(script_of(_notebook("print('effect')")))

    done = subprocess.run(
        [sys.executable, "-c", "import mod"], cwd=tmp_path, capture_output=True, check=True
    )

    assert done.stdout == b""


def test_an_unknown_magic_is_refused_with_its_cell(tmp_path):
    with pytest.raises(ExportError, match="cell 2: unsupported magic %prun"):
        script_of(_notebook("x = 1", "%prun x"))


def test_only_an_earlier_export_is_replaced(tmp_path):
    source, target = tmp_path / "n.ipynb", tmp_path / "n.py"
    nbformat.write(_notebook("1 + 1"), source)

    export_file(source, target)
    export_file(source, target)
    target.write_text("mine")

    with pytest.raises(ExportError, match="--force"):
        export_file(source, target)
    assert target.read_text() == "mine"


def test_the_exporter_gives_the_same_script():
    from nbscale.export.exporter import ScriptExporter

    notebook = _notebook(*MAIN)

    assert ScriptExporter().from_notebook_node(notebook)[0] == script_of(notebook)
