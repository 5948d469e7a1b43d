"""Regions drawn on the slide: a polygon tool at once, put down when one is finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers.base import ActionType
from qtpy.QtCore import QObject, QTimer, Signal

from napari_histodistill.widgets.shared.overlays import OverlayKind

if TYPE_CHECKING:
    from napari.layers import Shapes
    from napari.utils.events import Event

    from napari_histodistill.widgets.explore.bench import ExploreBench

HOW = (
    "Click the corners of a region, double-click the last one. Press Drawn again to "
    "draw another."
)

FINISHED = frozenset((ActionType.ADDED, ActionType.REMOVED, ActionType.CHANGED))


class Drawing(QObject):
    """The layer on which regions are drawn, and the tool in hand.

    As in QuPath, the tool is put down when a shape is finished.

    Attributes
    ----------
    altered : Signal
        A region was drawn, changed or removed.
    """

    altered = Signal()

    def __init__(self, bench: ExploreBench) -> None:
        super().__init__(bench)
        self.bench = bench
        self._followed: Shapes | None = None
        # napari reports a shape from the middle of finishing it.
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self._finished)

    @property
    def layer(self) -> Shapes | None:
        """The layer of this slide; None if nothing was drawn yet."""
        overlays = self.bench.overlays
        return None if overlays is None else overlays.get(OverlayKind.REGION)

    def start(self) -> None:
        """Take the tool in hand: the next click on the slide draws."""
        overlays = self.bench.overlays
        if overlays is None:
            return
        layer = overlays.show_region()
        self.follow()
        layer.selected_data = set()
        self.bench.viewer.layers.selection.active = layer
        layer.mode = "add_polygon"
        self.bench.said.emit(HOW)

    def put_down(self) -> None:
        """Pan and click again; a shape that was begun is finished or let go."""
        layer, slide = self.layer, self.bench.slide_layer
        if layer is None or str(layer.mode) == "pan_zoom":
            return
        layer.mode = "pan_zoom"
        layer.selected_data = set()
        if slide is not None and self.bench.viewer.layers.selection.active is layer:
            self.bench.viewer.layers.selection.active = slide

    def fit_outlines(self) -> None:
        """Keep outlines as wide on screen as before a zoom; not while one is drawn."""
        layer, overlays = self.layer, self.bench.overlays
        if overlays is not None and layer is not None and not is_drawing(layer):
            overlays.fit_outlines()

    def follow(self) -> None:
        """Listen to the layer of the slide that is looked at now."""
        layer = self.layer
        if layer is not self._followed:
            self.close()
            self._followed = layer
            if layer is not None:
                layer.events.data.connect(self._altered)

    def close(self) -> None:
        """Stop listening."""
        self._later.stop()
        if self._followed is not None:
            self._followed.events.data.disconnect(self._altered)
        self._followed = None

    def _altered(self, event: Event) -> None:
        if event.action in FINISHED:
            self._later.start()

    def _finished(self) -> None:
        layer = self.layer
        if layer is not None and is_drawing(layer):
            self.put_down()
            self.fit_outlines()
            self.bench.said.emit("")
        self.altered.emit()


def is_drawing(layer: Shapes) -> bool:
    """Whether a tool that draws is in hand."""
    return str(layer.mode).startswith("add_")
