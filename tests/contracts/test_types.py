"""What a panel's shell, bench and session hand around has a type."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import napari_histodistill

SRC = Path(napari_histodistill.__file__).parent
TYPED = frozenset(("dock.py", "bench.py", "session.py", "slide_dock.py"))


def files() -> list[Path]:
    rooms = (SRC / "widgets", SRC / "controllers")
    return sorted(p for room in rooms for p in room.rglob("*.py") if p.name in TYPED)


def uses_of_any(code: str) -> list[int]:
    """Return the lines on which the name ``Any`` stands, also in a quoted type."""
    found = []
    for node in ast.walk(ast.parse(code)):
        names = {
            getattr(node, "id", None),
            getattr(node, "attr", None),
            getattr(node, "name", None),
        }
        quoted = isinstance(node, ast.Constant) and node.value == "Any"
        if "Any" in names or quoted:
            found.append(getattr(node, "lineno", 0))
    return sorted(set(found))


@pytest.mark.parametrize(
    "code",
    [
        "from typing import Any\n",
        "import typing\nx: typing.Any = 1\n",
        "def f(x: 'Any') -> None: ...\n",
        "x: dict[str, Any] = {}\n",
    ],
)
def test_any_is_found(code):
    assert uses_of_any(code)


def test_a_word_in_a_text_is_not_a_type():
    assert not uses_of_any('"""Any of these."""\nanything = 1\n')


def test_there_is_something_to_look_at():
    assert len(files()) >= 9


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_docks_benches_and_sessions_are_typed(path):
    assert uses_of_any(path.read_text("utf-8")) == []
