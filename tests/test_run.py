"""A run's promises: order, limits, exceptions, crashes, cancellation, streams, retries."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import nbscale
from nbscale import UserCodeException
from nbscale.exception import (
    CancelledError,
    FunctionTimeoutError,
    InvalidError,
    RemoteError,
    SerializationError,
    WorkerDiedError,
)

app = nbscale.App("tests")


@pytest.fixture(scope="module", autouse=True)
def _no_workers_left():
    yield
    app.shutdown()


def test_results_come_in_the_order_of_the_inputs_when_later_ones_finish_first():
    @app.function(concurrency_limit=3)
    def late_first(x):
        time.sleep(0.2 if x == 0 else 0.0)
        return x * x

    assert list(late_first.map(range(30), display=False)) == [x * x for x in range(30)]


def test_unordered_results_come_as_they_finish():
    @app.function(concurrency_limit=2)
    def slow_zero(x):
        time.sleep(1.0 if x == 0 else 0.0)
        return x

    found = list(slow_zero.map([0, 1, 2], order_outputs=False, display=False))

    assert sorted(found) == [0, 1, 2] and found[-1] == 0


def test_exceptions_are_returned_with_the_guides_repr():
    @app.function()
    def my_func(a):
        if a == 2:
            raise Exception("ohno")
        return a**2

    found = list(my_func.map(range(3), return_exceptions=True, display=False))

    assert repr(found) == "[0, 1, UserCodeException(Exception('ohno'))]"
    assert isinstance(found[2], UserCodeException) and str(found[2].exception) == "ohno"
    bare = list(
        my_func.map([2], return_exceptions=True, wrap_returned_exceptions=False, display=False)
    )
    assert type(bare[0]) is Exception


def test_the_original_exception_is_raised_with_the_workers_frames_and_the_rest_is_kept():
    class Odd(Exception):
        pass

    @app.function(concurrency_limit=1)
    def f(x):
        if x == 3:
            raise Odd("three")
        return x

    run = f.map(range(1000), display=False)
    found = []
    with pytest.raises(Odd, match="three") as caught:
        for value in run:
            found.append(value)

    assert found == [0, 1, 2]
    assert caught.traceback[-1].name == "f"
    assert run.wait(30) and run.status == "failed"
    assert run.results[:3] == [0, 1, 2] and isinstance(run.errors[3], Odd)
    assert "three" in (run.outcomes[3].traceback or "")
    assert run.outcomes[999].status == "cancelled"


def test_starmap_spreads_and_map_zips_to_the_shortest():
    @app.function()
    def add(a, b, c=0):
        return a + b + c

    assert list(add.starmap([(1, 2), (3, 4)], display=False)) == [3, 7]
    assert list(add.map([1, 2, 3], [10, 20], kwargs={"c": 100}, display=False)) == [111, 122]
    with pytest.raises(InvalidError, match="spread"):
        add.starmap([1, 2], display=False)


@pytest.mark.parametrize("wrong", [(), (5,), ([1], None)])
def test_wrong_inputs_are_an_invalid_error_at_the_call(wrong):
    @app.function()
    def f(*xs):
        return xs

    with pytest.raises(InvalidError):
        f.map(*wrong)


def test_never_more_than_the_limit_run_at_once_over_all_runs(tmp_path):
    @app.function(concurrency_limit=2)
    def busy(x, folder):
        mark = Path(folder) / str(x)
        mark.touch()
        seen = len(list(Path(folder).iterdir()))
        time.sleep(0.02)
        mark.unlink()
        return seen

    runs = [
        busy.map(range(start, start + 20), kwargs={"folder": str(tmp_path)}, display=False)
        for start in (0, 100)
    ]

    assert max(seen for run in runs for seen in run) == 2


def test_a_killed_worker_costs_exactly_its_input(tmp_path):
    @app.function(concurrency_limit=2)
    def f(x, folder):
        with open(Path(folder) / str(x), "a") as log:
            log.write("x")
        if x == 57:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    found = list(
        f.map(range(200), kwargs={"folder": str(tmp_path)}, return_exceptions=True, display=False)
    )

    assert [x for x in found if not isinstance(x, Exception)] == [x for x in range(200) if x != 57]
    died = found[57]
    assert isinstance(died, WorkerDiedError)
    assert died.exit_code == -signal.SIGKILL and died.input_index == 57
    assert all((tmp_path / str(x)).read_text() == "x" for x in range(200))


def test_a_timeout_stops_one_input_and_the_next_map_works():
    @app.function(concurrency_limit=2, timeout=0.5)
    def f(x):
        if x == 1:
            time.sleep(60)
        return x

    found = list(f.map(range(4), return_exceptions=True, display=False))

    assert isinstance(found[1], FunctionTimeoutError) and isinstance(found[1], TimeoutError)
    assert [found[0], *found[2:]] == [0, 2, 3]
    assert f.remote(5) == 5


def test_retries_try_again_and_count_attempts(tmp_path):
    @app.function(retries=nbscale.Retries(2, initial_delay=0))
    def flaky(x, folder):
        tries = Path(folder) / str(x)
        with tries.open("a") as log:
            log.write("x")
        if x == 1 and len(tries.read_text()) < 3:
            raise ValueError("not yet")
        return x

    run = flaky.map(range(3), kwargs={"folder": str(tmp_path)}, display=False)

    assert list(run) == [0, 1, 2]
    assert [outcome.attempts for outcome in run.outcomes] == [1, 3, 1]


def test_exit_and_interrupt_in_a_function_fail_their_input_only():
    @app.function()
    def f(x):
        if x == 1:
            sys.exit(3)
        if x == 2:
            raise KeyboardInterrupt
        return x

    found = list(f.map(range(4), return_exceptions=True, display=False))

    assert [found[0], found[3]] == [0, 3]
    assert all(isinstance(each, RemoteError) for each in found[1:3])


def test_what_cannot_be_pickled_is_named():
    @app.function()
    def back(x):
        return threading.Lock() if x == 1 else x

    found = list(back.map([0, 1, threading.Lock()], return_exceptions=True, display=False))

    assert found[0] == 0
    assert isinstance(found[1], SerializationError) and "result of input 1" in str(found[1])
    assert isinstance(found[2], SerializationError) and "input 2" in str(found[2])
    lock = threading.Lock()

    @app.function()
    def captures():
        return lock

    with pytest.raises(SerializationError, match="captures"):
        captures.remote()


def test_a_generator_is_pulled_lazily_and_its_error_comes_after_its_results():
    pulled = []

    def source():
        for x in range(1000):
            pulled.append(x)
            yield x
            if x == 50:
                raise RuntimeError("source broke")

    @app.function(concurrency_limit=2)
    def slow(x):
        time.sleep(0.02)
        return x

    run = slow.map(source(), display=False)
    with pytest.raises(TypeError):
        len(run)
    assert next(run) == 0
    assert len(pulled) < 50
    rest = []
    with pytest.raises(RuntimeError, match="source broke"):
        for value in run:
            rest.append(value)
    assert rest == list(range(1, 51))
    with pytest.raises(InvalidError, match="streamed"):
        iter(run)


def test_cancel_returns_at_once_and_iteration_raises():
    @app.function(concurrency_limit=2)
    def wait(x):
        time.sleep(0.0 if x == 0 else 60)
        return x

    run = wait.map(range(10), display=False)
    assert next(run) == 0
    start = time.monotonic()
    run.cancel()
    with pytest.raises(CancelledError):
        next(run)
    assert run.wait(20) and run.status == "cancelled"
    assert time.monotonic() - start < 15
    assert run.results == [0]


def test_retry_failed_runs_only_what_failed_with_the_new_definition(tmp_path):
    @app.function(name="repaired")
    def broken(x):
        if x % 2:
            raise ValueError(x)
        return x

    run = broken.map(range(4), return_exceptions=True, display=False)
    assert run.wait(30) and sorted(run.errors) == [1, 3]

    @app.function(name="repaired")
    def mended(x):
        return -x

    assert run.retry_failed() is run
    assert list(run) == [0, -1, 2, -3] and run.errors == {} and run.status == "ok"


def test_asynchronous_twins_give_the_same():
    @app.function()
    def double(x):
        return 2 * x

    async def use():
        streamed = [value async for value in double.map.aio(range(3), display=False)]
        listed = await double.starmap.aio([(4,)], display=False)
        one = await double.remote.aio(5)
        nothing = await double.for_each.aio([1, 2])
        return streamed, listed, one, nothing, await double.local.aio(6)

    assert asyncio.run(use()) == ([0, 2, 4], [8], 10, None, 12)


def test_a_coroutine_function_runs():
    @app.function()
    async def soon(x):
        await asyncio.sleep(0)
        return x + 1

    assert list(soon.map([1, 2], display=False)) == [2, 3]


def test_a_nested_map_of_the_function_itself_does_not_deadlock_at_limit_1():
    @app.function(concurrency_limit=1)
    def tree(depth):
        return 1 + sum(tree.map([depth - 1], display=False)) if depth else 1

    assert tree.remote(2) == 3


def test_printed_text_is_kept_with_its_input_and_reaches_stdout(capsys):
    @app.function()
    def talk(x):
        print("input", x)
        return x

    run = talk.map(range(3), display=False)

    assert list(run) == [0, 1, 2]
    assert [outcome.stdout for outcome in run.outcomes] == [f"input {x}\n" for x in range(3)]
    assert sorted(capsys.readouterr().out.split("\n")) == ["", "input 0", "input 1", "input 2"]


def test_a_call_sees_the_environment_and_folder_of_now(tmp_path, monkeypatch):
    @app.function()
    def where(name):
        return os.getcwd(), os.environ.get(name)

    where.remote("NBSCALE_TEST_X")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBSCALE_TEST_X", "now")

    assert where.remote("NBSCALE_TEST_X") == (str(tmp_path), "now")


def test_the_limit_moves_during_a_run():
    @app.function(concurrency_limit=1)
    def nap(x):
        time.sleep(0.1)
        return os.getpid()

    run = nap.map(range(40), display=False)
    next(run)
    nap.concurrency_limit = 4

    assert len(set(run)) > 1


def test_views_read_progress_rows_and_details():
    @app.function()
    def f(x):
        if x == 1:
            raise ValueError("<img src=x onerror=alert(1)>")
        return "v" * 1000

    run = f.map(range(3), return_exceptions=True, display=False)
    run.wait(30)
    summary = run.summary()
    failed = run.rows(status="failed")

    assert (summary["total"], summary["done"], summary["ok"], summary["failed"]) == (3, 3, 2, 1)
    assert failed["total"] == 1 and failed["rows"][0]["value"].startswith("ValueError: <img")
    assert len(run.rows()["rows"][0]["value"]) <= 200
    assert "ValueError" in run.detail(1)["traceback"]
    assert len(run.detail(0)["repr"]) == 1002
    assert run.rows(text="onerror")["total"] == 1


def test_to_frame_has_one_row_an_input():
    pytest.importorskip("pandas")

    @app.function()
    def f(x):
        return 1 / x

    frame = f.map([1, 0], return_exceptions=True, display=False)
    frame.wait(30)
    table = frame.to_frame()

    assert list(table["status"]) == ["ok", "failed"] and list(table["input"]) == ["1", "0"]


SCRIPT = """
import os, sys, time
import nbscale
app = nbscale.App()

