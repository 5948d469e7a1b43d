"""The bench: all that the parts of a panel share on the GUI thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_histodistill.controllers.shared.job import Job, JobKey, JobState
from napari_histodistill.controllers.shared.slide_session import SlideSession
from napari_histodistill.geometry import Mpp
from napari_histodistill.layers.slide_layer import metadata_of, ref_of
from napari_histodistill.slides import Slide
from napari_histodistill.widgets.shared.job_pump import JobPump
from napari_histodistill.widgets.shared.overlays import Overlays
from napari_histodistill.widgets.shared.slide_layers import (
    fit_view,
    give_mpp,
    view_region,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel


SessionT = TypeVar("SessionT", bound=SlideSession)
OverlaysT = TypeVar("OverlaysT", bound=Overlays)


class Bench(QObject, Generic[SessionT, OverlaysT]):
    """One panel's shared state on the GUI thread.

    Parameters
    ----------
    viewer : ViewerModel
        Where everything is shown.
    parent : QObject
        The panel.
    session : SlideSession
        The state behind the panel; it is given slide, µm per pixel and view.
    make_overlays : callable
        ``(viewer, slide layer, slide, mpp)`` → what lies over a slide.

    Attributes
    ----------
    changed : Signal
        Something was chosen or computed: every panel draws itself again.
    said : Signal(str)
        A sentence for the person: a refusal or a failure.
    """

    changed = Signal()
    said = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        parent: QObject,
        session: SessionT,
        make_overlays: Callable[[ViewerModel, Image, Slide, Mpp], OverlaysT],
    ) -> None:
        super().__init__(parent)
        self.viewer: ViewerModel = viewer
        self.session: SessionT = session
        self.pump = JobPump(self)
        self.slide_layer: Image | None = None
        self.overlays: OverlaysT | None = None
        self._overlays_of = make_overlays

    def put_slide(self, layer: Image | None, slide: Slide | None) -> None:
        """Look at the slide behind a layer, or at nothing."""
        self._leave_slide()
        self.slide_layer = layer
        self.session.choose_slide(slide)
        self._take_up_slide()
        self.changed.emit()

    def put_mpp(
        self, value: float, source: str, *, ends: Sequence[JobKey] = ()
    ) -> None:
        """Give the µm per pixel to slide and layer.

        Parameters
        ----------
        value, source : float, str
            µm per pixel, and who says so.
        ends : sequence of JobKey
            Jobs that have no meaning with another value.

        Raises
        ------
        InputError
            If the number cannot be a microscope's.
        """
        self.session.type_mpp(value, source)
        self.pump.abandon(*ends)
        slide, layer = self.session.slide, self.slide_layer
        if slide is None or slide.mpp is None or layer is None:
            return
        self.drop_overlays(keep_layers=False)
        give_mpp(self.viewer, layer, slide.mpp, slide)
        self._make_overlays()
        fit_view(self.viewer, layer)
        self.changed.emit()

    def put_rgb(self) -> None:
        """Say that the slide's three channels are red, green and blue.

        The layer shows them so already; what changes is what the slide is taken for.

        Raises
        ------
        InputError
            If it has other channels.
        """
        self.session.call_rgb()
        slide, layer = self.session.slide, self.slide_layer
        ref = None if layer is None else ref_of(layer.metadata)
        if slide is None or layer is None or ref is None:
            return
        self.drop_overlays(keep_layers=False)
        layer.metadata.update(metadata_of(replace(ref, slide=slide)))
        self._make_overlays()
        self.changed.emit()

    def look(self) -> None:
        """Tell the session what the canvas shows; the worker reads it from there."""
        layer, slide = self.slide_layer, self.session.slide
        if layer is not None and slide is not None:
            self.session.look_at(view_region(self.viewer, layer, slide))

    def drop_overlays(self, *, keep_layers: bool) -> None:
        """Let go of the overlays."""
        if self.overlays is not None:
            self.overlays.close(keep_layers=keep_layers)
            self.overlays = None

    def report_end(self, job: Job[object]) -> None:
        """Say what went wrong, if something did, and draw everything again."""
        if job.state is JobState.FAILED:
            self.said.emit(job.error)
        self.changed.emit()

    def _leave_slide(self) -> None:
        """Take what lies over the slide off the screen: another is looked at."""
        self.drop_overlays(keep_layers=False)

    def _take_up_slide(self) -> None:
        """Have the overlays of the slide that was just chosen."""
        self._make_overlays()

    def _make_overlays(self) -> None:
        slide, layer = self.session.slide, self.slide_layer
        mpp = None if slide is None else slide.usable_mpp
        if slide is not None and mpp is not None and layer is not None:
            self.overlays = self._overlays_of(self.viewer, layer, slide, mpp)
