"""Small controls that several panels use: headings, hints, swatches, histograms.

Titles, names and errors come from strangers' files, and Qt obeys whatever looks like
HTML to it (an ``<img>`` opens a file, or a share of the network). So every label,
tooltip and message is made or set here, as plain text.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Protocol

from qtpy.QtCore import (
    QEvent,
    QObject,
    QRect,
    QRectF,
    QSignalBlocker,
    QSize,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

HINT_MARGINS = 8
"""Pixels that napari's style leaves above and below a text."""


class PlainLabel(QLabel):
    """A label that shows its text as it is, whatever it looks like."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text)


def make_plain(root: QWidget) -> None:
    """Have every label below a widget that others made show its text as it is."""
    for label in root.findChildren(QLabel):
        label.setTextFormat(Qt.TextFormat.PlainText)


class Hint(PlainLabel):
    """A line of explanation that wraps and can be selected."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        # Without this a long sentence would widen the whole dock.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)

    def say(self, words: str) -> None:
        """Show words; "" takes the line away."""
        self.setText(words)
        self.setVisible(bool(words))


class SteadyHint(Hint):
    """A hint that keeps its room while it says nothing: what is below stays in place.

    Parameters
    ----------
    lines : int
        Lines of text to keep room for; a longer text takes more.
    """

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        keep_lines(self, lines, besides=HINT_MARGINS)

    def say(self, words: str) -> None:
        """Show words in the room that is there."""
        self.setText(words)


class HasTip(Protocol):
    """A widget, an action or an item of a list."""

    def setToolTip(self, text: str, /) -> None:
        """Set what is shown when the cursor rests on it."""


def set_tip(target: HasTip, text: str) -> None:
    """Set a tooltip that shows a text as it is."""
    target.setToolTip(plain_tip(text))


def plain_tip(text: str) -> str:
    """Return the tooltip that shows a text as it is, wrapped, with its line breaks.

    Tooltips cannot be told to be plain, so markup in them is escaped.
    """
    escaped = html.escape(text, quote=False).replace("\n", "<br>")
    return f"<qt>{escaped}</qt>" if text else ""


