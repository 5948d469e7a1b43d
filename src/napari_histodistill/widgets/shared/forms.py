"""Forms: typed models that magicgui turns into editors, and its questions for a file.

A form's model is a frozen dataclass; the annotation of a field says how it is asked for
(:func:`asked`, :func:`asked_number`). Whatever is shown is plain text, and no editor
changes because somebody scrolls past it.
"""

from __future__ import annotations

from dataclasses import fields
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

from napari_histodistill.widgets.shared.controls import (
    keep_within_dock,
    leave_wheel,
    make_plain,
    plain_tip,
)

if TYPE_CHECKING:
    from magicgui.types import FileDialogMode
    from qtpy.QtWidgets import QWidget

ModelT = TypeVar("ModelT")


class NumberBox(FloatSpinBox):
    """A number with words around it; magicgui's own boxes show no unit.

    Without decimals, its value is an ``int``.
    """

    def __init__(
        self,
        *,
        value: Any = Undefined,
        within: tuple[float, float],
        decimals: int = 0,
        before: str = "",
        after: str = "",
        unknown: str = "",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        box = self.native
        box.setDecimals(decimals)
        box.setPrefix(before)
        box.setSuffix(after)
        box.setSpecialValueText(unknown)
        box.setKeyboardTracking(False)
        self.range = within
        if value is not Undefined:
            self.value = value

    def get_value(self) -> float:
        """Return the number."""
        value = super().get_value()
        return float(value) if self.native.decimals() else round(value)


def asked(tip: str, **options: Any) -> dict[str, Any]:
    """Return how a value is asked for, to stand in ``Annotated[type, …]``.

    Parameters
    ----------
    tip : str
        Tooltip; shown as it is.
    **options
        Of magicgui's widget: ``label``, ``choices``…
    """
    return {"tooltip": plain_tip(tip), **options}


def asked_number(
    tip: str, within: tuple[float, float], **options: Any
) -> dict[str, Any]:
    """Return how a number is asked for, to stand in ``Annotated[type, …]``.

    Parameters
    ----------
    tip : str
        Tooltip; shown as it is.
    within : tuple of float
        Least and largest value.
    **options
        ``decimals``, ``step``; ``before`` and ``after``, the words around it;
        ``unknown``, shown instead of the least value.
    """
    return asked(tip, widget_type=NumberBox, within=within, **options)


def editor(annotation: Any, value: Any = Undefined, **options: Any) -> Any:
    """Return magicgui's widget for a type, as our panels want it.

    Parameters
    ----------
    annotation : type
        With :func:`asked` in it.
    value : Any, optional
        What stands in it at first.
    **options
        For :func:`magicgui.widgets.create_widget`.
    """
    made = create_widget(value, annotation, **options)
    leave_wheel(made.native)
    if isinstance(made, ComboBox):
        keep_within_dock(made.native)
    return made


def editors(model: Any) -> list[Any]:
    """Return an editor for each field of a model, with its value."""
    hints = get_type_hints(type(model), include_extras=True)
    return [
        editor(hints[one.name], getattr(model, one.name), name=one.name)
        for one in fields(model)
    ]


class Form(Container, Generic[ModelT]):
    """A model's fields, side by side or below each other.

    Parameters
    ----------
    model : dataclass
        What it shows at first.
    layout : str
        ``horizontal`` or ``vertical``.
    labels : bool
        Whether the fields' labels stand before them.
    """

    def __init__(
        self, model: ModelT, *, layout: str = "horizontal", labels: bool = False
    ) -> None:
        self._kind = type(model)
        super().__init__(widgets=editors(model), layout=layout, labels=labels)
        self.margins = (0, 0, 0, 0)
        self.native.layout().setSpacing(4)
        make_plain(self.native)

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


def ask(model: ModelT, title: str, parent: QWidget) -> ModelT | None:
    """Ask for a model in a window of its own; None if it is cancelled."""
    dialog = Dialog(widgets=editors(model), parent=parent)
    dialog.native.setWindowTitle(title)
    make_plain(dialog.native)
    try:
        return type(model)(**dialog.asdict()) if dialog.exec() else None
    finally:
        dialog.native.deleteLater()


def ask_path(
    mode: FileDialogMode,
    title: str,
    parent: QWidget,
    *,
    start: str = "",
    files: str = "",
) -> Path | None:
    """Ask for a file or folder; None if it is cancelled.

    Parameters
    ----------
    mode : FileDialogMode
        Whether to open or to write, a file or a folder.
    title : str
        Of the dialogue.
    parent : QWidget
        Which the dialogue belongs to.
    start : str
        Name that is offered.
    files : str
        Which files are listed, as Qt says it: ``Tables (*.csv)``.
    """
    chosen = show_file_dialog(mode, title, start, files, parent)
    return Path(chosen) if chosen else None
