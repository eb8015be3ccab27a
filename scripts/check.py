"""`make test`: every check, each run even when one before it failed, and one summary at the end.

The last lines read as pytest's own, counting the tests of all its sessions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
REPORTS = ROOT / "build" / "reports"
# ipykernel 6 lies in a folder of its own, in front of the environment's ipykernel 7 for one step.
IPYKERNEL6 = ROOT / ".venv-ipykernel6"
IPYKERNEL6_PACKAGES = ("ipykernel==6.31.*", "nest-asyncio")
# Not `npm ci`: it refuses a lock file without the optional binaries of every other platform, which
# a lock written through a partial mirror lacks. `--no-save` keeps to the lock's versions too.
NPM_INSTALL = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Step:
    """One check: what it is called, what it runs, and how it ended."""

    name: str
    command: list[str]
    env: dict[str, str] | None = None
    status: int = 0
    seconds: float = 0.0

    def run(self) -> None:
        """Run the command with its output shown, and keep its status and time."""
        print(f"\n=== {self.name}: {' '.join(self.command)}", flush=True)
        started = time.perf_counter()
        try:
            self.status = subprocess.run(
                self.command,
                cwd=ROOT,
                env={**os.environ, **(self.env or {})},
                stdin=subprocess.DEVNULL,
            ).returncode
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            self.status = 127
        self.seconds = time.perf_counter() - started


def chromium() -> str | None:
    """The path of a Chromium or Chrome, if there is one."""
    named = os.environ.get("NBSCALE_CHROMIUM")
    return named or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def ensure_chromium() -> None:
    """Install Chromium where it is missing and we may; say what to do where we may not."""
    if chromium():
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        print("check: installing Chromium with apt-get", flush=True)
        packages = ["chromium", "fonts-dejavu-core"]
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False)
    if not chromium():
        print(
            "check: no Chromium found, so the browser tests will fail. Install it (on Debian: "
            "`sudo apt-get install chromium`) or name one in NBSCALE_CHROMIUM.",
            file=sys.stderr,
        )


def pytest_step(name: str, *arguments: str, env: dict[str, str] | None = None) -> Step:
    """A pytest session that leaves its counts in the reports folder."""
    report = REPORTS / f"{name.replace(' ', '-')}.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
    return Step(name, command, env)


def steps() -> list[Step]:
    """Every check, the quick ones first."""
    python = [sys.executable, "-m"]
    checks = [
        Step("ruff check", [str(BIN / "ruff"), "check", "."]),
        Step("ruff format", [str(BIN / "ruff"), "format", "--check", "."]),
        Step("mypy", [*python, "mypy"]),
        Step("npm install", NPM_INSTALL),
        Step("eslint", ["npm", "run", "--silent", "lint"]),
        Step("tsc", ["npm", "run", "--silent", "typecheck"]),
        Step("front-end tests", ["npm", "run", "--silent", "test"]),
        pytest_step("unit and integration", "--ignore=tests/browser", "tests"),
    ]
    install6 = [*python, "pip", "install", "--quiet", "--upgrade", "--no-deps"]
    checks += [
        Step("install ipykernel 6", [*install6, f"--target={IPYKERNEL6}", *IPYKERNEL6_PACKAGES]),
        pytest_step(
            "ipykernel 6",
            "tests/notebook",
            "tests/notebooks",
            env={"PYTHONPATH": str(IPYKERNEL6), "NBSCALE_TEST_IPYKERNEL": "6"},
        ),
        pytest_step("notebooks", "-p", "no:cacheprovider", "--nbval-lax", "notebooks"),
        pytest_step("browser", "tests/browser"),
    ]
    return checks


def count_tests() -> tuple[dict[str, int], float]:
    """How many tests of all sessions ended how, and the seconds they took."""
    counts = dict.fromkeys(("failed", "passed", "skipped", "errors"), 0)
    seconds = 0.0
    for report in sorted(REPORTS.glob("*.xml")):
        for suite in ET.parse(report).getroot().iter("testsuite"):
            failed, errors, skipped, total = (
                int(suite.get(name, 0)) for name in ("failures", "errors", "skipped", "tests")
            )
            counts["failed"] += failed
            counts["errors"] += errors
            counts["skipped"] += skipped
            counts["passed"] += total - failed - errors - skipped
            seconds += float(suite.get("time", 0))
    return counts, seconds


def summarise(done: list[Step]) -> None:
    """Print how each step ended, then the tests of all sessions in one line as pytest would."""
    print("\n=== summary")
    for step in done:
        verdict = "ok" if step.status == 0 else f"FAILED ({step.status})"
        print(f"{step.name:<22} {verdict:<14} {step.seconds:6.1f} s")
    counts, seconds = count_tests()
    failed_steps = sum(step.status != 0 for step in done)
    if failed_steps:
        print(f"{failed_steps} of {len(done)} steps failed")
    parts = [f"{n} {name}" for name, n in counts.items() if n or name == "passed"]
    line = f" {', '.join(parts)} in {seconds:.2f}s "
    print(line.center(78, "="), flush=True)


def main() -> int:
    """Run every step; 1 when any failed."""
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    ensure_chromium()
    done = steps()
    for step in done:
        step.run()
    summarise(done)
    return int(any(step.status for step in done))


if __name__ == "__main__":
    sys.exit(main())
