"""The dozen names at the package's top: lazy, typed, documented, and true."""

from __future__ import annotations

import ast
import doctest
import inspect
import pickle
import pkgutil
import pydoc
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import napari_histodistill

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "napari_histodistill"
NAMES = napari_histodistill.__all__
MODULES = {found.name for found in pkgutil.iter_modules(napari_histodistill.__path__)}


def fresh(code: str) -> str:
    """Return what a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """Stand in a folder that looks like a clone, and may be written to."""
    for name in ("training", "sample_data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_about_a_dozen_names_in_order():
    assert sorted(NAMES) == NAMES
    assert 10 <= len(NAMES) <= 16


def test_what_a_type_checker_sees_is_what_runs():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (checking,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )
    seen = {
        alias.name: node.module
        for node in checking.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == NAMES
    for name, module in seen.items():
        found = getattr(napari_histodistill, name)
        assert found is getattr(import_module(module), name)
        assert found.__module__ == module, "the name should lead to its own home"


def test_no_name_hides_a_room():
    assert not set(NAMES) & MODULES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_typed_and_documented(name):
    found = getattr(napari_histodistill, name)
    text = inspect.getdoc(found)
    assert text
    assert "Examples\n--------" in text
    assert re.search(r"^Raises\n-+$", text, re.M)
    if inspect.isfunction(found):
        assert re.search(r"^(Returns|Yields)\n-+$", text, re.M)
        signature = inspect.signature(found)
        given = [signature.return_annotation]
        given += [p.annotation for p in signature.parameters.values()]
        assert inspect.Signature.empty not in given


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_in_the_pages(name):
    pages = (ROOT / "README.md", PACKAGE / "ARCHITECTURE.md")
    shown = "".join(page.read_text("utf-8") for page in pages)
    assert re.search(rf"\b{name}\b", shown)


@pytest.mark.parametrize("name", ["napari_histodistill", *NAMES])
def test_the_examples_run(name, clone):
    """Offline, in an empty folder, as printed."""
    found = getattr(napari_histodistill, name, napari_histodistill)
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(found, name, globs={})
    said: list[str] = []
    result = doctest.DocTestRunner().run(example, out=said.append)
    assert result.attempted > 0
    assert not result.failed, "".join(said)


def test_a_star_import_brings_the_names_and_nothing_else():
    names: dict[str, object] = {}
    exec("from napari_histodistill import *", names)
    assert set(names) - {"__builtins__"} == set(NAMES)


def test_completion_offers_names_and_rooms_but_no_window():
    offered = dir(napari_histodistill)
    assert set(NAMES) | {"slides", "maps", "errors", "__version__"} <= set(offered)
    code = (
        "import sys, napari_histodistill as nh\n"
        "[getattr(nh, name) for name in dir(nh)]\n"
        "print({'napari', 'qtpy', 'PyQt6', 'PySide6'} & set(sys.modules))"
    )
    assert fresh(code) == "set()"


def test_rooms_are_there_without_an_import_of_their_own():
    code = (
        "import napari_histodistill as nh\n"
        "print(nh.slides.open_slide is nh.open_slide,\n"
        "      nh.students.load_student is nh.load_student,\n"
        "      nh.maps.class_map is nh.class_map,\n"
        "      nh.geometry.Region is nh.Region, nh.errors.InputError.exit_code)"
    )
    assert fresh(code) == "True True True True 2"


@pytest.mark.parametrize("name", ["open_a_slide", "torch", "_private", "__wrapped__"])
def test_what_is_not_there_is_missed_in_the_usual_way(name):
    assert not hasattr(napari_histodistill, name)
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(napari_histodistill, name)


def test_names_travel_to_other_processes():
    for name in NAMES:
        found = getattr(napari_histodistill, name)
        assert pickle.loads(pickle.dumps(found)) is found
    region = napari_histodistill.Region(y=1, x=2, height=3, width=4)
    assert pickle.loads(pickle.dumps(region)) == region


def test_help_shows_every_name():
    text = pydoc.plain(pydoc.render_doc(napari_histodistill))
    assert not [name for name in NAMES if name not in text]


def test_the_map_of_rooms_is_complete():
    rooms = {m.name for m in pkgutil.iter_modules([str(PACKAGE)]) if m.ispkg}
    table = napari_histodistill.__doc__ or ""
    shown = set(re.findall(r"^``(\w+)`` ", table, re.M))
    assert shown == rooms
    functions = set(re.findall(r":(?:func|class):`(\w+)`", table))
    assert functions == set(NAMES)


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
