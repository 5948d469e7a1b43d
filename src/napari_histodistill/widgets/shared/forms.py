"""Forms: typed models that magicgui turns into editors, and its questions for a file.

A form's model is a frozen dataclass whose fields say how they are asked for
(:func:`asked`). Whatever is shown is plain text, and no editor changes because somebody
scrolls past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from magicgui.types import Undefined
from magicgui.widgets import (
    ComboBox,
    Container,
    Dialog,
    FloatSpinBox,
    create_widget,
    show_file_dialog,
)
from qtpy.QtCore import QEvent, QObject, Qt

from napari_histodistill.widgets.shared.controls import (
    PlainLabel,
    align_labels,
    keep_within_dock,
    leave_wheel,
    make_plain,
    plain_tip,
)

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

ModelT = TypeVar("ModelT")
POINTS = (Qt.Key.Key_Comma, Qt.Key.Key_Period)


def asked(tip: str, value: Any, **how: Any) -> Any:
    """Return a field of a model, and how it is asked for: see :func:`editor`."""
    return field(default=value, metadata={"tip": tip, **how})


class NumberBox(FloatSpinBox):
    """A number with its unit, which magicgui's box for whole numbers cannot show.

    Comma and full stop are both the decimal point: one that Qt drops makes 0,5 to 5.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.native.installEventFilter(_TypingFilter(self.native))

    def get_value(self) -> float:
        """Return the number; an ``int`` where there are no decimals."""
        value: float = super().get_value()
        return value if self.native.decimals() else round(value)


class _TypingFilter(QObject):
    def eventFilter(self, box: QObject, event: QEvent) -> bool:
        """Type over "not known", and the decimal point of this computer's language."""
        if event.type() != QEvent.Type.KeyPress:
            return False
        if box.text() == box.specialValueText():
            box.selectAll()  # Qt would let nobody type into or over it
        typed = event.key() in POINTS
        if typed:
            box.lineEdit().insert(box.locale().decimalPoint())
        return bool(typed)


def editor(
    kind: Any,
    tip: str,
    value: Any = Undefined,
    *,
    choices: Sequence[tuple[str, Any]] = (),
    **how: Any,
) -> Any:
    """Return magicgui's widget for a type.

    ``choices`` are pairs of what is shown and what is meant. ``how`` may hold ``name``
    and ``label``; all else are properties of Qt's widget, such as ``suffix``.
    """
    named = {key: how.pop(key) for key in ("name", "label") if key in how}
    options: dict[str, Any] = {"tooltip": plain_tip(tip)}
    if choices:
        options["choices"] = choices
    if kind in (int, float):
        options["widget_type"] = NumberBox
        how = {"decimals": 0, "keyboardTracking": False, **how}
    made = create_widget(annotation=kind, options=options, **named)
    for key, setting in how.items():
        if not made.native.setProperty(key, setting):
            raise AttributeError(key)
    if "singleStep" in how:
        made.adaptive_step = False
    if value is not Undefined:
        made.value = value
    (keep_within_dock if isinstance(made, ComboBox) else leave_wheel)(made.native)
    return made


def editors(model: Any) -> list[Any]:
    """Return an editor for each field of a model, with its value."""
    kinds = get_type_hints(type(model))
    return [
        editor(kinds[x.name], value=getattr(model, x.name), name=x.name, **x.metadata)
        for x in fields(model)
    ]


class Form(Container, Generic[ModelT]):
    """A model's fields, side by side or below each other, with or without labels."""

    def __init__(
        self, model: ModelT, *, layout: str = "horizontal", labels: bool = False
    ) -> None:
        self._kind = type(model)
        super().__init__(widgets=editors(model), layout=layout, labels=labels)
        self._tips = {one.name: one.tooltip for one in self}
        self.margins = (0, 0, 0, 0)
        self.native.layout().setSpacing(4)
        make_plain(self.native)
        if labels and layout == "vertical":
            align_labels(self.native)

    @property
    def model(self) -> ModelT:
        """What stands in the form."""
        return self._kind(**self.asdict())

    @property
    def natives(self) -> tuple[Any, ...]:
        """The editors as Qt's widgets, in the order of the fields."""
        return tuple(one.native for one in self)

    def show_model(self, model: ModelT) -> None:
        """Show another model without sending a signal."""
        for one in self:
            with one.changed.blocked():
                one.value = getattr(model, one.name)

    def lock(self, why: str) -> None:
        """Disable the form, saying why; "" unlocks."""
        for one in self:
            one.enabled = not why
            one.tooltip = plain_tip(why) or self._tips[one.name]


def ask(model: ModelT, title: str, parent: QWidget, *, note: str = "") -> ModelT | None:
    """Ask for a model in a window of its own; None if it is cancelled.

    A note is a text below the editors.
    """
    dialog = Dialog(widgets=editors(model), parent=parent)
    dialog.native.setWindowTitle(title)
    if note:
        words = PlainLabel(note)
        words.setWordWrap(True)
        layout = dialog.native.layout()
        layout.insertWidget(layout.count() - 1, words)
    make_plain(dialog.native)
    try:
        return type(model)(**dialog.asdict()) if dialog.exec() else None
    finally:
        dialog.native.deleteLater()


def ask_file(title: str, parent: QWidget, files: str = "") -> Path | None:
    """Ask for a file to read, such as ``Tables (*.csv)``; None if it is cancelled."""
    return _path(show_file_dialog("r", title, "", files, parent))


def ask_new_file(
    title: str, parent: QWidget, name: str, files: str = ""
) -> Path | None:
    """Ask for a file to write, offering a name; None if it is cancelled."""
    return _path(show_file_dialog("w", title, name, files, parent))


def ask_folder(title: str, parent: QWidget) -> Path | None:
    """Ask for a folder; None if it is cancelled."""
    return _path(show_file_dialog("d", title, "", "", parent))


def _path(chosen: str | None) -> Path | None:
    return Path(chosen) if chosen else None
