"""One listener for everything that happens to the viewer's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow

from napari_histodistill.layers.slide_layer import OVERLAY_MARK

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.utils.events import Event

SETTLED_MS = 200
"""A layer that is dragged sends an event per mouse move; this long after the last."""

ALTERING = frozenset(
    ("scale", "translate", "rotate", "shear", "affine", "units", "data")
)
"""Events of a layer after which it lies elsewhere or shows something else."""


class LayerWatch(QObject):
    """Signals for changes of the viewer's layers.

    Parameters
    ----------
    viewer : ViewerModel
        Whose layers.
    parent : QObject
        Owns this; the one that calls :meth:`close`.

    Attributes
    ----------
    listed : Signal
        A layer came, went, or has another place in the list; at once.
    altered : Signal
        A layer was moved, scaled or given other pixels; once it has come to rest.
    """

    listed = Signal()
    altered = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._layers = viewer.layers
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(SETTLED_MS)
        self._rest.timeout.connect(self.altered)
        events = viewer.layers.events
        self._lists = (events.inserted, events.removed, events.reordered)
        for event in self._lists:
            event.connect(self._list_changed)
        events.removing.connect(self._make_canvas_current)
        # The list repeats what its layers say, with the layer's place as index.
        events.connect(self._layer_said)

    def close(self) -> None:
        """Let go of the viewer."""
        self._rest.stop()
        for event in self._lists:
            event.disconnect(self._list_changed)
        self._layers.events.removing.disconnect(self._make_canvas_current)
        self._layers.events.disconnect(self._layer_said)

    def _make_canvas_current(self, _event: Event) -> None:
        """Make what a layer was drawn with be freed where it was made.

        napari (0.9.2) frees a layer's textures and programs as soon as it goes, in
        whichever OpenGL context happens to be current: with Mesa, that of another
        window, or of Qt, and the canvas then crashed at its next but one drawing.
        """
        canvas = _canvas_beside(self)
        if canvas is not None and canvas.isValid():
            canvas.makeCurrent()

    def _list_changed(self, _event: Event) -> None:
        self.listed.emit()

    def _layer_said(self, event: Event) -> None:
        if event.type not in ALTERING or not isinstance(event.index, int):
            return
        # Our own overlays are given new data all the time.
        if OVERLAY_MARK not in self._layers[event.index].metadata:
            self._rest.start()


def _canvas_beside(part: QObject) -> QOpenGLWidget | None:
    """Return the canvas of the window that a part of a panel belongs to."""
    above: QObject | None = part
    while above is not None and not isinstance(above, QMainWindow):
        above = above.parent()
    return None if above is None else above.findChild(QOpenGLWidget)
