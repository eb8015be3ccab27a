"""The grid search notebook in a real kernel: what its reader sees."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "grid_search.ipynb"
MIME = "application/vnd.nbscale.run+json"

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture(scope="module")
def executed() -> Any:
    """The notebook after all its cells ran."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=150)
    client.store_widget_state = False
    return client.execute()


def printed(notebook: Any) -> str:
    """All that the cells printed."""
    return "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )


def test_every_combination_is_tried_and_the_impossible_ones_fail(executed: Any) -> None:
    assert "72 combinations, 8 failed" in printed(executed)
    assert "UserCodeException(ValueError('specified nu is infeasible'))" in printed(executed)


def test_the_best_model_and_the_speed_are_told(executed: Any) -> None:
    assert "best: nu=0.1, gamma=0.01, accuracy 0.98" in printed(executed)
    assert "the same scores: True" in printed(executed)
    assert "times as fast" in printed(executed)


def test_the_run_is_settled_in_the_saved_notebook(executed: Any) -> None:
    bundles = [
        output.data
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if MIME in output.get("data", {})
    ]

    assert len(bundles) == 1
    view = bundles[0][MIME]
    assert (view["live"], view["run"]["total"], view["run"]["failed"]) == (False, 72, 8)
    assert [row["index"] for row in view["rows"]] == list(range(72))
    assert "specified nu is infeasible" in bundles[0]["text/html"]


def test_the_kernel_is_of_the_version_that_this_session_is_for() -> None:
    wanted = os.environ.get("NBSCALE_TEST_IPYKERNEL", "7")

    assert version("ipykernel").split(".")[0] == wanted
