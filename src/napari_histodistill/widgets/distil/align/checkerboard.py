"""The checkerboard on the canvas: one small layer that follows what is in view."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_histodistill.controllers.distil.align.checkerboard import (
    Checkerboard,
    checkerboard_work,
    fitting_square_um,
    say_checkerboard,
    screen_px,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.layers.overlay_placement import placement
from napari_histodistill.layers.slide_layer import OVERLAY_MARK
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.layers import own_to_world
from napari_histodistill.widgets.shared.slide_layers import view_region

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.utils.events import Event

    from napari_histodistill.controllers.distil.partners import Partner
    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.geometry import Region
    from napari_histodistill.slides import Slide

TITLE = "Checkerboard"
SETTLED_MS = 120
"""Time that the view must rest before it is composed again."""


class CheckerView(QObject):
    """Shows and removes the checkerboard.

    Parameters
    ----------
    bench : DistilBench
        Viewer, session and jobs.

    Attributes
    ----------
    closed : Signal
        It was removed, here or in the layer list.
    described : Signal(str)
        A sentence about what it shows.
    """

    closed = Signal()
    described = Signal(str)

    def __init__(self, bench: DistilBench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._layer: Image | None = None
        self._known: DenseLayer | None = None
        self._square_um: float | None = None
        self._slide: Slide | None = None
        self._on = False
        self._timer = bench.timer(SETTLED_MS, self._compose)
        self._timer.setSingleShot(True)
        camera = bench.viewer.scene.camera.events
        self._sources = (camera.center, camera.zoom, bench.viewer.layers.events.removed)

    @property
    def on(self) -> bool:
        """Whether it is shown."""
        return self._on

    @property
    def square_um(self) -> float | None:
        """Edge of a square; None until it was first shown."""
        return self._square_um

    def start(self) -> None:
        """Show it for what is in view, and follow the view."""
        if self._on:
            return
        view = self._view()
        if view is None or self._bench.session.sparse is None:
            self.described.emit("The H&E is not in view: move there first.")
            self.closed.emit()
            return
        self._on, self._slide = True, self._bench.session.sparse
        if self._square_um is None:
            self._square_um = fitting_square_um(view, self._bench.session.sparse)
        camera = self._sources[:2]
        for event in camera:
            event.connect(self._view_moved)
        self._sources[2].connect(self._layer_removed)
        self._compose()

    def stop(self) -> None:
        """Remove it."""
        if not self._on:
            return
        self._on = False
        self._timer.stop()
        self._bench.pump.abandon(DistilJob.COMPOSING)
        for event in self._sources[:2]:
            event.disconnect(self._view_moved)
        self._sources[2].disconnect(self._layer_removed)
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._bench.viewer.layers:
            self._bench.viewer.layers.remove(layer)
        self.described.emit("")
        self.closed.emit()

    def set_square(self, square_um: float) -> None:
        """Choose the edge of a square, µm."""
        self._square_um = square_um
        self.refresh()

    def refresh(self) -> None:
        """Compose again, once: the partner was moved, or another one is chosen."""
        if self._on:
            self._timer.start()

    def leave_other_slide(self) -> None:
        """Remove it if it is of a slide that is no longer the H&E."""
        if self._slide is not self._bench.session.sparse:
            self.stop()

    def _view(self) -> Region | None:
        sparse, layer = self._bench.session.sparse, self._bench.sparse_layer
        if sparse is None or layer is None:
            return None
        return view_region(self._bench.viewer, layer, sparse)

    def _view_moved(self, _event: Event) -> None:
        self._timer.start()

    def _layer_removed(self, event: Event) -> None:
        if self._layer is not None and event.value is self._layer:
            self._layer = None
            self.stop()

    def _compose(self) -> None:
        bench, view = self._bench, self._view()
        sparse, partner = bench.session.sparse, bench.session.aligned_partner
        zoom = float(bench.viewer.scene.camera.zoom)
        if partner is None or sparse is None:
            self.stop()
            return
        if view is None or self._square_um is None:
            return  # the H&E was moved out of view; what is shown stays where it is
        bench.pump.start(
            checkerboard_work(
                sparse,
                partner,
                view,
                self._square_um,
                screen_px=screen_px(view, sparse, zoom),
                known=self._known,
            ),
            key=DistilJob.COMPOSING,
            on_reports=partial(self._composed, sparse, partner),
            on_end=self._ended,
        )

    def _composed(
        self, sparse: Slide, partner: Partner, reports: list[Checkerboard]
    ) -> None:
        bench, board, session = self._bench, reports[-1], self._bench.session
        if not self._on or session.sparse is not sparse:
            return
        if session.aligned_partner is not partner:
            return  # it was laid otherwise meanwhile, and is composed again
        self._known = board.layer
        own = own_to_world(bench.sparse_layer, sparse.usable_mpp)
        placed = placement(board.world, own)
        if self._layer is None:
            active = bench.viewer.layers.selection.active
            self._layer = bench.viewer.add_image(
                board.pixels,
                rgb=True,
                name=TITLE,
                metadata={OVERLAY_MARK: "checkerboard"},
                interpolation2d="nearest",
                **placed,
            )
            bench.viewer.layers.selection.active = active
        else:
            layer = self._layer
            layer.data = board.pixels
            for key in ("scale", "translate", "affine"):
                setattr(layer, key, placed[key])
        self.described.emit(say_checkerboard(board))

    def _ended(self, job: Job[Checkerboard]) -> None:
        if job.state is JobState.FAILED:
            self._bench.said.emit(job.error)
            self.stop()
