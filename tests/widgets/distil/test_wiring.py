"""How the panel is wired: it only asks its session, and finds others by their names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

import napari_histodistill
from napari_histodistill.widgets import distil
from napari_histodistill.widgets.distil.bench import PLUGIN, Panel

pytestmark = pytest.mark.gui

MODULES = sorted(Path(distil.__file__).parent.glob("*.py"))


def written(tree):
    """Yield the targets of all assignments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from ast.walk(target)
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            yield from ast.walk(node.target)


def is_of_a_session(node):
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
        return False
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return name == "session"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_session_is_written_through_its_methods_only(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node.lineno for node in written(tree) if is_of_a_session(node)]
    assert not found, f"{path.name}: lines {found} write to a session"


def test_a_write_to_a_session_would_be_seen():
    for code in ("session.x = 1", "self.bench.session.x, y = 1, 2", "session.x += 1"):
        assert any(map(is_of_a_session, written(ast.parse(code)))), code


def test_other_panels_are_called_as_the_manifest_calls_them():
    path = Path(napari_histodistill.__file__).with_name("napari.yaml")
    manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = {w["display_name"] for w in manifest["contributions"]["widgets"]}
    assert {panel.value for panel in Panel} <= names
    assert manifest["name"] == PLUGIN
