"""A run as bounded, escaped text, for every reader that has neither kernel nor extension."""

from __future__ import annotations

from html import escape
from typing import Any

MAX_HTML = 190_000
_CELL = "padding:2px 8px;text-align:left;border-bottom:1px solid rgba(128,128,128,.35)"
_PRE = "white-space:pre-wrap;max-height:20em;overflow:auto"


def summary_line(summary: dict[str, Any]) -> str:
    """Return the one line that tells how far a run is."""
    total = summary.get("total")
    count = f"{summary['done']:,}" if total is None else f"{summary['done']:,}/{total:,}"
    parts = [f"{summary['function']}: {count} {summary['status']}"]
    for key in ("failed", "cancelled"):
        if summary.get(key):
            parts.append(f"{summary[key]:,} {key}")
    parts.append(f"{summary.get('elapsed_s') or 0.0:.1f} s")
    return ", ".join(parts)


def line_html(summary: dict[str, Any]) -> str:
    """Return the summary line as HTML."""
    return f"<div>{escape(summary_line(summary))}</div>"


def run_html(state: dict[str, Any]) -> str:
    """Return a static table of `state` (the content of our mime type), under 200 kB."""
    head = "".join(
        f'<th style="{_CELL}">{name}</th>'
        for name in ("index", "input", "status", "value", "duration", "worker")
    )
    parts = [line_html(state["run"])]
    size = len(parts[0])
    rows = []
    for row in state["rows"]:
        duration = row.get("duration")
        cells = (
            row["index"],
            _short(row.get("input"), 200),
            row["status"],
            _short(row.get("value"), 400),
            "" if duration is None else f"{duration:.3f} s",
            row.get("worker"),
        )
        text = "".join(
            f'<td style="{_CELL}">{escape("" if cell is None else str(cell))}</td>'
            for cell in cells
        )
        if size + len(text) > MAX_HTML // 2:
            break
        size += len(text)
        rows.append(f"<tr>{text}</tr>")
    body = "".join(rows)
    parts.append(
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
    size = sum(map(len, parts))
    for row in state["failed"]:
        title = f"input {row['index']}: {_short(row.get('value'), 400)}"
        trace = _short(row.get("traceback"), 8_000)
        text = (
            f"<details><summary>{escape(title)}</summary>"
            f'<pre style="{_PRE}">{escape(trace)}</pre></details>'
        )
        if size + len(text) > MAX_HTML:
            break
        size += len(text)
        parts.append(text)
    return "".join(parts)


def table_html(header: list[str], rows: list[list[Any]]) -> str:
    """Return a small table with everything escaped."""
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(str(c))}</td>' for c in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table_text(header: list[str], rows: list[list[Any]]) -> str:
    """Return the same table as plain text."""
    lines = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _short(value: Any, limit: int) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"
