"""The advanced settings: a form with a row for each, and its wiring.

The form is built from what ``controllers/distil/settings.py`` describes; magicgui makes
its editors.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import (
    QGridLayout,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.controllers.distil.settings import (
    WHOLE,
    Draft,
    say_changes,
    say_group,
)
from napari_histodistill.distill.recipes.form import (
    Field,
    FieldGroup,
    FieldPath,
    read,
    text_of,
    value_at,
)
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.steps import Step, TrainStep
from napari_histodistill.widgets.shared.controls import (
    Hint,
    explain,
    make_bold,
    push,
    row,
    set_tip,
    stack,
    tool,
)
from napari_histodistill.widgets.shared.forms import editor

NOTHING = "as it comes"
"""What stands where a setting is left empty."""

EDITOR_PX = 132
TIP = "Every setting of the training, starting from the preset."


class AdvancedForm(QWidget):
    """Every setting of the recipe, folded by group; layout only.

    Attributes
    ----------
    typed : Signal(object, str)
        A field's description, and what stands in it now.
    reset : Signal(object)
        Path of a field to put back to the preset's value; None for all.
    """

    typed = Signal(object, str)
    reset = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.summary = Hint()
        self.reset_all = push("Reset all", "Put every setting back to the preset's.")
        self.reset_all.clicked.connect(lambda: self.reset.emit(None))
        self._rows: dict[object, _Row] = {}
        self._groups: list[tuple[Step, FieldGroup]] = []
        self._form: FieldGroup | None = None
        self._inside = QWidget()
        self._column = stack(self, row(self.summary, self.reset_all), self._inside)

    def row_of(self, *path: str | int) -> _Row:
        """Return the line of a setting."""
        return self._rows[path]

    def show_draft(self, draft: Draft) -> None:
        """Show what stands in every field, what differs, and what cannot be used."""
        form = draft.form
        if form != self._form:
            self._build(form)
        problems, changed = draft.problems(), draft.changed
        for line in self._rows.values():
            preset = text_of(line.field, value_at(draft.base, line.field.path))
            line.show_text(draft.text(line.field))
            line.mark(
                changed=line.field.path in changed,
                preset=preset,
                problem=problems.get(line.field.path, ""),
            )
        for step, group in self._groups:
            mine = {f.path for f in group.all_fields()}
            step.say(say_group(len(mine & changed), len(mine & problems.keys())))
        self.summary.setText(
            f"▲ {problems[WHOLE]}"
            if WHOLE in problems
            else f"{say_changes(len(changed))} from the preset."
        )
        self.reset_all.setEnabled(bool(changed))

    def _build(self, form: FieldGroup) -> None:
        self._form, self._rows, self._groups = form, {}, []
        inside = QWidget()
        self._fill(stack(inside), form)
        self._column.replaceWidget(self._inside, inside)
        self._inside.hide()
        self._inside.deleteLater()
        self._inside = inside

    def _fill(self, column: QVBoxLayout, group: FieldGroup) -> None:
        grid = QGridLayout()
        grid.setHorizontalSpacing(4)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(0, 1)
        for k, field in enumerate(group.fields):
            line = _Row(field)
            self._rows[field.path] = line
            line.editor.changed.connect(partial(self._edited, line))
            line.back.clicked.connect(partial(self._back, field.path))
            grid.addWidget(line.label, 2 * k, 0)
            grid.addWidget(line.editor.native, 2 * k, 1)
            grid.addWidget(line.back, 2 * k, 2)
            grid.addWidget(line.complaint, 2 * k + 1, 0, 1, 3)
        column.addLayout(grid)
        for inside in group.groups:
            step = Step(inside.title)
            set_tip(step.button, inside.help or "Fold or open this group.")
            self._fill(step.column, inside)
            step.button.setChecked(False)
            self._groups.append((step, inside))
            column.addWidget(step)

    def _edited(self, line: _Row, _value: object) -> None:
        self.typed.emit(line.field, line.text())

    def _back(self, path: FieldPath, *_: object) -> None:
        self.reset.emit(path)


class _Row:
    """One setting: its name, its editor, the way back, and what is wrong."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.label = Hint(field.title)
        self.back = tool("↺")
        keep = self.back.sizePolicy()
        keep.setRetainSizeWhenHidden(True)
        self.back.setSizePolicy(keep)
        self.complaint = Hint()
        words = _tip(field)
        set_tip(self.label, words)
        choices = [(NOTHING, ""), *((c, c) for c in field.choices)]
        self.editor = editor(
            _type_of(field), words, choices=choices if _may_be_none(field) else ()
        )
        self.editor.native.setFixedWidth(EDITOR_PX)
        if field.optional and not field.choices:
            self.editor.native.setPlaceholderText(NOTHING)

    def text(self) -> str:
        """Return what stands in the editor."""
        value = self.editor.value
        return value if isinstance(value, str) else text_of(self.field, value)

    def show_text(self, text: str) -> None:
        """Put a text into the editor; a cursor in it stays where it is."""
        kind = _type_of(self.field)
        value = text if kind is str else read(self.field, text)
        if value != self.editor.value:
            with self.editor.changed.blocked():
                self.editor.value = value
            if kind is str and not self.field.choices:
                self.editor.native.setCursorPosition(0)  # its beginning tells most

    def mark(self, *, changed: bool, preset: str, problem: str) -> None:
        """Show whether it differs from the preset, and what is wrong with it."""
        make_bold(self.label, bold=changed)
        self.label.setText(f"● {self.field.title}" if changed else self.field.title)
        self.back.setVisible(changed)
        set_tip(self.back, f"Back to the preset's: {preset or 'empty'}")
        self.complaint.say(f"▲ {problem}" if problem else "")


def _type_of(field: Field) -> Any:
    """Return the type for which magicgui makes a setting's editor.

    Numbers are text, too: a spin box would clip what cannot be used, where a sentence
    beside it says why.
    """
    if field.kind == "switch":
        return bool
    choice = field.kind == "choice" and not _may_be_none(field)
    return Literal[field.choices] if choice else str


def _may_be_none(field: Field) -> bool:
    """Whether it is a choice, and to choose nothing is one of them."""
    return field.kind == "choice" and field.optional


def _tip(field: Field) -> str:
    parts = [field.help, f"{field.bounds}." if field.bounds else ""]
    return " ".join(p[:1].upper() + p[1:] for p in parts if p)


class Advancing(QObject):
    """Shows the preset's settings, and keeps what is changed by hand."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self.form: AdvancedForm | None = None
        step.advanced.toggled.connect(self._opened)

    def show(self) -> None:
        """Draw the form from the session."""
        session, button = self.bench.session, self.step.advanced
        why, number = session.why_no_settings, session.changed_settings
        explain(button, TIP, why)
        button.setText(f"Advanced ({number})…" if number else "Advanced…")
        opened = button.isChecked() and not why
        if opened and self.form is None:
            # Some seventy widgets: made when they are first shown.
            self.form = AdvancedForm()
            self.form.typed.connect(self._typed)
            self.form.reset.connect(self._reset)
            self.step.settings.addWidget(self.form)
        if self.form is not None:
            self.form.setVisible(opened)
            if opened:
                self.form.show_draft(session.draft())

    def _opened(self, _on: bool) -> None:
        self.show()

    def _typed(self, field: Field, text: str) -> None:
        self.bench.session.type_setting(field, text)
        self.bench.changed.emit()

    def _reset(self, path: FieldPath | None) -> None:
        self.bench.session.reset_settings(path)
        self.bench.changed.emit()
