"""What lies on the canvas in its corners: what colours mean, and the whole slide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPoint, QPointF, QRect, QRectF, QSize, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QFont,
    QFontMetrics,
    QLinearGradient,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
)
from qtpy.QtWidgets import QWidget

from napari_histodistill.controllers.explore.shown import CanvasLegend, Scale
from napari_histodistill.layers.overlays import VIRIDIS
from napari_histodistill.widgets.shared.controls import paint_hatching, set_tip
from napari_histodistill.widgets.shared.thumbnails import pixmap_of

PAD, GAP, SWATCH = 8, 4, 12
BAR = QSize(150, 10)
MOST_ROWS = 12
"""Classes that are named; of more, how many there are is said."""

HATCHED = "unlike the training"
WARNING_PX = 200
"""Width that a warning is wrapped to, or that of the rows below it."""

COVERS = 225
"""How much a box covers what lies below it, of 255."""

PICTURE_PX = 150
"""Longer side of the overview."""

SMALLEST_VIEW_PX = 6
"""A smaller field of view is drawn as large as this: it must be found."""


class CanvasBox(QWidget):
    """A box in a corner of the canvas, in the colours of napari's theme."""

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.hide()

    def _paint_ground(self, painter: QPainter) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ground = self.palette().color(self.backgroundRole())
        ground.setAlpha(COVERS)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ground)
        painter.drawRoundedRect(QRectF(self.rect()), 3, 3)
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.setBrush(Qt.BrushStyle.NoBrush)


