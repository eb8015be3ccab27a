"""Decides how a run is seen, and keeps what is seen up to date.

One thread owns every output: engine threads only mark a view as changed. Messages carry the
parent of the cell that started the run explicitly, because ipykernel 6 would otherwise name the
cell that happens to run now.
"""

from __future__ import annotations

import atexit
import multiprocessing
import sys
import threading
import time
import uuid
import weakref
from typing import Any

from nbscale.notebook import bridge, html

MIME = "application/vnd.nbscale.run+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
_INTERVAL_S = 0.1

_lock = threading.RLock()
_changed: dict[int, Any] = {}
_wake = threading.Event()
_owner: threading.Thread | None = None
_enabled = True
_shown: weakref.WeakSet[Any] = weakref.WeakSet()
_latest: tuple[str, weakref.ref[Any]] | None = None
_lines: weakref.WeakSet[Any] = weakref.WeakSet()
_cells: weakref.WeakSet[Any] = weakref.WeakSet()


def set_enabled(enabled: bool) -> None:
    """Set whether runs started without `display=` are shown."""
    global _enabled
    _enabled = enabled


def show(run: Any, display: bool | None = None) -> None:
    """Show `run` where its starter looks: a notebook's cell, a terminal, or a line at the end."""
    with _lock:
        if run in _shown:
            return
        _shown.add(run)
    if multiprocessing.current_process().name != "MainProcess":
        return  # a run inside a worker belongs to an input, which has a row of its own
    kernel = bridge.running_kernel()
    if kernel is not None:
        if "nbscale_state_request" not in kernel.control_handlers:
            bridge.install(kernel)
        bridge.watch(run)
    if display is False or (display is None and not _enabled):
        return
    view: Any
    if kernel is not None:
        view = _CellView(run, kernel)
        _cells.add(view)
        events = kernel.shell.events
        if settle not in events.callbacks["post_run_cell"]:
            events.register("post_run_cell", settle)
    elif sys.stderr is not None and sys.stderr.isatty():
        view = _BarView(run)
    else:
        view = _LineView(run)
        _lines.add(view)
        run.subscribe(lambda _run: view.update())
        return
    run.subscribe(lambda _run: _mark(view))
    _mark(view)


def state_of(run: Any) -> dict[str, Any]:
    """Return the content of our mime type for `run`."""
    failed = []
    for row in run.rows(0, 50, status="failed")["rows"]:
        trace = run.detail(row["index"]).get("traceback") or ""
        failed.append({**row, "traceback": trace[-8000:]})
    live = not run.done()
    rows = run.rows(0, 100)["rows"]
    return {"version": 1, "run": run.summary(), "rows": rows, "failed": failed, "live": live}


def settle(*_: Any) -> None:
    """Bring the outputs of runs that are done to their last state.

    Called at the end of each cell: what a cell shows must be final before the cell is, or a
    saved notebook would hold a half-drawn run.
    """
    for view in list(_cells):
        if not view.settled and view.run.done():
            view.update()


def _mark(view: Any) -> None:
    global _owner
    with _lock:
        _changed[id(view)] = view
        _wake.set()
        if _owner is None or not _owner.is_alive():
            _owner = threading.Thread(target=_own, name="nbscale-display", daemon=True)
            _owner.start()


def _own() -> None:
    while True:
        _wake.wait()
        with _lock:
            _wake.clear()
            views = list(_changed.values())
            _changed.clear()
        for view in views:
            try:
                view.update()
            except Exception as error:  # a view must never stop the others
                view.error = error
        del views
        time.sleep(_INTERVAL_S)


class _CellView:
    """The output of a run in the cell that started it."""

    def __init__(self, run: Any, kernel: Any) -> None:
        global _latest
        from IPython.display import display

        self.run, self.kernel = run, kernel
        self.lock = threading.Lock()
        self.collapsed = self.settled = False
        self.sent_at = 0.0
        self.display_id = uuid.uuid4().hex
        self.parent = dict(kernel.get_parent("shell") or {})
        state = state_of(run)
        self.widget = self._make_widget(state)
        cell = self.parent.get("header", {}).get("msg_id", "")
        with _lock:
            before = _latest
            _latest = (cell, weakref.ref(self))
        if before is not None and before[0] == cell and (earlier := before[1]()) is not None:
            earlier.collapsed, earlier.settled = True, False
            _mark(earlier)
        display(self.bundle(state), raw=True, display_id=self.display_id)  # type: ignore[no-untyped-call]

    def _make_widget(self, state: dict[str, Any]) -> Any | None:
        try:
            from nbscale.notebook.widget import make_widget

            return make_widget(self.run, state)
        except ImportError:
            return None

    def bundle(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return what the cell holds for `state`."""
        text = html.summary_line(state["run"])
        if self.collapsed:
            return {"text/html": html.line_html(state["run"]), "text/plain": text}
        bundle = {MIME: state, "text/html": html.run_html(state), "text/plain": text}
        if self.widget is not None and state["live"]:
            bundle[WIDGET_MIME] = {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.widget.model_id,
            }
        return bundle

    def update(self) -> None:
        """Bring the output to the run's state."""
        with self.lock:
            self._update()

    def _update(self) -> None:
        state = state_of(self.run)
        live = state["live"]
        if not live and self.settled:
            return
        if self.widget is not None:
            self.widget.state = state
        # Updating the output would draw a live widget anew: only its trait changes until the end.
        now = time.monotonic()
        if live and (now - self.sent_at < 0.5 or (self.widget is not None and not self.collapsed)):
            return
        self.sent_at = now
        self.settled = not live
        if not live:
            self.widget = None
        content = {
            "data": self.bundle(state),
            "metadata": {},
            "transient": {"display_id": self.display_id},
        }
        self.kernel.session.send(
            self.kernel.iopub_socket, "update_display_data", content, parent=self.parent
        )


class _LineView:
    """One line on stderr when a run has ended, for logs."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.printed = False

    def update(self) -> None:
        """Print the line if the run is done and it is not printed yet."""
        with _lock:
            if self.printed or not self.run.done():
                return
            self.printed = True
        if sys.stderr is not None:
            sys.stderr.write(html.summary_line(self.run.summary()) + "\n")
            sys.stderr.flush()


@atexit.register
def _flush_lines() -> None:
    for view in list(_lines):
        view.update()


class _BarView:
    """A bar on the terminal; all runs share one live area."""

    progress: Any = None
    tasks = 0

    def __init__(self, run: Any) -> None:
        self.run = run
        self.task: Any = None

    def update(self) -> None:
        """Move the bar; take it away when the run is done."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        done = self.run.done()
        if self.task is None:
            if done:
                return
            if _BarView.progress is None:
                _BarView.progress = Progress(
                    TextColumn("{task.description}", markup=False),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[note]}", markup=False),
                    console=Console(stderr=True, width=80),
                    transient=True,
                )
                _BarView.progress.start()
            self.task = _BarView.progress.add_task(self.run.summary()["function"], note="")
            _BarView.tasks += 1
        summary = self.run.summary()
        note = f"{summary['failed']} failed" if summary["failed"] else ""
        _BarView.progress.update(
            self.task, completed=summary["done"], total=summary["total"], note=note
        )
        if done:
            _BarView.progress.remove_task(self.task)
            self.task = None
            _BarView.tasks -= 1
            if _BarView.tasks == 0:
                _BarView.progress.stop()
                _BarView.progress = None
