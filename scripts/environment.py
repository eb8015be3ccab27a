"""The project's own environment in `.venv`: made once, renewed when its recipe changes.

Usage: `python scripts/environment.py EXTRA...`, with any Python that the project supports. Uses
only the standard library, because it runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "nbscale-recipe"
OLDEST_PYTHON = (3, 11)
# What npm builds. An editable install copies the first into the environment, so a new build needs a
# new install.
BUILT = [
    ROOT / "extension" / "nbscale_lab" / "labextension",
    ROOT / "kernel_magic" / "nbscale" / "notebook" / "static",
]
RECIPE = [
    "pyproject.toml",
    "package.json",
    "package-lock.json",
    "install.json",
    "tsconfig*.json",
    "jupyter-config/*",
    "labextension/*.mjs",
    "labextension/src/**/*",
    "labextension/style/**/*",
]


def front_end_digest() -> str:
    """What the installed files are made from, as one hexadecimal digest."""
    digest = hashlib.sha256()
    for pattern in RECIPE:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def run(*command: str) -> None:
    """Run a command in the root of the checkout and end with its status when it fails."""
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        sys.exit(f"environment: {' '.join(command)} failed with status {status}")


def main() -> None:
    """Make or renew `.venv` so that it holds the package and the extras asked for."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            f"environment: Python {sys.version.split()[0]} is too old: 3.11 is the oldest. "
            "Name another with `make PYTHON=python3.12 ...`."
        )
    if shutil.which("npm") is None:
        sys.exit("environment: npm is missing; install Node.js 20 or later to build the panel.")

    digest = front_end_digest()
    had_digest, *had_extras = STAMP.read_text().split() if STAMP.exists() else [""]
    wanted = sorted({*sys.argv[1:], *had_extras})
    if had_digest == digest and wanted == had_extras:
        return

    python = VENV / "bin" / "python"
    if not python.exists():
        print("environment: making .venv", flush=True)
        run(sys.executable, "-m", "venv", "--clear", str(VENV))
    if had_digest != digest:
        for folder in BUILT:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"environment: installing nbscale[{','.join(wanted)}] into .venv (minutes)", flush=True)
    run(str(python), "-m", "pip", "install", "--quiet", "-e", f".[{','.join(wanted)}]")
    STAMP.write_text(" ".join([digest, *wanted]))


if __name__ == "__main__":
    main()
