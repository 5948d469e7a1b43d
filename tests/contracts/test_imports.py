"""Naming the package must cost nothing, and the core must not drag the window in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "timm", "napari", "qtpy", "PyQt6", "sklearn", "skimage", "dask"}


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy():
    assert not HEAVY & loaded_after("import napari_histodistill")


@pytest.mark.parametrize(
    "module",
    ["slides", "students", "maps", "distill", "export", "layers", "controllers"],
)
def test_the_core_loads_no_window(module):
    window = {"napari", "qtpy", "PyQt6", "PySide6", "vispy", "magicgui"}
    assert not window & loaded_after(f"import napari_histodistill.{module}")


@pytest.mark.parametrize("module", ["slides", "geometry", "students", "cli"])
def test_opening_a_slide_or_the_help_needs_no_torch(module):
    assert not {"torch", "timm"} & loaded_after(f"import napari_histodistill.{module}")
