"""The magics, the view and the messages in a real kernel, of ipykernel 6 too where it is given."""

import os
import time

import pytest
from jupyter_client.manager import KernelManager

_SIX = os.environ.get("NBSCALE_TEST_IPYKERNEL6")
pytestmark = pytest.mark.kernel


@pytest.fixture(params=["installed", *(["six"] if _SIX else [])])
def client(request):
    env = dict(os.environ)
    if request.param == "six":
        env["PYTHONPATH"] = os.pathsep.join([_SIX, env.get("PYTHONPATH", "")])
    manager = KernelManager()
    manager.start_kernel(env=env)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute_interactive("%load_ext nbscale", timeout=60, output_hook=lambda m: None)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell(client, code):
    messages = []
    reply = client.execute_interactive(code, timeout=60, output_hook=messages.append)
    return reply["content"], messages


def text_of(messages):
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")


def ask(client, kind, **content):
    message = client.session.msg(kind, content)
    client.control_channel.send(message)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        reply = client.get_control_msg(timeout=5)
        if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            return reply["content"]
    raise AssertionError("no reply")


def test_cell_registers_its_functions_and_an_edit_takes_effect(client):
    run_cell(
        client,
        "%%remote_function --concurrency-limit 2\nfrom math import sqrt\n"
        "def f(x):\n    return x + 1",
    )
    _, messages = run_cell(client, "print(list(f.map([1, 2])), type(sqrt).__name__)")
    assert "[2, 3] builtin_function_or_method" in text_of(messages)
    run_cell(client, "%%remote_function\ndef f(x):\n    return x * 10")
    _, messages = run_cell(client, "print(list(f.map([1, 2])))")
    assert "[10, 20]" in text_of(messages)
    assert [f["name"] for f in ask(client, "nbscale_state_request")["functions"]] == ["f"]


@pytest.mark.parametrize("line", ["--retries x", "--retries -1", "--unknown 3", "g"])
def test_wrong_option_registers_nothing(client, line):
    _reply, messages = run_cell(client, f"%%remote_function {line}\nran = 1\ndef f(x): return x")
    assert "UsageError" in text_of(messages)
    assert ask(client, "nbscale_state_request")["functions"] == []
    reply, _ = run_cell(client, "ran")
    assert reply["ename"] == "NameError"


def test_failing_cell_registers_nothing(client):
    reply, _ = run_cell(client, "%%remote_function\ndef f(x): return x\n1/0")
    assert reply["ename"] == "ZeroDivisionError"
    assert ask(client, "nbscale_state_request")["functions"] == []


def test_bundle_is_escaped_and_settles(client):
    run_cell(client, "%%remote_function\ndef f(x): return x")
    _, messages = run_cell(client, "f.map(['<script>']).wait(); import time; time.sleep(0.5)")
    bundles = [m for m in messages if m["msg_type"] in ("display_data", "update_display_data")]
    last = bundles[-1]["content"]["data"]
    state = last["application/vnd.nbscale.run+json"]
    assert state["version"] == 1 and not state["live"] and state["run"]["ok"] == 1
    assert "<script>" not in last["text/html"] and "&lt;script&gt;" in last["text/html"]
    assert "application/vnd.jupyter.widget-view+json" not in last


def test_cancel_while_the_cell_is_busy(client):
    run_cell(
        client,
        "%%remote_function --concurrency-limit 1\ndef f(x):\n    import time\n    time.sleep(0.2)",
    )
    message_id = client.execute("run = f.map(range(200)); run.wait()")
    end = time.monotonic() + 10
    while not (runs := ask(client, "nbscale_state_request")["runs"]):
        assert time.monotonic() < end
    run_id = runs[0]["id"]
    assert ask(client, "nbscale_rows_request", run_id=run_id, start=0, stop=5)["total"] == 200
    assert ask(client, "nbscale_outcome_request", run_id="none", index=0)["status"] == "error"
    assert ask(client, "nbscale_cancel_request", run_id=run_id)["status"] == "ok"
    reply = client.get_shell_msg(timeout=10)
    assert reply["parent_header"]["msg_id"] == message_id
    assert ask(client, "nbscale_state_request")["runs"][0]["status"] == "cancelled"


def test_hint_for_a_map_on_the_result(client):
    run_cell(client, "%%remote_function\ndef f(x): return x")
    reply, messages = run_cell(client, "f([1, 2]).map()")
    assert reply["ename"] == "AttributeError"
    assert "f.map([1, 2])" in text_of(messages)


def test_runs_of_one_cell_collapse_but_the_last(client):
    run_cell(client, "%%remote_function\ndef f(x): return x")
    _, messages = run_cell(
        client, "for _ in range(3): list(f.map([1]))\nimport time; time.sleep(0.6)"
    )
    last = {}
    for message in messages:
        if message["msg_type"] in ("display_data", "update_display_data"):
            content = message["content"]
            last[content["transient"]["display_id"]] = content["data"]
    assert len(last) == 3
    assert [("application/vnd.nbscale.run+json" in d) for d in last.values()] == [
        False, False, True,
    ]  # fmt: skip
