"""A JupyterLab server and a headless Chromium, one of each for the whole session."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Lab
from playwright.sync_api import Browser, sync_playwright

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
START_TIMEOUT_S = 60
# What would cover the page: the news toast, and a save in the middle of a test.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server replies there."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a running JupyterLab, and the folder that it serves."""
    home, root = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("root")
    settings = home / "settings"
    for name, content in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = home / "server.log"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=tok"),
        *(f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"),
    ]
    env = {**os.environ, "HOME": str(home), "JUPYTERLAB_SETTINGS_DIR": str(settings)}
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not answers(f"{address}/api/status?token=tok"):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield address, root
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("NBSCALE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("no Chromium found: install it, or name one in NBSCALE_CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path,
            headless=True,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_lab(
    server: tuple[str, Path], browser: Browser, request: pytest.FixtureRequest
) -> Iterator[Callable[[list[str]], Lab]]:
    """Opens JupyterLab on a new notebook with the cells given, and keeps a picture of its end."""
    address, root = server
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    opened: list[Lab] = []

    def open_notebook(cells: list[str]) -> Lab:
        name = f"{request.node.name}.ipynb"
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        lab = Lab(page, address, root / name, SCREENSHOTS)
        lab.write(cells)
        opened.append(lab)
        lab.open()
        return lab

    yield open_notebook
    for lab in opened:
        lab.screenshot(f"{request.node.name}-end")
        lab.close()
