"""Classes for the new student from a Labels layer, wired; below step 4."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.classes import (
    WITH_CLASSES,
    ClassesFitted,
    ClassesProgress,
    Labelling,
    check_size,
    fit_work,
    hex_colors,
    named_values,
    overlap,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.layers.registration import inverse
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.slide_layer import OVERLAY_MARK
from napari_histodistill.slides import Slide
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.layers import own_to_world
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.controls import explain
from napari_histodistill.widgets.shared.slide_layers import slide_to_world

Doubles = npt.NDArray[np.float64]

TIP = (
    "Learn to recognise the classes of this layer, validate that on held-out regions, "
    "and save a model that draws class maps."
)


class Fitting(QObject):
    """Offers the Labels layers on the slide, and fits classes to one of them."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self._layers: list[Labels] = []
        self._slide: Slide | None = None
        step.fit.clicked.connect(self.fit)

    def show(self) -> None:
        """Offer what there is, once there is a student."""
        session, step = self.bench.session, self.step
        if session.sparse is not self._slide:
            self._slide = session.sparse
            step.fitted.say("")  # it was of another slide
        ready = session.ready_student is not None
        layers = labels_on_slide(self.bench) if ready else []
        if [id(x) for x in layers] != [id(x) for x in self._layers]:
            self._layers = layers
            step.offer_classes([layer.name for layer in layers])
        step.classes.setVisible(bool(layers))
        busy = self.bench.pump.is_active(DistilJob.FITTING_CLASSES)
        explain(step.fit, TIP, "Classes are being learned." if busy else "")

    def fit(self) -> None:
        """Fit classes to the chosen layer in a job."""
        session, place = self.bench.session, self.step.labels.currentIndex()
        sparse = self.bench.sparse_layer
        if session.student is None or session.sparse is None or sparse is None:
            return
        if not 0 <= place < len(self._layers):
            return
        layer = self._layers[place]
        try:
            labels = labelling_of(layer, sparse, session.sparse)
        except HistodistillError as error:
            self.step.fitted.say(str(error))
            return
        self.step.fitted.say("Looking at what the layer labels…")
        self.bench.pump.start(
            fit_work(session.sparse, labels, session.student),
            key=DistilJob.FITTING_CLASSES,
            on_reports=partial(self._reported, session.sparse),
            on_end=self._ended,
        )
        self.show()

    def _reported(
        self, slide: Slide, reports: list[ClassesFitted | ClassesProgress]
    ) -> None:
        last = reports[-1]
        where = "" if slide is self.bench.session.sparse else f"{slide.name}: "
        if isinstance(last, ClassesProgress):
            seen = f"{last.done:,} of {last.total:,} places seen."
            self.step.fitted.say(where + seen)
            return
        self.step.fitted.say(
            f"{where}{last.words} Saved as {WITH_CLASSES}; Use in Explore opens this "
            "one."
        )

    def _ended(self, job: Job[ClassesFitted | ClassesProgress]) -> None:
        if job.state is JobState.FAILED:
            self.step.fitted.say(job.error)
        self.bench.changed.emit()


def labels_on_slide(bench: DistilBench) -> list[Labels]:
    """Return the Labels layers that lie on the H&E, at least in part."""
    sparse = bench.sparse_layer
    if sparse is None or sparse not in bench.viewer.layers:
        return []
    extent, found = _extent(sparse), []
    for layer in bench.viewer.layers:
        if not isinstance(layer, Labels) or OVERLAY_MARK in layer.metadata:
            continue
        if layer.ndim != 2:
            continue
        if overlap(_extent(layer), extent):
            found.append(layer)
    return found


def labelling_of(layer: Labels, sparse: Image, slide: Slide) -> Labelling:
    """Return a Labels layer as a job takes it; nothing of its pixels is read.

    Raises
    ------
    InputError
        If it is too large to be read whole.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    check_size(layer.name, data.shape)
    matrix = inverse(slide_to_world(layer)) @ own_to_world(sparse, slide.usable_mpp)
    chosen = isinstance(layer.colormap, DirectLabelColormap)
    # Random colours are nobody's choice.
    colors = hex_colors(layer.colormap.color_dict) if chosen else {}
    return Labelling(layer.name, data, matrix, named_values(layer.features), colors)


def _extent(layer: Layer) -> tuple[Doubles, Doubles]:
    low, high = layer.extent.world
    return np.asarray(low)[-2:], np.asarray(high)[-2:]
