"""The live view of a run for front ends that show ipywidgets and lack our extension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from nbscale.notebook import bridge

_STATIC = Path(__file__).parent / "static"


def _read(name: str) -> str:
    try:
        return (_STATIC / name).read_text(encoding="utf-8")
    except OSError:
        return ""  # a source tree where the front end is not built


class RunWidget(anywidget.AnyWidget):
    """Shows one run: its state is pushed, the rows are sent as they are looked at."""

    _esm = _read("widget.js") or "export default { render() {} }"
    _css = _read("widget.css")
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, run: Any, state: dict[str, Any]) -> None:
        super().__init__(state=state)
        self._run = run
        self.on_msg(self._answer)

    def _answer(self, _widget: Any, message: Any, _buffers: Any) -> None:
        if not isinstance(message, dict) or message.get("type") not in bridge.HANDLERS:
            return
        content = {**(message.get("content") or {}), "run_id": self._run.id}
        reply = bridge.answer(message["type"], content)
        self.send({"id": message.get("id"), "content": reply})


def make_widget(run: Any, state: dict[str, Any]) -> RunWidget | None:
    """Return the widget of `run`, or None where its JavaScript has not been built."""
    return RunWidget(run, state) if (_STATIC / "widget.js").is_file() else None
