"""JupyterLab in a real browser: the bar, the table, the buttons and the panel that a user meets."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from lab import Lab
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

OpenLab = Callable[[list[str]], Lab]

DEFINE = """%%remote_function --concurrency-limit 2
def square(x):
    import time

    time.sleep(0.15)
    if x == 5:
        raise ValueError("five is not for us")
    return x * x
"""
SETUP = ["%load_ext nbscale", DEFINE]
ROWS = '[role="row"][data-index]'


def set_up(lab: Lab) -> None:
    """Run the two cells that every test starts with."""
    lab.run(0)
    lab.run(1)


def progress(bar: Locator) -> int:
    """How far the bar has come."""
    return int(bar.get_attribute("aria-valuenow") or 0)


def indices(cell: Locator) -> list[int]:
    """The inputs that the rows of the table in a cell stand for, from top to bottom."""
    found = cell.locator(ROWS).evaluate_all("rows => rows.map(row => Number(row.dataset.index))")
    return [int(index) for index in found]


def statuses(cell: Locator) -> list[str]:
    """The statuses of the table's rows, from top to bottom."""
    found = cell.locator(ROWS).evaluate_all("rows => rows.map(row => row.dataset.status)")
    return [str(status) for status in found]


def wait_for_progress(lab: Lab, cell: Locator, at_least: int) -> Locator:
    """The bar of a cell, once it has come this far."""
    bar = cell.get_by_role("progressbar")
    expect(bar).to_be_visible(timeout=30_000)
    lab.page.wait_for_function(
        "([bar, least]) => Number(bar.getAttribute('aria-valuenow')) >= least",
        arg=[bar.element_handle(), at_least],
        timeout=30_000,
    )
    return bar


def test_the_bar_moves_and_the_table_fills_in_input_order_while_the_cell_is_busy(
    open_lab: OpenLab,
) -> None:
    lab = open_lab([*SETUP, "results = list(square.map(range(40), return_exceptions=True))"])
    set_up(lab)

    cell = lab.start(2)
    seen = [progress(wait_for_progress(lab, cell, least)) for least in (1, 10, 25)]
    was_busy = lab.is_busy(cell)
    lab.screenshot("cell-running")
    expect(cell.locator(ROWS).first).to_be_visible()
    early = indices(cell)
    lab.wait_until_ran(cell)
    bar = cell.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", "40")
    expect(cell.locator(f'{ROWS}[data-index="5"]')).to_have_attribute("data-status", "failed")
    lab.screenshot("cell")

    assert was_busy
    assert seen == sorted(seen) and seen[0] < 40
    assert early == sorted(early) and early
    shown = indices(cell)
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    assert bar.get_attribute("aria-valuemax") == "40"
    assert bar.get_attribute("aria-label") == "Progress of square"
    assert "five is not for us" in cell.locator(f'{ROWS}[data-index="5"]').inner_text()


def test_cancel_stops_the_run_while_the_cell_is_busy_and_the_next_cell_works(
    open_lab: OpenLab,
) -> None:
    after = "print(list(square.map(range(3), display=False)))"
    lab = open_lab(
        [*SETUP, "list(square.map(range(400), return_exceptions=True))", after],
    )
    set_up(lab)

    cell = lab.start(2)
    wait_for_progress(lab, cell, 4)
    was_busy = lab.is_busy(cell)
    cell.get_by_role("button", name="Cancel").click()
    lab.wait_until_ran(cell, timeout_ms=5_000)
    lab.screenshot("cancelled")
    following = lab.run(3)

    assert was_busy
    assert "cancelled" in cell.locator(".jp-OutputArea").first.inner_text().lower()
    assert "[0, 1, 4]" in following.locator(".jp-OutputArea").first.inner_text()


def test_the_panel_shows_runs_and_changes_a_limit_while_the_kernel_is_busy(
    open_lab: OpenLab,
) -> None:
    lab = open_lab(
        [
            *SETUP,
            "results = list(square.map(range(60), return_exceptions=True))",
            "print('limit', square.concurrency_limit)",
        ]
    )
    set_up(lab)

    lab.page.get_by_role("tab", name="nbscale").click()
    expect(lab.page.get_by_role("heading", name="nbscale")).to_be_visible()
    limit = lab.page.get_by_label("Limit of square")
    expect(limit).to_have_value("2", timeout=10_000)
    cell = lab.start(2)
    wait_for_progress(lab, cell, 2)
    limit.fill("4")
    limit.press("Enter")
    running = lab.page.locator('[data-run-id][data-status="running"]')
    expect(running).to_have_count(1, timeout=10_000)
    was_busy = lab.is_busy(cell)
    lab.screenshot("panel")
    lab.wait_until_ran(cell)
    expect(lab.page.locator("[data-run-id]")).to_have_count(1)
    expect(running).to_have_count(0, timeout=10_000)
    after = lab.run(3)

    assert was_busy
    assert "limit 4" in after.locator(".jp-OutputArea").first.inner_text()


def test_a_saved_notebook_shows_its_settled_run_without_a_kernel(open_lab: OpenLab) -> None:
    lab = open_lab([*SETUP, "results = list(square.map(range(8), return_exceptions=True))"])
    set_up(lab)
    cell = lab.run(2)
    expect(cell.locator(f'{ROWS}[data-status="failed"]')).to_have_count(1)
    lab.save()
    saved = json.loads(lab.path.read_text())
    bundle = saved["cells"][2]["outputs"][0]["data"]

    lab.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    lab.page.reload()
    lab.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=30_000)
    reopened = lab.cell(2)
    expect(reopened.locator(ROWS)).to_have_count(8, timeout=15_000)
    lab.screenshot("reopened")

    assert "application/vnd.jupyter.widget-view+json" not in bundle
    assert {"application/vnd.nbscale.run+json", "text/html", "text/plain"} <= bundle.keys()
    assert statuses(reopened).count("failed") == 1
    assert "model not found" not in reopened.inner_text()
