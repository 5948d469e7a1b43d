"""Pictures of a training: curves, and a gallery of twins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import QGridLayout, QSizePolicy, QWidget

from napari_histodistill.controllers.distil.pairs import Twin
from napari_histodistill.controllers.distil.run import curves_of
from napari_histodistill.widgets.shared.controls import PlainLabel, set_tip

LINE, DOTS, RANK = "#56b4e9", "#e69f00", "#009e73"
TWIN_PX = 46
PER_ROW = 6


class _Line(NamedTuple):
    """One line of a plot; its points are dots where they are not joined."""

    name: str
    color: str
    points: Sequence[tuple[float, float]]
    joined: bool = True


class Curves(QWidget):
    """Plots of the loss, of the steps and in validation, and of the effective rank."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: tuple[_Line, ...] = ()
        self._steps = 1
        self.setMinimumHeight(110)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        set_tip(
            self,
            "Left: the loss, lower is better; dots are the validation. Right: the "
            "effective rank, the number of directions in which the model can tell "
            "places apart; it should not fall towards 1.",
        )

    def sizeHint(self) -> QSize:
        """As high as two labels and a plot."""
        return QSize(300, 110)

    def show_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Draw a run's events."""
        curves = curves_of(events)
        self._steps = curves.steps
        self._lines = (
            _Line("loss", LINE, curves.loss),
            _Line("validation", DOTS, curves.validation, joined=False),
            _Line("effective rank", RANK, curves.rank),
        )
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw two plots side by side."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        half = self.width() / 2
        for place, lines in enumerate((self._lines[:2], self._lines[2:])):
            box = QRectF(place * half + 4, 16, half - 10, self.height() - 22)
            self._plot(painter, box, lines)
        painter.end()

    def _plot(self, painter: QPainter, box: QRectF, lines: Sequence[_Line]) -> None:
        faint = self.palette().color(self.foregroundRole())
        text = QColor(faint)
        faint.setAlphaF(0.3)
        painter.setPen(QPen(faint, 1))
        painter.drawLine(box.bottomLeft(), box.bottomRight())
        painter.drawLine(box.topLeft(), box.bottomLeft())
        values = [y for line in lines for _, y in line.points]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        span = (high - low) or 1.0
        left = box.left()
        for line in lines:
            painter.setPen(QPen(QColor(line.color), 1.6))
            painter.drawText(QPointF(left, 11), line.name)
            left += painter.fontMetrics().horizontalAdvance(line.name) + 10
            at = [
                QPointF(
                    box.left() + box.width() * x / self._steps,
                    box.bottom() - box.height() * (y - low) / span,
                )
                for x, y in line.points
            ]
            if line.joined:
                painter.drawPolyline(QPolygonF(at))
            else:
                painter.setBrush(QColor(line.color))
                for point in at:
                    painter.drawEllipse(point, 2.5, 2.5)
                painter.setBrush(Qt.BrushStyle.NoBrush)
        if values:
            painter.setPen(text)
            where = box.adjusted(3, 0, -2, 0)
            top = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignTop
            end = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignBottom
            painter.drawText(where, int(top), f"{high:.3g}")
            painter.drawText(where, int(end), f"{low:.3g}")


class TwinGallery(QWidget):
    """Sparse tiles above, their dense twins below, confidence as a bar."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(3)

    def show_twins(
        self,
        twins: Sequence[Twin],
    ) -> None:
        """Replace what is shown."""
        while self._grid.count():
            item = self._grid.takeAt(0)
            if item is not None and item.widget() is not None:
                item.widget().deleteLater()
        deep = 2 + max((len(twin.dense) for twin in twins), default=0)
        for k, (sparse, dense, confidence) in enumerate(twins):
            row, column = divmod(k, PER_ROW)
            for below, picture in enumerate((sparse, *dense)):
                label = PlainLabel()
                label.setPixmap(pixmap_of(picture, TWIN_PX))
                set_tip(label, f"{confidence:.0%} sure to show the same tissue.")
                self._grid.addWidget(label, deep * row + below, column)
            self._grid.addWidget(_Bar(confidence), deep * (row + 1) - 1, column)


class _Bar(QWidget):
    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share
        self.setFixedSize(TWIN_PX, 4)
        set_tip(self, f"{share:.0%} sure to show the same tissue.")

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        faint = self.palette().color(self.foregroundRole())
        faint.setAlphaF(0.25)
        painter.fillRect(self.rect(), faint)
        filled = QRectF(0, 0, self.width() * self._share, self.height())
        painter.fillRect(filled, QColor(RANK))
        painter.end()


def pixmap_of(picture: npt.NDArray[np.uint8], side: int) -> QPixmap:
    """Return an ``(h, w, 3)`` uint8 picture, ``side`` px wide and high."""
    pixels = np.ascontiguousarray(picture)
    height, width = pixels.shape[:2]
    image = QImage(
        pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888
    ).copy()
    smooth = Qt.TransformationMode.SmoothTransformation
    return QPixmap.fromImage(image).scaled(
        side, side, Qt.AspectRatioMode.IgnoreAspectRatio, smooth
    )
