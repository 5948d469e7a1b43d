"""Naming the package must cost nothing, and the core must not drag the window in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import napari_histodistill

WINDOW = {"napari", "qtpy", "PyQt6", "PySide6", "vispy", "magicgui", "superqt"}
HEAVY = WINDOW | {
    *("torch", "torchvision", "timm", "openvino", "sklearn", "skimage", "scipy"),
    *("dask", "distributed", "zarr", "tifffile", "pydantic", "matplotlib", "numpy"),
}


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy():
    assert not HEAVY & loaded_after("import napari_histodistill")


def test_the_interpreter_says_so_too():
    """As a person would look: every module that was imported, with its time."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import napari_histodistill"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines()}
    assert "napari_histodistill" in imported
    assert not HEAVY & {name.partition(".")[0] for name in imported}
    # No room of the package either: each comes with the first name that needs it.
    assert not [name for name in imported if name.startswith("napari_histodistill.")]


@pytest.mark.parametrize("name", napari_histodistill.__all__)
def test_a_public_name_loads_no_torch_until_it_is_called(name):
    loaded = loaded_after(f"from napari_histodistill import {name}")
    assert not (WINDOW | {"torch", "timm", "dask", "zarr", "sklearn"}) & loaded


@pytest.mark.parametrize(
    "module",
    ["slides", "students", "maps", "distill", "export", "layers", "controllers"],
)
def test_the_core_loads_no_window(module):
    assert not WINDOW & loaded_after(f"import napari_histodistill.{module}")


@pytest.mark.parametrize("module", ["slides", "geometry", "students", "cli"])
def test_opening_a_slide_or_the_help_needs_no_torch(module):
    assert not {"torch", "timm"} & loaded_after(f"import napari_histodistill.{module}")
