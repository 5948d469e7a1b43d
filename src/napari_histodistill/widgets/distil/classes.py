"""Classes for the new student from a Labels layer: step 5 of *Distil a student*."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.classes import (
    NAME_COLUMNS,
    WITH_CLASSES,
    ClassesFitted,
    ClassesProgress,
    Labelling,
    fit_work,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.errors import HistodistillError, InputError
from napari_histodistill.layers.slide_layer import OVERLAY_MARK
from napari_histodistill.slides import Slide
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.layers import own_to_world
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.controls import explain
from napari_histodistill.widgets.shared.slide_layers import slide_to_world

MOST_PIXELS = 10_000 * 10_000
"""A larger Labels layer is not read whole."""

TIP = (
    "Learn to name the classes of this layer from what the student sees, test that on "
    "regions kept aside, and save a student that draws class maps."
)


class Fitting(QObject):
    """Offers the Labels layers on the slide, and fits classes to one of them."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self._layers: list[Labels] = []
        step.fit.clicked.connect(self.fit)

    def show(self) -> None:
        """Offer what there is, once there is a student."""
        session, step = self.bench.session, self.step
        run = session.run
        ready = session.student is not None and not (run is None or run.view().works)
        layers = labelling(self.bench) if ready else []
        if [id(x) for x in layers] != [id(x) for x in self._layers]:
            self._layers = layers
            step.offer_classes([layer.name for layer in layers])
        step.classes.setVisible(bool(layers))
        busy = self.bench.pump.is_active(DistilJob.FITTING_CLASSES)
        explain(step.fit, TIP, "Classes are being fitted." if busy else "")

    def fit(self) -> None:
        """Fit classes to the chosen layer in a job."""
        session, place = self.bench.session, self.step.labels.currentIndex()
        if session.student is None or session.sparse is None:
            return
        if not 0 <= place < len(self._layers):
            return
        layer = self._layers[place]
        try:
            labels = labelling_of(layer, self.bench.sparse_layer, session.sparse)
        except HistodistillError as error:
            self.step.tell_classes(str(error))
            return
        self.step.tell_classes("Looking at what the layer labels…")
        self.bench.pump.start(
            fit_work(session.sparse, labels, session.student),
            key=DistilJob.FITTING_CLASSES,
            on_reports=self._reported,
            on_end=self._ended,
        )
        self.show()

    def _reported(self, reports: list[ClassesFitted | ClassesProgress]) -> None:
        last = reports[-1]
        if isinstance(last, ClassesProgress):
            self.step.tell_classes(f"{last.done:,} of {last.total:,} places seen.")
            return
        self.step.tell_classes(
            f"{last.words} Saved as {WITH_CLASSES}; Use in Explore takes this one."
        )

    def _ended(self, job: Job[Any]) -> None:
        if job.state is JobState.FAILED:
            self.step.tell_classes(job.error)
        self.bench.changed.emit()


def labelling(bench: DistilBench) -> list[Labels]:
    """Return the Labels layers that lie on the H&E, at least in part."""
    sparse = bench.sparse_layer
    if sparse is None or sparse not in bench.viewer.layers:
        return []
    low, high = _extent(sparse)
    found = []
    for layer in bench.viewer.layers:
        if not isinstance(layer, Labels) or OVERLAY_MARK in layer.metadata:
            continue
        if layer.ndim != 2:
            continue
        first, last = _extent(layer)
        if (first < high).all() and (last > low).all():
            found.append(layer)
    return found


def labelling_of(layer: Labels, sparse: Any, slide: Slide) -> Labelling:
    """Return a Labels layer as a job wants it; nothing of its pixels is read.

    Raises
    ------
    InputError
        If it is too large to be read whole.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    if int(np.prod(data.shape)) > MOST_PIXELS:
        msg = f"{layer.name} has more than 100 million pixels: use a smaller one."
        raise InputError(msg)
    matrix = np.linalg.inv(slide_to_world(layer)) @ own_to_world(
        sparse, slide.usable_mpp
    )
    return Labelling(layer.name, data, matrix, _names(layer), _colors(layer))


def _extent(layer: Any) -> tuple[Any, Any]:
    low, high = layer.extent.world
    return np.asarray(low)[-2:], np.asarray(high)[-2:]


def _names(layer: Labels) -> dict[int, str]:
    """Return the names of values, from a column of the layer's features."""
    table = layer.features
    columns = {str(c).lower(): c for c in table.columns}
    column = next((columns[c] for c in NAME_COLUMNS if c in columns), None)
    if column is None:
        return {}
    # napari's rule: a column "index" says which label a row is of; without it, row k
    # is of label k.
    index = table["index"] if "index" in table.columns else range(len(table))
    known = {int(k): str(n) for k, n in zip(index, table[column], strict=True)}
    return {k: name for k, name in known.items() if name != "nan"}


def _colors(layer: Labels) -> dict[int, str]:
    """Return the colours that a person gave to values; random ones are no choice."""
    if not isinstance(layer.colormap, DirectLabelColormap):
        return {}
    return {
        int(value): "#" + "".join(f"{round(255 * float(c)):02x}" for c in color[:3])
        for value, color in layer.colormap.color_dict.items()
        if value is not None and color[3] > 0
    }
