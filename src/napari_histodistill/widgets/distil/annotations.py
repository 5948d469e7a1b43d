"""Labels from annotations of other programs: read in a job, laid on the H&E."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from napari.layers import Layer
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.spots import why_no_spots
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.export.annotations import AnnotationLabels, annotation_labels
from napari_histodistill.layers.annotation_layer import annotation_layer
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import Slide
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.layers import own_to_world
from napari_histodistill.widgets.distil.pairing import Pairing
from napari_histodistill.widgets.distil.steps import LayersStep
from napari_histodistill.widgets.shared.controls import explain
from napari_histodistill.widgets.shared.forms import ask_file

FILES = "Annotations (*.geojson *.json)"
TIP = (
    "Annotations that were drawn on the H&E in QuPath (GeoJSON: File › Export objects "
    "as GeoJSON): areas with classes become labels that teach. Where areas overlap, "
    "the smaller one counts."
)


class AnnotationFiles(QObject):
    """Reads annotations, and takes them as a partner."""

    def __init__(self, bench: DistilBench, step: LayersStep, pairing: Pairing) -> None:
        super().__init__(bench)
        self._bench, self._step, self._pairing = bench, step, pairing
        step.annotations.clicked.connect(lambda: self.choose())

    def choose(self, path: Path | None = None) -> None:
        """Read a file; asks which where none is given."""
        if path is None:
            path = ask_file("Annotations from a file", self._step, FILES)
        sparse = self._bench.session.sparse
        if path is None or sparse is None:
            return
        source, slide = path, sparse

        def work(cancel: CancelToken) -> Iterator[AnnotationLabels]:
            yield annotation_labels(source, slide, between=cancel.check)

        def add(reports: list[AnnotationLabels]) -> None:
            self._add(reports[-1], slide, source.stem)

        self._bench.said.emit(f"Reading {source.name}…")
        self._bench.pump.start(
            work, key=DistilJob.READING_LABELS, on_reports=add, on_end=self._ended
        )

    def show(self) -> None:
        """Draw the button."""
        why = why_no_spots(self._bench.session.sparse)
        explain(self._step.annotations, TIP, why)

    def _add(self, labels: AnnotationLabels, slide: Slide, name: str) -> None:
        bench = self._bench
        if bench.session.sparse is not slide or bench.sparse_layer is None:
            bench.said.emit("Another H&E was chosen meanwhile: read the file again.")
            return
        affine = own_to_world(bench.sparse_layer, slide.usable_mpp)
        made = annotation_layer(labels, slide, name=name, affine=affine)
        layer = bench.viewer.add_layer(Layer.create(*made))
        colors: dict[int | None, str] = {None: "#00000000"}
        colors |= {k: one.color for k, one in enumerate(labels.classes, start=1)}
        layer.colormap = DirectLabelColormap(color_dict=colors)
        self._pairing.tick(*bench.partner_layers, layer)
        bench.said.emit(" ".join(labels.notes))

    def _ended(self, job: Job[AnnotationLabels]) -> None:
        if job.state is JobState.FAILED:
            self._bench.said.emit(job.error)
