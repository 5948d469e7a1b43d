"""Choosing a slide: among the viewer's layers, from a file, with its µm per pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog, QInputDialog

from napari_histodistill.controllers.job import Job
from napari_histodistill.controllers.mapping import (
    SlideOpened,
    TissueFound,
    open_work,
    tissue_work,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.reader import FILE_ENDINGS
from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.slides import Slide, open_slide
from napari_histodistill.widgets.layer_watch import LayerWatch
from napari_histodistill.widgets.slide_layers import adopt_work, layer_mpp, slide_layers
from napari_histodistill.widgets.workbench import Bench

FILE_PATTERNS = " ".join(f"*{ending}" for ending in FILE_ENDINGS)


class SlideChoosing(QObject):
    """Keeps the slide combo, the viewer's layers and the session in step.

    What follows from another slide is up to who derives from it: :meth:`slide_put` and
    :meth:`show`.

    Parameters
    ----------
    bench : Bench
        Viewer, session, jobs.
    panel : QWidget
        With the signals ``slide_chosen`` and ``open_slide`` and an ``MppRow`` as
        ``mpp``.

    Attributes
    ----------
    jobs : tuple of str
        What has no meaning once another slide is chosen.
    """

    jobs: tuple[str, ...] = ()

    def __init__(self, bench: Bench, panel: Any) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self._layers: list[Image] = []
        self._ruler: Layer | None = None
        panel.slide_chosen.connect(self._slide_picked)
        panel.open_slide.connect(self.ask_slide)
        panel.mpp.given.connect(lambda value: self.give_mpp(value))
        panel.mpp.refused.connect(bench.said)
        panel.mpp.measure.connect(self.measure)
        self._watch = LayerWatch(bench.viewer, self)
        self._watch.listed.connect(self.layers_changed)
        self._watch.altered.connect(self.layer_altered)

    def slide_put(self) -> None:
        """Go on from a slide that has just been put on the bench."""

    def show(self) -> None:
        """Draw the panel."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the viewer."""
        self._watch.close()

    def layer_altered(self) -> None:
        """Follow a slide that was given other colours or µm per pixel elsewhere."""
        layer, known = self.bench.slide_layer, self.bench.session.slide
        if layer is None or known is None:
            return
        slide, says = slide_of(layer.metadata), layer_mpp(layer)
        if slide is None:  # a plain layer: its scale says what is known of it
            changed = says is not None and not says.agrees_with(known.mpp)
        else:
            changed = slide is not known
        if changed:
            self.choose_layer(layer)

    def layers_changed(self) -> None:
        """Follow the viewer's layer list."""
        layers = slide_layers(self.bench.viewer)
        if [id(x) for x in layers] == [id(x) for x in self._layers]:
            return
        added = [x for x in layers if all(x is not y for y in self._layers)]
        self._layers = layers
        current = self.bench.slide_layer
        if added:
            self.choose_layer(added[-1])
        elif current is not None and all(x is not current for x in layers):
            self.choose_layer(layers[-1] if layers else None)
        else:
            self.show()

    def choose_layer(self, layer: Image | None) -> None:
        """Explore the slide of a layer."""
        self.bench.pump.abandon(*self.jobs)
        self.bench.session.run_ended()
        if layer is None:
            self.bench.put_slide(None, None)
            return
        slide = slide_of(layer.metadata)
        if slide is not None:
            self._put(layer, slide)
            return
        self.bench.put_slide(layer, None)
        self.bench.pump.start(
            adopt_work(layer),
            name="Reading pixels",
            on_reports=lambda reports: self._put(layer, reports[-1].slide),
            on_end=self.bench.report_end,
        )

    def open_path(self, path: Path) -> None:
        """Open a slide file in a job and add it to the viewer."""

        def add(reports: list[SlideOpened]) -> None:
            for report in reports:
                data, kwargs, kind = slide_layer(report.slide)
                getattr(self.bench.viewer, f"add_{kind}")(data, **kwargs)

        self.bench.said.emit(f"Opening {path.name}…")
        self.bench.pump.start(
            open_work(open_slide, path),
            name="Opening",
            on_reports=add,
            on_end=self._opened,
        )

    def ask_slide(self) -> None:
        """Let the person pick a file."""
        path, _ = QFileDialog.getOpenFileName(
            self.panel,
            "Open slide",
            "",
            f"Slides ({FILE_PATTERNS});;All files (*)",
        )
        if path:
            self.open_path(Path(path))

    def give_mpp(self, value: float, source: str = "typed by the user") -> None:
        """Take the µm per pixel from the person."""
        try:
            self.bench.put_mpp(value, source)
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        self.bench.said.emit("")
        self._find_tissue()

    def measure(self) -> None:
        """Let the person draw a line and say how long it is."""
        viewer, layer = self.bench.viewer, self.bench.slide_layer
        if layer is None:
            return
        if self._ruler is None or self._ruler not in viewer.layers:
            self._ruler = viewer.add_shapes(
                name="Known length", edge_color="#f0e442", edge_width=4,
                scale=layer.scale[-2:], translate=layer.translate[-2:],
                units=layer.units[-2:],
            )  # fmt: skip
            self._ruler.mode = "add_line"
            self.bench.said.emit(
                "Draw a line along something of known length, then press Measure again."
            )
            return
        if not len(self._ruler.data):
            self.bench.said.emit("Draw a line first, then press Measure again.")
            return
        line = np.asarray(self._ruler.data[-1], float)
        pixels = float(np.linalg.norm(line[-1] - line[0]))
        length, given = QInputDialog.getDouble(
            self.panel, "Known length", "How long is the line, in µm?", 100, 0.1, 1e6, 1
        )
        if given and pixels > 0:
            viewer.layers.remove(self._ruler)
            self.give_mpp(length / pixels, "typed: measured by the user")

    def _slide_picked(self, index: int) -> None:
        if 0 <= index < len(self._layers):
            self.choose_layer(self._layers[index])

    def _put(self, layer: Image, slide: Slide) -> None:
        self.bench.put_slide(layer, slide)
        if slide.mpp is not None:
            self.bench.viewer.canvas.overlays.scale_bar.visible = True
        self._find_tissue()
        self.slide_put()

    def _find_tissue(self) -> None:
        slide = self.bench.session.slide
        if slide is not None and slide.info.is_rgb:
            self.bench.pump.start(
                tissue_work(slide),
                name="Finding tissue",
                on_reports=self._tissue_found,
                on_end=self.bench.report_end,
            )

    def _tissue_found(self, reports: list[TissueFound]) -> None:
        self.bench.session.take_tissue(reports[-1].tissue)

    def _opened(self, job: Job[Any]) -> None:
        self.bench.said.emit(job.error)
        self.bench.changed.emit()
