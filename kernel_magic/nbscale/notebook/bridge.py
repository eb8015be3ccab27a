"""Answers the front end on the control channel, so that it works while a cell is busy.

Comms are answered by the main shell on some ipykernel versions, after the cell; the control
channel has a thread of its own on all of them. A handler that raises sends no reply at all, so
each one is wrapped.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

_watched: weakref.WeakSet[Any] = weakref.WeakSet()


def running_kernel() -> Any | None:
    """Return the ipykernel of this process, or None; imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    return kernel if hasattr(kernel, "control_handlers") else None


def _apps() -> list[Any]:
    from nbscale.app import App

    return list(App.all())


def find_run(run_id: str) -> Any:
    """Return the run with this id; raises LookupError when it is gone."""
    for app in _apps():
        for run in app.runs:
            if run.id == run_id:
                return run
    raise LookupError(f"no run {run_id} in this kernel")


def _state(content: dict[str, Any]) -> dict[str, Any]:
    import nbscale

    functions = []
    runs: list[dict[str, Any]] = []
    for app in _apps():
        for name, function in list(app.functions.items()):
            functions.append(
                {
                    "name": name,
                    "signature": str(function.signature),
                    "limit": function.concurrency_limit,
                    "options": function.options.changed(),
                    "app": app.name,
                    "id": f"{id(app)}:{name}",
                }
            )
        runs.extend(run.summary() for run in list(app.runs))
    runs.sort(key=lambda run: run.get("started_at") or 0, reverse=True)
    version = getattr(nbscale, "__version__", "")
    return {"version": version, "functions": functions, "runs": runs[:50]}


def rows_reply(run: Any, content: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of `run` that `content` asks for; at most 1,000 a time."""
    start = max(0, int(content.get("start") or 0))
    stop = int(content.get("stop", start + 100))
    stop = max(start, min(stop, start + 1000))
    status, text = content.get("status") or None, content.get("text") or None
    return {"run": run.summary(), **run.rows(start, stop, status=status, text=text)}


def _rows(content: dict[str, Any]) -> dict[str, Any]:
    return rows_reply(find_run(content["run_id"]), content)


def _outcome(content: dict[str, Any]) -> dict[str, Any]:
    return {"outcome": find_run(content["run_id"]).detail(int(content["index"]))}


def _cancel(content: dict[str, Any]) -> dict[str, Any]:
    find_run(content["run_id"]).cancel()
    return {}


def _retry(content: dict[str, Any]) -> dict[str, Any]:
    find_run(content["run_id"]).retry_failed()
    return {}


def _limit(content: dict[str, Any]) -> dict[str, Any]:
    found = [
        app.functions[content["function"]]
        for app in reversed(_apps())
        if content["function"] in app.functions
    ]
    if not found:
        raise LookupError(f"no function {content['function']} in this kernel")
    found[0].concurrency_limit = content["limit"]
    notify_functions()
    return {}


HANDLERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "nbscale_state_request": _state,
    "nbscale_rows_request": _rows,
    "nbscale_outcome_request": _outcome,
    "nbscale_cancel_request": _cancel,
    "nbscale_retry_request": _retry,
    "nbscale_limit_request": _limit,
}


def answer(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the reply's content for one request; never raises."""
    try:
        return {"status": "ok", **HANDLERS[kind](content)}
    except Exception as error:
        return {"status": "error", "message": f"{type(error).__name__}: {error}"[:2000]}


def install(kernel: Any) -> None:
    """Register the handlers with `kernel`; doing it again changes nothing."""
    for kind in HANDLERS:
        kernel.control_handlers[kind] = _handler(kernel, kind)


def uninstall(kernel: Any) -> None:
    """Take the handlers away."""
    for kind in HANDLERS:
        kernel.control_handlers.pop(kind, None)


def _handler(kernel: Any, kind: str) -> Callable[..., Any]:
    async def handle(stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        reply = answer(kind, parent.get("content") or {})
        kernel.session.send(stream, kind.replace("_request", "_reply"), reply, parent, ident)

    return handle


def send_event(content: dict[str, Any]) -> None:
    """Tell the front ends of this kernel, if there is one, what has changed."""
    kernel = running_kernel()
    if kernel is not None and kernel.iopub_socket is not None:
        kernel.session.send(kernel.iopub_socket, "nbscale_event", content)


def notify_functions() -> None:
    """Tell the front ends that the functions or their limits have changed."""
    send_event({"kind": "functions"})


def watch(run: Any) -> None:
    """Send an event whenever `run` changes."""
    if run in _watched:
        return
    _watched.add(run)
    run.subscribe(lambda changed: send_event({"kind": "run", "run": changed.summary()}))
    send_event({"kind": "run", "run": run.summary()})
