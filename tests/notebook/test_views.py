"""What a run looks like without a kernel: text, table, the line at the end."""

import subprocess
import sys

from nbscale.notebook import html


def _state(rows):
    run = {
        "function": "f",
        "status": "running",
        "total": 9,
        "done": 1,
        "failed": 1,
        "cancelled": 0,
        "elapsed_s": 1.0,
    }
    return {"version": 1, "run": run, "rows": rows, "failed": rows[:50], "live": True}


def test_html_is_escaped_and_bounded():
    bad = "<img onerror=x>" * 5000
    row = {
        "index": 0,
        "input": bad,
        "status": "failed",
        "value": bad,
        "duration": None,
        "attempts": 1,
        "worker": None,
        "traceback": bad,
    }
    text = html.run_html(_state([row] * 100))
    assert "<img" not in text
    assert len(text) < 200_000


def test_summary_line_tells_what_failed():
    assert html.summary_line(_state([])["run"]) == "f: 1/9 running, 1 failed, 1.0 s"


def test_a_script_prints_one_line_and_imports_no_ipython():
    code = (
        "import sys, nbscale\n"
        "f = nbscale.App().function()(abs)\n"
        "assert 'IPython' not in sys.modules and 'rich' not in sys.modules\n"
        "if __name__ == '__main__':\n"
        "    print(list(f.map([-1, 2])), list(f.map([-3], display=False)))\n"
        "    assert 'IPython' not in sys.modules and 'rich' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[1, 2] [3]\n", done.stderr
    assert done.stderr.count("\n") == 1 and "2/2 ok" in done.stderr
