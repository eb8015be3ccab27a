"""Entry points: typed parameters from the command line."""

from __future__ import annotations

import pytest

import nbscale


def _app():
    app = nbscale.App()
    seen = []

    @app.local_entrypoint()
    def main(n: int = 3, name: str = "a", flag: bool = False):
        """Say what was given."""
        seen.append((n, name, flag))

    return app, main, seen


def test_parameters_are_read_with_their_types():
    app, main, seen = _app()

    app.main(["--n", "5", "--flag"])
    main(1, "direct")

    assert seen == [(5, "a", True), (1, "direct", False)]


def test_a_wrong_option_exits_with_2_and_runs_nothing(capsys):
    app, _, seen = _app()

    with pytest.raises(SystemExit) as caught:
        app.main(["--n", "many"])

    assert caught.value.code == 2 and seen == []


def test_a_coroutine_function_runs_and_its_error_is_raised():
    app = nbscale.App()

    @app.local_entrypoint()
    async def main():
        raise LookupError("from the entry point")

    with pytest.raises(LookupError):
        app.main([])


def test_an_app_without_entry_point_says_so():
    with pytest.raises(nbscale.exception.InvalidError, match="local_entrypoint"):
        nbscale.App().main([])