@app.function(concurrency_limit=3)
def stuck(x):
    print(os.getpid(), flush=True)
    time.sleep(300)

run = stuck.map(range(3), display=False)
"""


def _pids(process, count):
    return [int(process.stdout.readline()) for _ in range(count)]


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _all_end(pids):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", ["exit", "kill", "interrupt"])
def test_no_worker_is_left_when_the_interpreter_ends(how):
    ending = {"exit": "time.sleep(2)", "kill": "time.sleep(300)", "interrupt": "run.wait()"}[how]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + ending],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = _pids(process, 3)
    if how == "kill":
        process.kill()
    elif how == "interrupt":
        os.killpg(process.pid, signal.SIGINT)

    _, errors = process.communicate(timeout=60)

    assert _all_end(pids)
    # The one traceback is the script's own: workers print none.
    assert errors.count("Traceback") == (1 if how == "interrupt" else 0), errors


def test_an_interrupt_stops_the_map_and_the_next_one_works():
    code = (
        SCRIPT
        + """
try:
    list(run)
except KeyboardInterrupt:
    print("interrupted", flush=True)

@app.function(concurrency_limit=3)
def double(x):
    return 2 * x

print(list(double.map(range(3), display=False)), flush=True)
"""
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    _pids(process, 3)

    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)

    assert out.splitlines() == ["interrupted", "[0, 2, 4]"]
    assert process.returncode == 0