class LegendBox(CanvasBox):
    """Class names beside their colours, or a bar of colours; the mouse passes it."""

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.legend = CanvasLegend()

    def show_legend(self, legend: CanvasLegend) -> None:
        """Explain these colours; an empty legend hides the box."""
        if legend != self.legend:
            self.legend = legend
            self.resize(self.sizeHint())
            self.update()
        self.setVisible(not legend.is_empty)

    def sizeHint(self) -> QSize:
        """As large as its texts."""
        text = self.fontMetrics()
        line = max(text.height(), SWATCH)
        rows = self._rows()
        wide = [SWATCH + GAP + text.horizontalAdvance(name) for name, _ in rows]
        high = [line] * len(rows)
        if (scale := self.legend.scale) is not None:
            ends = text.horizontalAdvance(scale.low + "   " + scale.high)
            wide += [text.horizontalAdvance(scale.title), BAR.width(), ends]
            high += [line, BAR.height(), line]
        if self.legend.warning:
            wide.append(WARNING_PX)
            high.append(self._warning_at(max(wide)).height())
        tall = sum(high) + GAP * max(0, len(high) - 1)
        return QSize(max(wide, default=0) + 2 * PAD, tall + 2 * PAD)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw all of it."""
        painter = QPainter(self)
        self._paint_ground(painter)
        line = max(self.fontMetrics().height(), SWATCH)
        y = PAD
        if self.legend.warning:
            at = self._warning_at(self.width() - 2 * PAD)
            usual = painter.font()
            painter.setFont(self._bold())
            painter.drawText(at, Qt.TextFlag.TextWordWrap, self.legend.warning)
            painter.setFont(usual)
            y = at.bottom() + 1 + GAP
        if self.legend.scale is not None:
            y = self._paint_scale(painter, self.legend.scale, y, line)
        for name, color in self._rows():
            self._paint_row(painter, name, color, QRect(PAD, y, self.width(), line))
            y += line + GAP
        painter.end()

    def _bold(self) -> QFont:
        font = QFont(self.font())
        font.setBold(True)
        return font

    def _warning_at(self, width: int) -> QRect:
        """Return where the warning is written, wrapped to a width."""
        room = QRect(PAD, PAD, width, 1000)
        found = QFontMetrics(self._bold()).boundingRect(
            room, Qt.TextFlag.TextWordWrap, self.legend.warning
        )
        return QRect(PAD, PAD, width, found.height())

    def _rows(self) -> list[tuple[str, str | None]]:
        """Return names and colours; "" for a row without one, None for hatching."""
        rows: list[tuple[str, str | None]] = list(self.legend.classes[:MOST_ROWS])
        if more := len(self.legend.classes) - len(rows):
            rows.append((f"and {more} more", ""))
        return [*rows, (HATCHED, None)] if self.legend.hatched else rows

    def _paint_row(
        self, painter: QPainter, name: str, color: str | None, at: QRect
    ) -> None:
        swatch = QRect(PAD, at.top() + (at.height() - SWATCH) // 2, SWATCH, SWATCH)
        if color is None:
            paint_hatching(painter, swatch)
        elif color:
            painter.fillRect(swatch, QColor(color))
        painter.setPen(self.palette().color(self.foregroundRole()))
        words = at.adjusted(SWATCH + GAP, 0, 0, 0)
        painter.drawText(words, Qt.AlignmentFlag.AlignVCenter, name)

    def _paint_scale(self, painter: QPainter, scale: Scale, y: int, line: int) -> int:
        inside = self.width() - 2 * PAD
        title = QRect(PAD, y, inside, line)
        painter.drawText(title, Qt.AlignmentFlag.AlignVCenter, scale.title)
        y += line + GAP
        colors = QLinearGradient(PAD, 0, PAD + inside, 0)
        for k, color in enumerate(VIRIDIS):
            colors.setColorAt(k / (len(VIRIDIS) - 1), QColor(color))
        painter.fillRect(QRect(PAD, y, inside, BAR.height()), colors)
        y += BAR.height() + GAP
        ends = QRect(PAD, y, inside, line)
        painter.drawText(ends, Qt.AlignmentFlag.AlignLeft, scale.low)
        painter.drawText(ends, Qt.AlignmentFlag.AlignRight, scale.high)
        return y + line + GAP


class OverviewBox(CanvasBox):
    """The whole slide with the field of view; a click or drag asks to go elsewhere."""

    went = Signal(float, float)
    """Where to look, as shares of the slide's height and width."""

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self._picture = QPixmap()
        self._view = QPolygonF()
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        set_tip(self, "The whole slide. Click or drag to look elsewhere.")

    @property
    def has_picture(self) -> bool:
        """Whether there is a slide to show."""
        return not self._picture.isNull()

    @property
    def view(self) -> QRectF:
        """The box around the field of view, pixels of this widget."""
        return self._view.boundingRect()

    def show_picture(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Show a slide, ``(h, w, 3)`` uint8."""
        sharp = self.devicePixelRatioF()
        side = round(PICTURE_PX * sharp)
        self._picture = pixmap_of(pixels).scaled(
            side,
            side,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        self._picture.setDevicePixelRatio(sharp)
        size = self._picture.deviceIndependentSize().toSize()
        self.resize(max(1, size.width()) + 4, max(1, size.height()) + 4)
        self.update()

    def forget_picture(self) -> None:
        """Show no slide."""
        self._picture = QPixmap()
        self.hide()

    def show_view(self, corners: Sequence[tuple[float, float]]) -> None:
        """Mark the field of view: corners as shares of height and width, in order."""
        inside = self._inside()
        left, top = inside.left(), inside.top()
        width, height = inside.width(), inside.height()
        view = QPolygonF(
            [QPointF(left + x * width, top + y * height) for y, x in corners]
        )
        if view != self._view:
            self._view = view
            self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw the slide, and the field of view in two colours: one is always seen."""
        painter = QPainter(self)
        self._paint_ground(painter)
        painter.drawPixmap(QPoint(2, 2), self._picture)
        outline = self._view.intersected(QPolygonF(self._inside()))
        around = outline.boundingRect()
        if max(around.width(), around.height()) < SMALLEST_VIEW_PX:
            half = SMALLEST_VIEW_PX / 2
            middle = around.center()
            outline = QPolygonF(
                QRectF(middle.x() - half, middle.y() - half, 2 * half, 2 * half)
            )
        for color, width in (("#ffffff", 3.0), ("#0072b2", 1.5)):
            painter.setPen(QPen(QColor(color), width))
            painter.drawPolygon(outline)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go there."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._go(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Go along."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._go(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Keep it from the canvas, which would take it for a click on tissue."""
        event.accept()

    def _inside(self) -> QRectF:
        return QRectF(self.rect()).adjusted(2, 2, -2, -2)

    def _go(self, event: QMouseEvent) -> None:
        inside, at = self._inside(), event.position()
        y = (at.y() - inside.top()) / max(1.0, inside.height())
        x = (at.x() - inside.left()) / max(1.0, inside.width())
        self.went.emit(min(1.0, max(0.0, y)), min(1.0, max(0.0, x)))
        event.accept()