def message_box(parent: QWidget, title: str, text: str) -> QMessageBox:
    """Return a message without buttons that shows its text as it is."""
    box = QMessageBox(parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setWindowTitle(title)
    box.setText(text)
    return box


def confirmed(parent: QWidget, verb: str, question: str) -> bool:
    """Ask before something is lost; the button that does it says what it does."""
    box = message_box(parent, verb, question)
    box.setIcon(QMessageBox.Icon.Warning)
    yes = box.addButton(verb, QMessageBox.ButtonRole.DestructiveRole)
    no = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(no)
    box.exec()
    said_yes = box.clickedButton() is yes
    box.deleteLater()
    return said_yes


def heading(text: str) -> QLabel:
    """Return a section's title."""
    label = PlainLabel(text)
    make_bold(label)
    return label


def keep_room(widget: QWidget) -> None:
    """Leave a widget's room empty while it is hidden, so that nothing else moves."""
    policy = widget.sizePolicy()
    policy.setRetainSizeWhenHidden(True)
    widget.setSizePolicy(policy)


class _RoomKeeper(QObject):
    """Measures a widget's room again when napari's style gives it another font."""

    def __init__(self, widget: QWidget, reserve: Callable[[], None]) -> None:
        super().__init__(widget)
        self._reserve = reserve
        widget.installEventFilter(self)
        reserve()

    def eventFilter(self, _watched: QObject | None, event: QEvent | None) -> bool:
        """Reserve the room for the new font."""
        if event is not None and event.type() == QEvent.Type.FontChange:
            self._reserve()
        return False


def keep_lines(widget: QWidget, lines: int, *, besides: int = 0) -> None:
    """Reserve the room of so many lines of text, and of so many pixels besides."""

    def reserve() -> None:
        # Text that can be selected is laid out a little higher than its font says.
        high = widget.fontMetrics().lineSpacing() + 2
        widget.setMinimumHeight(lines * high + besides)

    _RoomKeeper(widget, reserve)


def room_for(label: QWidget, longest: str, *, beside: int = 4) -> None:
    """Give a label the width of its longest text, so that nothing beside it moves.

    ``beside`` is what it draws beside the text, in pixels.
    """

    def reserve() -> None:
        wide = label.fontMetrics().horizontalAdvance(longest)
        label.setMinimumWidth(wide + beside)

    _RoomKeeper(label, reserve)


def align_labels(parent: QWidget) -> None:
    """Give all labels below a widget, one in each row, the width of the widest."""
    labels = parent.findChildren(QLabel)

    def reserve() -> None:
        wide = max(_text_width(label) for label in labels)
        for label in labels:
            label.setMinimumWidth(wide)

    for label in labels:
        _RoomKeeper(label, reserve)


def _text_width(label: QLabel) -> int:
    return int(label.fontMetrics().horizontalAdvance(label.text())) + 12


def make_bold(widget: QWidget, *, bold: bool = True) -> None:
    """Set a widget's text in bold, or not any more."""
    font = widget.font()
    font.setBold(bold)
    widget.setFont(font)


def info_button(tooltip: str = "") -> QToolButton:
    """Return the small "i" that carries details in its tooltip."""
    button = tool("i", tooltip)
    font = button.font()
    font.setBold(True)
    font.setItalic(True)
    button.setFont(font)
    return button


def tool(text: str, tip: str = "") -> QToolButton:
    """Return a flat button with a tooltip."""
    button = QToolButton()
    button.setText(text)
    button.setAutoRaise(True)
    set_tip(button, tip)
    return button


def push(text: str, tip: str = "", *, stays: bool = False) -> QPushButton:
    """Return a button; one that ``stays`` down is pressed a second time to end."""
    button = QPushButton(text)
    button.setCheckable(stays)
    set_tip(button, tip)
    return button


def row(*widgets: QWidget, stretch: int = 0) -> QHBoxLayout:
    """Return widgets side by side; the one at ``stretch`` takes the room."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for k, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if k == stretch else 0)
    return layout


def stack(parent: QWidget | None, *parts: QWidget | QLayout) -> QVBoxLayout:
    """Lay widgets and rows below each other, in a widget; return the layout."""
    layout = QVBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    put(layout, *parts)
    return layout


def put(layout: QVBoxLayout, *parts: QWidget | QLayout) -> None:
    """Lay widgets and rows at the end of a layout."""
    for part in parts:
        add = layout.addWidget if isinstance(part, QWidget) else layout.addLayout
        add(part)


def explain(widget: QWidget, tooltip: str, why_not: str = "") -> None:
    """Enable a control and say what it does, or disable it and say why."""
    widget.setEnabled(not why_not)
    set_tip(widget, why_not or tooltip)


class NameCombo(QComboBox):
    """A combo of names, such as those of slides: both ends of a long one are seen.

    The whole name stands in the tooltip, above what the combo is for.
    """

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw the name, elided in the middle."""
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        option.currentText = self.fitting()
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        painter.end()

    def event(self, event: QEvent) -> bool:
        """Show the whole name where the cursor rests, if it was elided."""
        is_tip = event.type() == QEvent.Type.ToolTip
        wide = self.fontMetrics().horizontalAdvance(self.currentText())
        if is_tip and wide > self._room():
            tip = plain_tip(self.currentText()) + self.toolTip()
            QToolTip.showText(event.globalPos(), tip, self)
            return True
        handled: bool = super().event(event)
        return handled

    def fitting(self) -> str:
        """Return as much of the name as fits, its middle left out."""
        middle = Qt.TextElideMode.ElideMiddle
        fitting: str = self.fontMetrics().elidedText(
            self.currentText(), middle, self._room()
        )
        return fitting

    def _room(self) -> int:
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            self,
        )
        return int(field.width()) - 4


def wide_combo(tooltip: str) -> QComboBox:
    """Return a combo of names that takes the room there is and no more."""
    combo = NameCombo()
    set_tip(combo, tooltip)
    keep_within_dock(combo)
    return combo


def keep_within_dock(combo: QComboBox) -> None:
    """Let a combo take the room there is, for long names; the wheel passes it by."""
    leave_wheel(combo)
    combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    combo.setMinimumContentsLength(8)


class _WheelFilter(QObject):
    def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
        """Leave the wheel to the panel, which scrolls."""
        if event.type() != QEvent.Type.Wheel:
            return False
        event.ignore()
        return True


