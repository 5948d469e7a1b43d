"""The advanced settings: a form with a row for each, and its wiring.

The form is built from what ``controllers/distil/settings.py`` describes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QToolButton,
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
    text_of,
    value_at,
)
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.steps import Step, TrainStep
from napari_histodistill.widgets.shared.controls import (
    PlainLabel,
    explain,
    hint,
    row,
    set_tip,
)

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
        self.summary = hint()
        self.reset_all = QPushButton("Reset all")
        set_tip(self.reset_all, "Put every setting back to the preset's.")
        self.reset_all.clicked.connect(lambda: self.reset.emit(None))
        self._rows: dict[object, _Row] = {}
        self._groups: list[tuple[Step, FieldGroup]] = []
        self._form: FieldGroup | None = None
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(3)
        self._column.addLayout(row(self.summary, self.reset_all))
        self._inside = QWidget()
        self._column.addWidget(self._inside)

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
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        self._fill(column, form)
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
            line.edited = self._edited(field)
            line.back.clicked.connect(self._resetter(field))
            grid.addWidget(line.label, 2 * k, 0)
            grid.addWidget(line.editor, 2 * k, 1)
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

    def _edited(self, field: Field) -> Callable[[str], None]:
        return lambda text: self.typed.emit(field, text)

    def _resetter(self, field: Field) -> Callable[[], None]:
        return lambda: self.reset.emit(field.path)


class _Row:
    """One setting: its name, its editor, the way back, and what is wrong."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.edited: Callable[[str], None] = lambda _text: None
        self.label = PlainLabel(field.title)
        self.label.setWordWrap(True)
        self.label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.back = QToolButton()
        self.back.setText("↺")
        self.back.setAutoRaise(True)
        keep = self.back.sizePolicy()
        keep.setRetainSizeWhenHidden(True)
        self.back.setSizePolicy(keep)
        self.complaint = hint()
        self.editor, self._read, self._write = _editor(field, self._changed)
        self.editor.setFixedWidth(EDITOR_PX)
        words = _sentences([field.help, f"{field.bounds}." if field.bounds else ""])
        set_tip(self.label, words)
        set_tip(self.editor, words)

    def text(self) -> str:
        """Return what stands in the editor."""
        return self._read()

    def show_text(self, text: str) -> None:
        """Put a text into the editor; a cursor in it stays where it is."""
        if self._read() != text:
            self.editor.blockSignals(True)
            self._write(text)
            self.editor.blockSignals(False)

    def mark(self, *, changed: bool, preset: str, problem: str) -> None:
        """Show whether it differs from the preset, and what is wrong with it."""
        font = self.label.font()
        font.setBold(changed)
        self.label.setFont(font)
        self.label.setText(f"● {self.field.title}" if changed else self.field.title)
        self.back.setVisible(changed)
        set_tip(self.back, f"Back to the preset's: {preset or 'empty'}")
        self.complaint.setText(f"▲ {problem}" if problem else "")
        self.complaint.setVisible(bool(problem))

    def _changed(self, *_: object) -> None:
        self.edited(self._read())


class _Choice(QComboBox):
    """A list that the wheel scrolls past: nobody changes a setting by scrolling."""

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Let the panel have it."""
        event.ignore()


def _editor(
    field: Field, changed: Callable[..., None]
) -> tuple[QWidget, Callable[[], str], Callable[[str], None]]:
    """Return an editor, how its text is read, and how it is set."""
    if field.kind == "switch":
        box = QCheckBox()
        box.toggled.connect(changed)
        return (
            box,
            lambda: "yes" if box.isChecked() else "no",
            lambda text: box.setChecked(text == "yes"),
        )
    if field.kind == "choice":
        choice = _Choice()
        choice.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        choice.addItems(list(field.choices))
        choice.currentTextChanged.connect(changed)
        return choice, choice.currentText, choice.setCurrentText
    line = QLineEdit()
    if field.optional:
        line.setPlaceholderText("as it comes")
    line.textEdited.connect(changed)
    return line, line.text, lambda text: _put(line, text)


def _put(line: QLineEdit, text: str) -> None:
    line.setText(text)
    line.setCursorPosition(0)  # the beginning of a long text is what tells


def _sentences(parts: Iterable[str]) -> str:
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
