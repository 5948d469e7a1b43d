"""Legend and overview on the canvas, wired: they come, follow the view, and go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QEvent, QObject
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.shown import (
    CanvasLegend,
    SlideOverview,
    canvas_legend,
    overview_work,
)
from napari_histodistill.controllers.shared.job import Job
from napari_histodistill.slides import Slide
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.canvas_boxes import LegendBox, OverviewBox
from napari_histodistill.widgets.explore.legend import ClassesPanel
from napari_histodistill.widgets.explore.showing import ShowingPanel
from napari_histodistill.widgets.shared.slide_layers import (
    pixels_to_world,
    world_to_pixels,
)

MARGIN = 10
"""Between a box and the canvas's edge, pixels."""

SHARE = 0.4
"""Of the canvas that a box may take in each direction; a larger one is not shown."""


def canvas_beside(panel: QWidget) -> QWidget | None:
    """Return the canvas of the napari window that a panel is docked in, if it is."""
    above: QObject | None = panel
    while above is not None and not isinstance(above, QMainWindow):
        above = above.parent()
    middle = above.centralWidget() if isinstance(above, QMainWindow) else None
    return None if middle is None else middle.findChild(QOpenGLWidget)


class OnCanvas(QObject):
    """Keeps the legend and the overview in the corners of the canvas in step.

    napari's own overlays know neither swatches nor pictures, so both are widgets that
    lie on the canvas of the window that the panel is in.
    """

    def __init__(
        self,
        bench: ExploreBench,
        panel: ShowingPanel,
        classes_panel: ClassesPanel,
        dock: QWidget,
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel, self.classes_panel = bench, panel, classes_panel
        self.legend: LegendBox | None = None
        self.overview: OverviewBox | None = None
        self._dock = dock
        self._canvas: QWidget | None = None
        self._slide: Slide | None = None
        self._trouble = ""
        dock.installEventFilter(self)
        panel.legend_wanted.connect(self.show)
        panel.overview_wanted.connect(self.show)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Find the canvas once the panel is shown; keep to its corners."""
        if event is not None and watched is self._dock:
            if event.type() == QEvent.Type.Show:
                self._settle_on(canvas_beside(self._dock))
        elif event is not None and event.type() == QEvent.Type.Resize:
            self._place()
            self.follow()
        return False

    def show(self) -> None:
        """Draw both again: slide, colours or what is wanted may be another."""
        if self.legend is None or self.overview is None:
            return
        session, wanted = self.bench.session, self.panel.legend.isChecked()
        hidden = self.classes_panel.hidden
        self.legend.show_legend(
            canvas_legend(session, hidden) if wanted else CanvasLegend()
        )
        self._picture()
        self.panel.explain_overview(self._trouble)
        self._place()
        self.follow()

    def follow(self) -> None:
        """Mark in the overview what the canvas shows."""
        layer, slide = self.bench.slide_layer, self.bench.session.slide
        if self.overview is None or layer is None or slide is None:
            return
        viewer = self.bench.viewer
        half = np.array(viewer.canvas.size, float) / 2 / viewer.scene.camera.zoom
        center = np.array(viewer.scene.camera.center[-2:], float)
        height, width = slide.shape
        corners = []
        for sign in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
            y, x = world_to_pixels(layer, center + half * np.array(sign))
            corners.append((y / height, x / width))
        self.overview.show_view(corners)

    def close(self) -> None:
        """Leave nothing on the canvas."""
        self._dock.removeEventFilter(self)
        self._leave()

    # --- inside -------------------------------------------------------------------

    def _settle_on(self, canvas: QWidget | None) -> None:
        if canvas is self._canvas:
            return
        self._leave()
        if canvas is None:
            return
        self._canvas = canvas
        self.legend, self.overview = LegendBox(canvas), OverviewBox(canvas)
        self.overview.went.connect(self._go)
        canvas.installEventFilter(self)
        canvas.destroyed.connect(self._forget)
        self.show()

    def _leave(self) -> None:
        if self._canvas is not None:
            self._canvas.removeEventFilter(self)
            self._canvas.destroyed.disconnect(self._forget)
        for box in (self.legend, self.overview):
            if box is not None:
                box.hide()
                box.deleteLater()
        self._forget()

    def _forget(self, _canvas: QObject | None = None) -> None:
        self._canvas = self.legend = self.overview = self._slide = None

    def _picture(self) -> None:
        """Have the slide's picture read, once, if it is wanted."""
        slide, pump = self.bench.session.slide, self.bench.pump
        if self.overview is None:
            return
        if slide is not self._slide:
            self.overview.forget_picture()
            pump.abandon(ExploreJob.OVERVIEW)
            self._slide, self._trouble = None, ""
        if slide is None or self._slide is slide:
            return
        if self.panel.overview.isChecked():
            self._slide = slide
            pump.start(
                overview_work(slide),
                key=ExploreJob.OVERVIEW,
                on_reports=self._read,
                on_end=self._ended,
            )

    def _read(self, reports: list[SlideOverview]) -> None:
        if self.overview is not None:
            self.overview.show_picture(reports[-1].pixels)
            self._place()
            self.follow()

    def _ended(self, job: Job[object]) -> None:
        self._trouble = job.error
        self.panel.explain_overview(self._trouble)

    def _place(self) -> None:
        """Put the legend into the upper left corner, the overview into the right."""
        canvas, legend, overview = self._canvas, self.legend, self.overview
        if canvas is None or legend is None or overview is None:
            return
        wanted = self.panel.overview.isChecked() and overview.has_picture
        fits = (
            overview.width() <= SHARE * canvas.width()
            and overview.height() <= SHARE * canvas.height()
        )
        legend.move(MARGIN, MARGIN)
        overview.move(canvas.width() - overview.width() - MARGIN, MARGIN)
        overview.setVisible(wanted and fits)

    def _go(self, y: float, x: float) -> None:
        layer, slide = self.bench.slide_layer, self.bench.session.slide
        if layer is None or slide is None:
            return
        height, width = slide.shape
        there: Sequence[float] = pixels_to_world(layer, y * height, x * width)
        self.bench.viewer.scene.camera.center = tuple(there)
