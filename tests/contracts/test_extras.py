"""The extras: a window can be had without the Qt binding that is under the GPL."""

from __future__ import annotations

import re
import tomllib

from tests.contracts.repository import ROOT, modules

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
BINDING = re.compile(r"pyqt|pyside", re.IGNORECASE)
OWN = re.compile(r"napari-histodistill\[([^]]+)\]")
NOT_IN_ALL = {"all", "all-but-qt", "bench", "test", "test-core"}


def resolved(extra: str) -> set[str]:
    """Return what an extra asks for, extras of this package taken apart."""
    found = set()
    for requirement in EXTRAS[extra]:
        own = OWN.match(requirement)
        if own is None:
            found.add(requirement)
        else:
            for name in own[1].split(","):
                found |= resolved(name)
    return found


def bindings(extra: str) -> set[str]:
    return {asked for asked in resolved(extra) if BINDING.search(asked)}


def test_without_a_binding_there_is_none():
    assert not bindings("all-but-qt")
    assert not bindings("window")
    assert bindings("pyside6") == {
        "napari[pyside6]>=0.9",
        "PySide6!=6.12.0; python_version < '3.12'",
    }
    assert bindings("qt") == bindings("all") == {"napari[pyqt6]>=0.9"}


def test_the_window_asks_for_what_it_uses():
    text = "\n".join(path.read_text("utf-8") for path in modules())
    asked = {re.split(r"[<>=!;\[ ]", one)[0] for one in EXTRAS["window"]}
    unused = {
        name
        for name in asked - {"npe2"}  # it reads our napari.yaml
        if not re.search(rf"^\s*(from|import) {name}\b", text, re.MULTILINE)
    }
    assert asked > {"napari", "npe2"}
    assert not unused


def test_all_but_the_binding_is_all_the_same():
    everything = set().union(
        *(resolved(extra) for extra in EXTRAS if extra not in NOT_IN_ALL)
    )
    wanted = {asked for asked in everything if not BINDING.search(asked)}
    assert resolved("all-but-qt") == wanted
    assert resolved("all") == wanted | bindings("qt")


def test_the_readme_says_what_the_licence_is():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "PyQt6 is under the GPL-3.0" in readme
    assert ".[all-but-qt,pyside6]" in readme
