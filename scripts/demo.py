"""`make demo`: the grid search notebook, executed in a real kernel, its progress shown by cell."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "grid_search.ipynb"
OUT = ROOT / "build" / "demo"
CELL_TIMEOUT_S = 300
MIME = "application/vnd.nbscale.run+json"
# How many rows of a table are printed; the rest is in the HTML.
SHOWN_ROWS = 12


class ProgressClient(NotebookClient):
    """A notebook client that says which cell runs and repeats the progress of its runs."""

    shown = -1

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Print a run's progress when its output is renewed, then do what every client does."""
        bundle = msg["content"].get("data", {}) if "display_data" in msg["msg_type"] else {}
        if MIME in bundle:
            run = bundle[MIME]["run"]
            done, total = run["done"], run["total"]
            tenth = 10 * done // total if total else 0
            if tenth != self.shown or run["status"] not in ("pending", "running"):
                self.shown = tenth
                bar = ("#" * tenth).ljust(10, "-")
                print(f"      [{bar}] {done}/{total}, {run['failed']} failed", flush=True)
        return super().process_message(msg, cell, cell_index)


def first_line(source: str) -> str:
    """The line that tells most about a cell."""
    lines = [line for line in source.splitlines() if line and not line.startswith("#")]
    return lines[0][:76] if lines else ""


def execute(notebook: Any) -> None:
    """Run every cell in a new kernel, printing one line a cell."""
    client = ProgressClient(
        notebook, timeout=CELL_TIMEOUT_S, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    # nbclient keeps the live widgets' state, which its HTML would then prefer to the settled table.
    client.store_widget_state = False
    client.extra_arguments = ["--log-level=ERROR"]
    code = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    with client.setup_kernel():
        for number, (index, cell) in enumerate(code, 1):
            print(f"[{number:2}/{len(code)}] {first_line(cell.source)}", flush=True)
            started = time.perf_counter()
            client.execute_cell(cell, index)
            for output in cell.outputs:
                if output.output_type == "stream" and output.name == "stdout":
                    print(re.sub("(?m)^", "      ", output.text.rstrip()), flush=True)
            took_s = time.perf_counter() - started
            if took_s > 1:
                print(f"      {took_s:.1f} s", flush=True)


def print_results(notebook: Any) -> None:
    """Print each run's table of results as it stands in the notebook."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(MIME)
            if view is None:
                continue
            view = json.loads(view) if isinstance(view, str) else view
            run = view["run"]
            print(f"\nResults of {run['function']}: {run['ok']} ok, {run['failed']} failed")
            print(f"{'#':>4}  {'input':<18} {'status':<9} {'seconds':>7}  value")
            rows = view["rows"]
            failed = [row for row in rows if row["status"] == "failed"]
            for row in [*rows[: SHOWN_ROWS - 4], *failed[:4]]:
                seconds = "" if row["duration"] is None else f"{row['duration']:.2f}"
                print(
                    f"{row['index']:>4}  {row['input'][:18]:<18} {row['status']:<9} {seconds:>7}  "
                    f"{str(row['value'])[:60]}"
                )
            print(f"      ... {run['total']} rows in all, every one in the HTML")


def main() -> int:
    """Execute, print and write; the status is not 0 when a cell failed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    print(f"Running {NOTEBOOK.relative_to(ROOT)} in a real kernel", flush=True)
    status = 0
    try:
        execute(notebook)
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        status = 1
    print_results(notebook)

    OUT.mkdir(parents=True, exist_ok=True)
    for path, text in (
        (OUT / NOTEBOOK.name, nbformat.writes(notebook)),
        (OUT / "grid_search.html", HTMLExporter().from_notebook_node(notebook)[0]),
    ):
        path.write_text(text, encoding="utf-8")
        print(f"\nWritten: {path.relative_to(ROOT)}", end="")
    print()
    return status


if __name__ == "__main__":
    sys.exit(main())
