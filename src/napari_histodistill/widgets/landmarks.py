"""Landmarks by turns: a click on the H&E, a click on the partner, and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, Signal

from napari_histodistill.layers.slide_layer import OVERLAY_MARK
from napari_histodistill.widgets.distil_layers import channels_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer, Points

    Floats = npt.NDArray[np.float64]

COLORS = ("#f0e442", "#56b4e9")
TITLES = ("Landmarks on the H&E", "Landmarks on the partner")
SIZE_PX = 14


class Landmarks(QObject):
    """Two Points layers that take turns; what is not asked about is hidden meanwhile.

    Attributes
    ----------
    changed : Signal
        A landmark was set, moved or removed.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._points: tuple[Points, Points] | None = None
        self._shown: tuple[list[Layer], ...] = ()
        self._before: list[tuple[Layer, bool]] = []

    @property
    def active(self) -> bool:
        """Whether clicks set landmarks."""
        return bool(self._before)

    @property
    def turn(self) -> int:
        """Whose landmark is next: 0 the H&E's, 1 the partner's."""
        if self._points is None:
            return 0
        first, second = (len(points.data) for points in self._points)
        return int(first > second)

    def start(self, sparse: Layer, partner: Layer) -> None:
        """Ask for landmarks; those that are there stay."""
        self.stop()
        points = self._points
        if points is None or any(p not in self._viewer.layers for p in points):
            self._forget()
            points = self._points = (self._add(0), self._add(1))
        self._shown = tuple(channels_of(self._viewer, x) for x in (sparse, partner))
        self._before = [(x, x.visible) for group in self._shown for x in group]
        for layer in points:
            layer.visible = True
        self._ask()

    def stop(self) -> None:
        """Show all layers again and leave the add mode."""
        for layer, visible in self._before:
            layer.visible = visible
        self._before = []
        for points in self._points or ():
            if points in self._viewer.layers:
                points.mode = "pan_zoom"

    def pairs(self) -> tuple[Floats, Floats]:
        """Return both sides' landmarks, ``(n, 2)`` on the canvas, row for row."""
        if self._points is None:
            empty = np.empty((0, 2))
            return empty, empty
        first, second = (
            np.array([p.data_to_world(x)[-2:] for x in p.data]).reshape(-1, 2)
            for p in self._points
        )
        count = min(len(first), len(second))
        return first[:count], second[:count]

    def go_to(self, index: int) -> None:
        """Centre the canvas on one of the H&E's landmarks."""
        here, _ = self.pairs()
        if index < len(here):
            y, x = here[index].tolist()
            self._viewer.scene.camera.center = (0.0, y, x)

    def remove(self, index: int) -> None:
        """Remove one pair of landmarks."""
        for points in self._points or ():
            points.data = np.delete(points.data, index, axis=0)

    def follow(self, moved: Floats) -> None:
        """Move the partner's landmarks along with its layer.

        Parameters
        ----------
        moved : ndarray
            ``(3, 3)``, canvas to canvas.
        """
        if self._points is not None:
            partners = self._points[1]
            partners.affine = moved @ np.asarray(partners.affine)[-3:, -3:]

    def clear(self) -> None:
        """Remove both layers."""
        self.stop()
        for points in self._points or ():
            if points in self._viewer.layers:
                self._viewer.layers.remove(points)
        self._forget()

    def close(self) -> None:
        """Let go of the viewer; the layers stay."""
        self.stop()
        self._forget()

    def _add(self, side: int) -> Points:
        points = self._viewer.add_points(
            np.empty((0, 2)),
            name=TITLES[side],
            face_color=COLORS[side],
            border_width=0,
            border_width_is_relative=False,
            size=SIZE_PX,
            units=("um", "um"),
            metadata={OVERLAY_MARK: "landmarks"},
            canvas_size_limits=(SIZE_PX - 2, SIZE_PX + 2),
        )
        points.events.data.connect(self._data_changed)
        return points

    def _forget(self) -> None:
        for points in self._points or ():
            points.events.data.disconnect(self._data_changed)
        self._points = None

    def _data_changed(self, event: Any) -> None:
        # Once before and once after every change: the first is not yet one.
        if str(getattr(event, "action", "")) in {"adding", "removing", "changing"}:
            return
        if self.active:
            self._ask()
        self.changed.emit()

    def _ask(self) -> None:
        points = self._points
        assert points is not None
        turn = self.turn
        for side, group in enumerate(self._shown):
            for layer in group:
                layer.visible = side == turn
        points[1 - turn].mode = "pan_zoom"
        self._viewer.layers.selection.active = points[turn]
        points[turn].mode = "add"
