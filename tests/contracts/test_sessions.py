"""A session is written by its own methods: windows call them and assign nothing.

Every module of ``widgets`` is read as a syntax tree. Found is what is assigned to
(``=``, ``+=``, ``x[k] =``, ``del``, ``setattr``), where the way to it leads through
something called ``session``: ``self.bench.session.region = …``,
``session.live.labels[…] = …``, or a variable that was given a session
(``state = self.bench.session``). A method of a list or a dictionary in a session that
changes it (``append``, ``update`` …) counts as well.
"""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import napari_histodistill

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDGETS = Path(napari_histodistill.__file__).parent / "widgets"
SESSIONS = frozenset(("session", "_session"))
CHANGING = frozenset(
    ("append", "extend", "insert", "update", "setdefault", "sort", "reverse", "popitem")
)


def links(node: ast.expr) -> Iterator[str]:
    """Yield the names on the way to something: ``a.b[c].d`` → d, b, a."""
    while True:
        if isinstance(node, ast.Attribute):
            yield node.attr
            node = node.value
        elif isinstance(node, (ast.Subscript, ast.Starred)):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            if isinstance(node, ast.Name):
                yield node.id
            return


def pairs(targets: list[ast.expr], value: ast.expr | None) -> Iterator[tuple]:
    """Yield what is assigned to with what it gets, where tuples are taken apart."""
    for target in targets:
        if isinstance(target, (ast.Tuple, ast.List)):
            parts = (
                value.elts
                if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts)
                else [None] * len(target.elts)
            )
            for one, its in zip(target.elts, parts, strict=True):
                yield from pairs([one], its)
        else:
            yield target, value


def targets_of(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, (ast.Assign, ast.Delete)):
        return node.targets
    if isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.For)):
        return [node.target]
    return []


def sessions_in(tree: ast.AST) -> frozenset[str]:
    """Return the names that stand for a session: its own, and variables given one."""
    found = set(SESSIONS)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target, value in pairs(targets_of(node), node.value):
                given = value is not None and next(links(value), "") in SESSIONS
                if isinstance(target, ast.Name) and given:
                    found.add(target.id)
    return frozenset(found)


def writes_to_sessions(code: str) -> list[str]:
    """Return "line: code" of every write to a session that is not a method's."""
    tree = ast.parse(textwrap.dedent(code))
    sessions = sessions_in(tree)
    found = []
    for node in ast.walk(tree):
        value = getattr(node, "value", None)
        for target, _ in pairs(targets_of(node), value):
            # The session itself, put into a variable or on a bench, is not written to.
            inner = target.value if hasattr(target, "value") else None
            if inner is not None and sessions & set(links(inner)):
                found.append(node)
        if isinstance(node, ast.Call) and _changes(node, sessions):
            found.append(node)
    return [f"{node.lineno}: {ast.unparse(node)}" for node in found]


def _changes(node: ast.Call, sessions: frozenset[str]) -> bool:
    function = node.func
    if isinstance(function, ast.Name):
        held = node.args[:1] if function.id in ("setattr", "delattr") else []
        return any(sessions & set(links(argument)) for argument in held)
    if not isinstance(function, ast.Attribute) or function.attr not in CHANGING:
        return False
    # session.update(…) is a method of the session; session.x.update(…) is not.
    owner = function.value
    return isinstance(owner, ast.Attribute) and bool(sessions & set(links(owner.value)))


@pytest.mark.parametrize(
    "code",
    [
        "self.bench.session.region = region",
        "session = self.bench.session\nsession.shape = None",
        "state = self.bench.session\nstate.trained = ()",
        "layer, s = self.layer, self.bench.session\ns.view = view",
        "self.session.live.labels[0] = 1",
        "self.bench.session.count += 1",
        "a, self.bench.session.b = 1, 2",
        "del self.bench.session.typed['x']",
        "setattr(self.bench.session, 'x', 1)",
        "self.bench.session.partners.append(p)",
    ],
)
def test_a_write_is_found(code):
    assert writes_to_sessions(code)


@pytest.mark.parametrize(
    "code",
    [
        "self.session = make()",
        "session = self.bench.session\nsession.choose_region(region)",
        "layer.data = self.bench.session.shape",
        "live = self.bench.session.live\nself.live = live",
        "self.bench.session.update(1)",
        "x = session.region\nx = 2",
    ],
)
def test_reading_and_calling_passes(code):
    assert writes_to_sessions(code) == []


@pytest.mark.parametrize(
    "path", sorted(WIDGETS.rglob("*.py")), ids=lambda p: str(p.relative_to(WIDGETS))
)
def test_windows_write_to_no_session(path):
    assert writes_to_sessions(path.read_text("utf-8")) == []
