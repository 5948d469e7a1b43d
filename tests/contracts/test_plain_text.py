"""Text from strangers is never obeyed: labels and tooltips are made in one place only.

Qt shows as HTML whatever looks like HTML, in every label that was not told otherwise
and in every tooltip, which cannot be told. ``widgets/shared/controls.py`` has a label
that shows plain text, a function that escapes tooltips, and a message box; all of the
window uses them. magicgui's labels and tooltips are Qt's: ``widgets/shared/forms.py``
makes what magicgui makes.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.contracts.repository import PACKAGE, inside

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = PACKAGE / "widgets" / "shared" / "controls.py"
FORMS = PACKAGE / "widgets" / "shared" / "forms.py"

SETTERS = frozenset((
    "setToolTip", "setWhatsThis", "setInformativeText", "setTextFormat", "setHtml",
    "setMarkdown", "insertHtml", "setLabelText", "showText",
))  # fmt: skip
"""Methods whose text Qt may take for HTML."""

MAKERS = frozenset((
    "QLabel", "QMessageBox", "QErrorMessage", "QProgressDialog", "QTextEdit",
    "QTextBrowser", "QWhatsThis", "QToolTip",
    "Container", "Dialog", "Label", "TextEdit", "create_widget", "guiclass", "magicgui",
    "request_values",
))  # fmt: skip
"""Widgets, of Qt and of magicgui, whose text Qt may take for HTML."""


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _calls_of(call: ast.Call) -> Iterator[str]:
    name = _name(call.func)
    if name in SETTERS or name in MAKERS:
        yield name
    whole = isinstance(call.func, ast.Attribute) and _name(call.func.value)
    if whole in MAKERS:  # QMessageBox.question(…)
        yield f"{whole}.{name}"
    elif whole == "QInputDialog":
        labels = [
            *call.args[2:3],
            *(k.value for k in call.keywords if k.arg == "label"),
        ]
        if not all(isinstance(label, ast.Constant) for label in labels):
            yield f"QInputDialog.{name}"
    if name == "setItemData" and any("ToolTipRole" in ast.dump(a) for a in call.args):
        text = call.args[1]
        if not (isinstance(text, ast.Call) and _name(text.func) == "plain_tip"):
            yield "ToolTipRole"


def past_the_helper(tree: ast.AST) -> list[str]:
    """Return what is made or set past ``controls.py``, as ``name (line)``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += [f"{name} ({node.lineno})" for name in _calls_of(node)]
        elif isinstance(node, ast.ClassDef):
            bases = {_name(base) for base in node.bases} & MAKERS
            found += [f"class of {base} ({node.lineno})" for base in bases]
        elif isinstance(node, ast.Assign) and _name(node.targets[0]) == "tooltip":
            found.append(f"tooltip ({node.lineno})")
        elif isinstance(node, ast.Assign) and _name(node.targets[0]) == "status":
            value = node.value  # napari's status bar is a label of that kind
            if not (isinstance(value, ast.Call) and _name(value.func) == "plain_name"):
                found.append(f"status ({node.lineno})")
    return found


def test_labels_and_tooltips_are_made_in_one_place():
    found = {
        inside(path): names
        for path in (PACKAGE / "widgets").rglob("*.py")
        if path not in {HOME, FORMS}
        and (names := past_the_helper(ast.parse(path.read_text("utf-8"))))
    }
    assert not found, f"use the functions of {inside(HOME)}: {found}"
    assert past_the_helper(ast.parse(HOME.read_text("utf-8")))  # it sees what it seeks


@pytest.mark.parametrize(
    "code",
    [
        "button.setToolTip(title)",
        "label = QLabel(title)",
        "label = QtWidgets.QLabel(title)",
        "class Words(QLabel): ...",
        "QMessageBox.question(self, 'Close?', title)",
        "box = QMessageBox(self)",
        "QInputDialog.getText(self, 'Name', title)",
        "combo.setItemData(0, title, Qt.ItemDataRole.ToolTipRole)",
        "QToolTip.showText(where, title)",
        "box = create_widget(annotation=str, options={'tooltip': title})",
        "form = Container(widgets=[box], labels=True)",
        "class Mine(Container): ...",
        "box.tooltip = title",
        "request_values(values, title=title)",
        "viewer.status = title",
    ],
)
def test_a_way_past_the_helper_is_seen(code):
    assert past_the_helper(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "set_tip(button, title)",
        "label = PlainLabel(title)",
        "box = editor(str, title)",
        "QInputDialog.getText(self, 'Name', 'What is it?')",
        "combo.setItemData(0, plain_tip(title), Qt.ItemDataRole.ToolTipRole)",
        "viewer.status = plain_name(title)",
        "button.setText(title)",
    ],
)
def test_the_helper_is_let_through(code):
    assert not past_the_helper(ast.parse(code))
