"""The plugin's table of contents is valid, and everything it names exists."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

import napari_histodistill

MANIFEST = Path(napari_histodistill.__file__).with_name("napari.yaml")


def commands() -> list[dict[str, str]]:
    return yaml.safe_load(MANIFEST.read_text("utf-8"))["contributions"]["commands"]


@pytest.mark.gui
def test_npe2_accepts_the_manifest():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "napari-histodistill"


def test_widgets_and_samples_are_offered():
    contributions = yaml.safe_load(MANIFEST.read_text("utf-8"))["contributions"]
    assert contributions["widgets"]
    assert contributions["readers"]
    assert contributions["sample_data"]


@pytest.mark.parametrize("command", commands(), ids=lambda c: c["id"])
def test_commands_without_qt_resolve_where_qt_is_missing(command):
    module, _, name = command["python_name"].partition(":")
    if ".widgets." in module:
        pytest.importorskip("qtpy", reason="a widget's command needs Qt")
    assert callable(getattr(importlib.import_module(module), name))
