"""Promises about the repository itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_test_is_skipped_whatever_the_machine():
    for path in tracked("tests/*.py"):
        text = path.read_text("utf-8")
        assert not re.search(r"^@pytest\.mark\.skip\b(?!if)", text, re.M), path


def test_no_file_grows_past_one_sitting():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked("src/*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > 600
    }
    assert not long


def test_nothing_large_is_committed():
    # Weights of a bundled student may take 12 MB, all else 2.
    large = {
        p.name: p.stat().st_size
        for p in tracked()
        if p.stat().st_size > (12e6 if p.suffix == ".safetensors" else 2e6)
    }
    assert not large


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text("utf-8")
    scripts = set(re.findall(r"^\.ci/(\w+)", readme, re.M))
    assert scripts >= {"demo", "test"}
    for script in scripts:
        assert (ROOT / ".ci" / script).stat().st_mode & 0o111
