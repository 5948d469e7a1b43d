"""The bench of *Explore slide*: its session and overlays."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_histodistill.controllers.explore.session import ExploreSession
from napari_histodistill.slides import Slide
from napari_histodistill.widgets.shared.bench import Bench
from napari_histodistill.widgets.shared.overlays import Overlays

if TYPE_CHECKING:
    from napari.components import ViewerModel


class ExploreBench(Bench[ExploreSession, Overlays]):
    """The bench of *Explore slide*.

    What lies over a slide stays in the viewer, hidden, while another is looked at: to
    make layers again takes napari longer than a person waits without a thought.

    Attributes
    ----------
    run_layer : Image or None
        The slide of the run that is going on, or of the last one.
    ran : Signal(float)
        So much of a run is done, 0 to 1.
    put : Signal
        A slide was chosen, and all that is remembered of it is there.
    """

    ran = Signal(float)
    put = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(viewer, parent, ExploreSession(), Overlays)
        self.run_layer: Image | None = None
        self._slide: Slide | None = None  # what the overlays were made for
        self._resting: WeakKeyDictionary[Image, tuple[Slide, Overlays]] = (
            WeakKeyDictionary()
        )

    def forget_closed(self) -> None:
        """Take along what lies over slides whose layers are gone."""
        for layer in [x for x in self._resting if x not in self.viewer.layers]:
            _, overlays = self._resting.pop(layer)
            overlays.close(keep_layers=False)

    def let_go(self) -> None:
        """Stop following all slides; their overlays stay where they are."""
        for _, overlays in self._resting.values():
            overlays.close(keep_layers=True)
        self._resting.clear()
        self.drop_overlays(keep_layers=True)

    def _leave_slide(self) -> None:
        layer, overlays = self.slide_layer, self.overlays
        if layer is None or overlays is None or layer not in self.viewer.layers:
            super()._leave_slide()
            return
        overlays.rest()
        if self._slide is not None:
            self._resting[layer] = self._slide, overlays
        self.overlays = None

    def _take_up_slide(self) -> None:
        layer = self.slide_layer
        made_for, resting = (
            (None, None) if layer is None else self._resting.pop(layer, (None, None))
        )
        if resting is None or made_for is not self.session.slide:
            if resting is not None:
                resting.close(keep_layers=False)
            super()._take_up_slide()
            return
        self.overlays, self._slide = resting, made_for
        resting.wake()
        if self.session.live is None:
            resting.remove_map()  # of another student, or in another mode

    def _make_overlays(self) -> None:
        super()._make_overlays()
        self._slide = self.session.slide
        if self.overlays is not None:
            self.overlays.adopt()
