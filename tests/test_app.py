"""The registry, the options' errors, and the front door."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nbscale
from nbscale.exception import Error, InvalidError


def test_the_public_names_exist():
    for name in nbscale.__all__:
        assert getattr(nbscale, name) is not None


def test_importing_loads_no_ipython_and_no_widgets():
    code = (
        "import nbscale, sys\n"
        "assert not {'IPython', 'ipywidgets', 'numpy', 'pandas', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurency_limit": 5}, "Did you mean concurrency_limit"),
        ({"concurrency_limit": 0}, "1 or more"),
        ({"concurrency_limit": True}, "whole number"),
        ({"concurrency_limit": "5"}, "whole number"),
        ({"concurrency_limit": 2, "max_containers": 3}, "two names of one option"),
        ({"timeout": 0}, "more than 0"),
        ({"timeout": "1"}, "number of seconds"),
        ({"timeout": float("nan")}, "0 or more"),
        ({"retries": -1}, "Use 0 to turn retries off"),
        ({"env": {"a": 1}}, "strings to strings"),
        ({"gpu": "H100"}, "not supported"),
    ],
)
def test_a_wrong_option_is_an_error_at_decoration_that_registers_nothing(options, message):
    app = nbscale.App()

    with pytest.raises(InvalidError, match=message) as caught:

        @app.function(**options)
        def f(x):
            return x

    assert "`f`" in str(caught.value) and app.functions == {}
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, Error)


def test_decorating_without_parentheses_says_how():
    app = nbscale.App()

    with pytest.raises(InvalidError, match="parentheses"):

        @app.function
        def f(x):
            return x


def test_registering_a_name_again_replaces_it():
    app = nbscale.App()

    @app.function(max_containers=3)
    def f(x):
        return x

    first = f

    @app.function()
    def f(x):
        return -x

    assert app.functions == {"f": f} and first.concurrency_limit == 3
    assert f(2) == -2 and list(map(f, [1])) == [-1]


def test_the_guides_second_gotcha_gives_one_hint(capsys):
    app = nbscale.App()

    @app.function()
    def f(x):
        return x

    assert list(map(f, range(50))) == list(range(50))
    assert capsys.readouterr().err.count("f.map(inputs)") == 1


def test_retries_delays():
    growing = nbscale.Retries(3, initial_delay=1.0)

    assert [growing.delay_s(n) for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert nbscale.Retries(9, max_delay=5).delay_s(2000) == 5
    with pytest.raises(InvalidError):
        nbscale.Retries(-1)


def test_a_generator_function_is_refused_with_a_reason():
    app = nbscale.App()

    @app.function()
    def gen(x):
        yield x

    with pytest.raises(InvalidError, match="generator"):
        gen.map([1])


def test_a_call_after_shutdown_starts_afresh():
    app = nbscale.App(max_workers=1)

    @app.function()
    def f(x):
        return x + 1

    with app.run():
        assert f.remote(1) == 2
    assert f.remote(2) == 3
    app.shutdown()
