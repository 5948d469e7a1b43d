"""A student, a slide and a training that the faults happen to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.workplace import Workplace, make_workplace, write_slide

if TYPE_CHECKING:
    from pathlib import Path


# Limits on memory and files, pipes with names, small disks: made by POSIX's means.
collect_ignore_glob = ["*.py"] if sys.platform == "win32" else []


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Workplace:
    """Return what commands work on."""
    return make_workplace(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def small_slide(tmp_path_factory) -> Path:
    """Return a slide of 320 × 320 px: a run over it is all loading."""
    folder = tmp_path_factory.mktemp("slides")
    return write_slide(folder / "small.ome.tif", cells=(8, 8))
