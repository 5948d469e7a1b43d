"""Landmarks by turns: a click on the H&E, a click on the partner, and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, Signal

from napari_histodistill.layers.slide_layer import OVERLAY_MARK
from napari_histodistill.widgets.distil.layers import channels_of, show_same

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer, Points
    from napari.utils.events import Event

    Doubles = npt.NDArray[np.float64]
    Pair = tuple[Layer, Layer]

COLORS = ("#f0e442", "#56b4e9")
TITLES = ("Landmarks on the H&E", "Landmarks on the partner")
SIZE_PX = 14
_BEFORE = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)


class Landmarks(QObject):
    """Two Points layers that take turns; what is not asked about is hidden meanwhile.

    They show the landmarks of one pair of layers, see :meth:`turn_to`: what was picked
    on one section says nothing about the next. Both landmarks of a place go together.

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
        self._pair: Pair | None = None
        self._waiting: list[tuple[Pair, list[Doubles]]] = []
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

    def are_of(self, sparse: Layer, partner: Layer) -> bool:
        """Whether what is shown was picked on these layers."""
        pair = self._pair
        return pair is not None and pair[0] is sparse and show_same(pair[1], partner)

    def turn_to(self, sparse: Layer, partner: Layer) -> bool:
        """Show the landmarks of these layers; those of the last ones wait for them.

        Returns
        -------
        bool
            Whether the last ones were others.
        """
        others = not self.are_of(sparse, partner)
        if others:
            self.stop()
            self._forget_removed()
            self._store_shown()
        self._pair = sparse, partner  # of a slide's channels, another may stand for it
        if others:
            self._take_back()
        return others

    def start(self, sparse: Layer, partner: Layer) -> None:
        """Ask for landmarks; those of these layers that are there stay."""
        self.stop()
        self.turn_to(sparse, partner)
        self._forget_removed()
        points = self._points
        if points is None:
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

    def pairs(self) -> tuple[Doubles, Doubles]:
        """Return both sides' landmarks, ``(n, 2)`` on the canvas, row for row."""
        if self._points is None:
            empty = np.empty((0, 2))
            return empty, empty
        first, second = (
            _places(points.data_to_world(x) for x in points.data)
            for points in self._points
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
        if self._points is not None:
            self._points[0].remove([index])  # and with it the partner's

    def follow(self, moved: Doubles) -> None:
        """Move the partner's landmarks along with its layer.

        Parameters
        ----------
        moved : ndarray
            ``(3, 3)``, canvas to canvas.
        """
        if self._points is not None:
            partners = self._points[1]
            partners.affine = moved @ np.asarray(partners.affine)[-3:, -3:]

    def close(self) -> None:
        """Let go of the viewer; the layers stay."""
        self.stop()
        self._forget()
        self._pair, self._waiting = None, []

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

    def _store_shown(self) -> None:
        """Keep what is shown in the pixels of its layers, which may be moved later."""
        there = self._viewer.layers
        if self._points is not None and self._pair is not None:
            pixels = [
                _places(
                    layer.world_to_data(points.data_to_world(x)) for x in points.data
                )
                for layer, points in zip(self._pair, self._points, strict=True)
            ]
            self._waiting.append((self._pair, pixels))
        # Those of layers that are gone would keep their images in memory.
        self._waiting = [x for x in self._waiting if all(y in there for y in x[0])]

    def _take_back(self) -> None:
        """Show what was kept of the present pair; else nothing."""
        assert self._pair is not None
        known = [k for k, (pair, _) in enumerate(self._waiting) if self.are_of(*pair)]
        kept = self._waiting.pop(known[0])[1] if known else [_places(())] * 2
        if self._points is None:
            if not any(map(len, kept)):
                return
            self._points = self._add(0), self._add(1)
        for layer, points, pixels in zip(self._pair, self._points, kept, strict=True):
            with points.events.data.blocker(self._data_changed):
                points.selected_data = set()
                points.affine = np.eye(3)
                points.data = _places(layer.data_to_world(x) for x in pixels)

    def _forget_removed(self) -> None:
        """Forget landmarks that were taken out of the layer list."""
        if any(points not in self._viewer.layers for points in self._points or ()):
            self._forget()

    def _forget(self) -> None:
        for points in self._points or ():
            points.events.data.disconnect(self._data_changed)
        self._points = None

    def _data_changed(self, event: Event) -> None:
        # Once before and once after every change: the first is not yet one.
        if event.action in _BEFORE:
            return
        if event.action is ActionType.REMOVED:
            self._remove_others(event)
        if self.active:
            self._ask()
        self.changed.emit()

    def _remove_others(self, event: Event) -> None:
        """Remove the other side's landmarks of places that were removed on one side.

        Left alone, they would make pairs of different places with all later ones.
        """
        one, two = self._points or (None, None)
        other = two if event.source is one else one
        if other is not None:
            gone = [k for k in event.data_indices if k < len(other.data)]
            with other.events.data.blocker(self._data_changed):
                other.remove(gone)

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


def _places(found: Iterable[Sequence[float]]) -> Doubles:
    """Return positions, ``(n, 2)``, also of none."""
    return np.array([tuple(x)[-2:] for x in found], np.float64).reshape(-1, 2)
