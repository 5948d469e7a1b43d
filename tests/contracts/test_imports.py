"""Naming the package must cost nothing, and the core must not drag the window in."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"torch", "timm", "napari", "qtpy", "PyQt6", "sklearn", "skimage", "dask"}


WINDOW = {"napari", "qtpy", "PyQt6", "PySide6", "vispy", "magicgui"}

REPORT = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(json.dumps([name, sorted(sys.modules)]))
"""


def loaded_after(*names: str) -> dict[str, set[str]]:
    """Return what is loaded after each of some modules, imported one after another.

    One process serves them all: as long as what is forbidden was loaded by none before,
    the module that loads it is the one to blame.
    """
    command = [sys.executable, "-c", REPORT, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _ in rows] == list(names)
    return {name: set(modules) for name, modules in rows}


def of_the_package(*names: str) -> list[str]:
    return [f"napari_histodistill.{name}" for name in names]


def test_importing_the_package_loads_nothing_heavy():
    (loaded,) = loaded_after("napari_histodistill").values()
    assert not HEAVY & loaded


def test_the_core_loads_no_window():
    core = ("slides", "students", "maps", "distill", "export", "layers", "controllers")
    for name, loaded in loaded_after(*of_the_package(*core)).items():
        assert not WINDOW & loaded, name


def test_opening_a_slide_or_the_help_needs_no_torch():
    light = of_the_package("slides", "geometry", "students", "cli")
    for name, loaded in loaded_after(*light).items():
        assert not {"torch", "timm"} & loaded, name