def leave_wheel(widget: QWidget) -> None:
    """Have the mouse wheel scroll the panel: nobody changes a value by scrolling."""
    widget.installEventFilter(_WheelFilter(widget))
    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)


def fill_combo(
    combo: QComboBox, names: Sequence[str], current: int, *, empty: str
) -> None:
    """List names without sending a signal; ``empty`` is shown if there are none."""
    with QSignalBlocker(combo):
        combo.clear()
        combo.addItems(list(names) or [empty])
        combo.setCurrentIndex(current if names else 0)


OPEN_TITLE = "Open a model: choose its folder"
"""Title of the dialogue that follows the last line."""


class StudentCombo(QComboBox):
    """Students by name; the last line opens a bundle folder.

    Attributes
    ----------
    student_chosen : Signal(int)
        Index among the students that were shown.
    open_bundle : Signal
        The last line was chosen.
    """

    student_chosen = Signal(int)
    open_bundle = Signal()

    def __init__(self, tooltip: str) -> None:
        super().__init__()
        set_tip(self, tooltip)
        keep_within_dock(self)
        self.activated.connect(self._activated)

    def show_students(self, names: Sequence[str], current: int) -> None:
        """List students; the first stands there where ``current`` is −1."""
        fill_combo(self, [*names, "+ open a model…"], max(current, 0), empty="")

    def _activated(self, index: int) -> None:
        if index == self.count() - 1:
            self.open_bundle.emit()
        else:
            self.student_chosen.emit(index)


class Swatch(QWidget):
    """A square of colour."""

    def __init__(self, color: str) -> None:
        super().__init__()
        self._color = QColor(color)
        self.setFixedSize(QSize(14, 14))

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Fill the square."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._color)
        painter.drawRoundedRect(QRectF(self.rect()), 2, 2)
        painter.end()


class SwatchButton(QAbstractButton):
    """A square of colour that is pressed to choose another."""

    def __init__(self, color: str) -> None:
        super().__init__()
        self.color = color
        self.setFixedSize(QSize(16, 16))
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Fill the square; with a border while it has the focus."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        edge = self.palette().color(self.foregroundRole())
        painter.setPen(edge if self.hasFocus() else Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self.color))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 2, 2)
        painter.end()


class HatchSwatch(QWidget):
    """A square of diagonal lines, as the hatching of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedSize(QSize(14, 14))

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw dark lines with light edges."""
        painter = QPainter(self)
        paint_hatching(painter, self.rect())
        painter.end()


def paint_hatching(painter: QPainter, square: QRect) -> None:
    """Draw dark lines with light edges into a square."""
    painter.save()
    painter.setClipRect(square)
    side, left, bottom = square.width(), square.left(), square.top() + square.height()
    for start in range(left - side, left + side, 6):
        for shift, color in ((0, "black"), (2, "white")):
            painter.setPen(QPen(QColor(color), 2))
            at = start + shift
            painter.drawLine(at, bottom, at + side, bottom - side)
    painter.restore()


class Histogram(QWidget):
    """A row of bars, for the confidence of one class."""

    def __init__(self, color: str) -> None:
        super().__init__()
        self._color = QColor(color)
        self._bars: tuple[float, ...] = ()
        self.setFixedSize(QSize(44, 16))

    @property
    def bars(self) -> tuple[float, ...]:
        """Shares, left to right."""
        return self._bars

    def show_bars(self, bars: Sequence[float]) -> None:
        """Draw these shares; the largest fills the height."""
        if tuple(bars) != self._bars:
            self._bars = tuple(bars)
            self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw a base line and the bars."""
        painter = QPainter(self)
        faint = self.palette().color(self.foregroundRole())
        faint.setAlphaF(0.35)
        base = self.height() - 1
        painter.fillRect(QRectF(0, base, self.width(), 1), faint)
        highest = max(self._bars, default=0.0)
        if highest > 0:
            step = self.width() / len(self._bars)
            for k, share in enumerate(self._bars):
                height = (base - 1) * share / highest
                bar = QRectF(k * step, base - height, step - 1, height)
                painter.fillRect(bar, self._color)
        painter.end()
