"""JupyterLab as a person uses it: open a notebook, run a cell, look at what it shows."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Locator, Page

# Without this wait the first key press is lost: the session is not there yet.
READY = """(async () => {
  await jupyterapp.restored;
  const panel = jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
})()"""
SHUT_DOWN = """(async () => {
  const panel = jupyterapp.shell.currentWidget;
  if (panel && panel.sessionContext) await panel.sessionContext.shutdown();
})()"""
RUN_TIMEOUT_MS = 60_000


class Lab:
    """One page of JupyterLab with one notebook in front."""

    def __init__(self, page: Page, address: str, path: Path, screenshots: Path) -> None:
        self.page = page
        self.path = path
        self._address = address
        self._screenshots = screenshots
        self.console: list[str] = []
        page.on("pageerror", lambda error: self.console.append(str(error)))

    def write(self, cells: list[str]) -> None:
        """Write the notebook that `open` opens."""
        notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.path)

    def open(self) -> None:
        """Open the notebook and wait until its kernel answers."""
        self.page.goto(f"{self._address}/lab/tree/{self.path.name}?token=tok&reset")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=RUN_TIMEOUT_MS)
        self.page.evaluate(READY)

    def cell(self, index: int) -> Locator:
        """The code cell at this place."""
        return self.page.locator(".jp-NotebookPanel .jp-CodeCell").nth(index)

    def start(self, index: int) -> Locator:
        """Run a cell without waiting for its end."""
        cell = self.cell(index)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        return cell

    def run(self, index: int) -> Locator:
        """Run a cell and wait for its end."""
        cell = self.start(index)
        self.wait_until_ran(cell)
        return cell

    def wait_until_ran(self, cell: Locator, timeout_ms: float = RUN_TIMEOUT_MS) -> None:
        """Wait until the prompt of a cell holds a number."""
        handle = cell.locator(".jp-InputPrompt").first.element_handle()
        self.page.wait_for_function(
            r"prompt => /\[\d+\]/.test(prompt.textContent)", arg=handle, timeout=timeout_ms
        )

    def is_busy(self, cell: Locator) -> bool:
        """Whether a cell runs or waits to run."""
        return "[*]" in (cell.locator(".jp-InputPrompt").first.text_content() or "")

    def save(self) -> None:
        """Save the notebook and wait until it is on disk."""
        self.page.evaluate("jupyterapp.commands.execute('docmanager:save')")

    def screenshot(self, name: str) -> None:
        """Keep a picture of the page among the artefacts."""
        self.page.screenshot(path=self._screenshots / f"{name}.png")

    def close(self) -> None:
        """Shut the kernel down and close the page."""
        self.page.evaluate(SHUT_DOWN)
        self.page.close()
