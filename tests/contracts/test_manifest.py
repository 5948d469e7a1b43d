"""The plugin's table of contents is valid, and everything it names exists."""

from __future__ import annotations

import importlib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

import napari_histodistill
from napari_histodistill.layers.worklist import FILE_ENDINGS
from napari_histodistill.slides.opening import OPENSLIDE_NAMES, TIFF_NAMES

MANIFEST = Path(napari_histodistill.__file__).with_name("napari.yaml")


def contributions() -> dict[str, Any]:
    return yaml.safe_load(MANIFEST.read_text("utf-8"))["contributions"]


def commands() -> list[dict[str, str]]:
    return contributions()["commands"]


@pytest.mark.gui
def test_npe2_accepts_the_manifest():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "napari-histodistill"


def test_widgets_and_samples_are_offered():
    assert contributions()["widgets"]
    assert contributions()["readers"]
    assert contributions()["sample_data"]


def test_every_name_that_we_read_is_offered_and_no_other():
    (reader,) = contributions()["readers"]
    endings = {f"*{ending}" for ending in FILE_ENDINGS}
    assert set(reader["filename_patterns"]) == endings | {"http*.zarr[?#]*"}
    named = {name.lower() for name in (*TIFF_NAMES, *OPENSLIDE_NAMES)}
    assert named <= set(FILE_ENDINGS), "what is opened by its name"


def test_every_panel_and_command_is_in_a_menu_that_napari_has():
    there = {
        item["command"] for menu in contributions()["menus"].values() for item in menu
    }
    assert {w["command"] for w in contributions()["widgets"]} <= there
    samples = {s["command"] for s in contributions()["sample_data"]}
    (reader,) = contributions()["readers"]
    assert {c["id"] for c in commands()} == there | samples | {reader["command"]}


@pytest.mark.gui
def test_the_menus_take_what_is_contributed_to_them():
    from napari._app_model.constants._menus import is_menu_contributable

    assert all(is_menu_contributable(menu) for menu in contributions()["menus"])


def test_the_icon_is_a_small_picture_that_comes_along():
    icon = yaml.safe_load(MANIFEST.read_text("utf-8"))["icon"]
    package, _, name = icon.partition(":")
    picture = resources.files(package).joinpath(name).read_text("utf-8")
    assert picture.startswith("<svg ")
    assert len(picture) < 5000


@pytest.mark.parametrize("command", commands(), ids=lambda c: c["id"])
def test_commands_without_qt_resolve_where_qt_is_missing(command):
    module, _, name = command["python_name"].partition(":")
    if ".widgets." in module:
        pytest.importorskip("qtpy", reason="a widget's command needs Qt")
    assert callable(getattr(importlib.import_module(module), name))
