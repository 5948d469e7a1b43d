"""The tree as the contract tests see it: its files, its modules, its history."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "napari_histodistill"


def git(*arguments: str) -> str:
    """Return what git prints; skip the test where there is no checkout to ask."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8"
        )
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    return done.stdout


def tracked(*patterns: str) -> list[Path]:
    """Return the files of the repository that match, or all of them."""
    listing = git("ls-files", "-z", *patterns)
    found = [ROOT / name for name in listing.split("\0") if name]
    # A file deleted a moment ago, and not yet committed, is listed still.
    return [path for path in found if path.exists()]


def modules() -> list[Path]:
    """Return every module of the package, committed or not."""
    return sorted(PACKAGE.rglob("*.py"))


def inside(path: Path) -> str:
    """Return a path as the repository spells it, on every platform."""
    return path.relative_to(ROOT).as_posix()
