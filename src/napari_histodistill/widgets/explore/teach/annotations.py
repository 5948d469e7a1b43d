"""Annotations, wired: GeoJSON becomes strokes, and strokes become GeoJSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtCore import QObject

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.teach.painting import (
    AnnotationsRead,
    StrokesWritten,
    read_annotations_work,
    write_strokes_work,
)
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.teach.panel import TeachPanel
from napari_histodistill.widgets.explore.teach.teaching import Teaching
from napari_histodistill.widgets.shared.forms import ask_file, ask_new_file

FILES = "GeoJSON (*.geojson *.json)"


class Annotating(QObject):
    """Reads annotations as strokes and writes strokes as annotations."""

    def __init__(
        self, bench: ExploreBench, panel: TeachPanel, teaching: Teaching
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel, self.teaching = bench, panel, teaching
        panel.from_annotations.connect(self.ask_file)
        panel.to_annotations.connect(self.ask_new_file)

    def ask_file(self) -> None:
        """Let the person choose a file of annotations."""
        path = ask_file("Strokes from annotations", self.panel, FILES)
        if path is not None:
            self.read(path)

    def read(self, path: Path) -> None:
        """Paint a file's polygons as strokes, over those that are there."""
        slide, overlays = self.bench.session.slide, self.bench.overlays
        if slide is None or overlays is None:
            self.panel.say(self.bench.session.why_not_paint)
            return
        layer = overlays.show_strokes(self.teaching.classes.all)
        self.panel.say(f"Reading {path.name}…")
        self.bench.pump.start(
            read_annotations_work(path, slide.info, slide.shape, layer.data.shape),
            key=ExploreJob.ANNOTATIONS,
            on_reports=self._read,
            on_end=self._ended,
        )

    def ask_new_file(self) -> None:
        """Let the person name a file for the strokes."""
        path = ask_new_file("Export strokes", self.panel, "strokes.geojson", FILES)
        if path is not None:
            self.write(path)

    def write(self, path: Path) -> None:
        """Write the strokes on this slide."""
        slide = self.bench.session.slide
        if slide is None:
            return
        strokes = self.teaching.strokes()
        self.bench.pump.start(
            write_strokes_work(
                path, strokes.known, strokes.classes, slide.info, slide.shape
            ),
            key=ExploreJob.ANNOTATIONS,
            on_reports=self._written,
            on_end=self._ended,
        )

    def _read(self, reports: list[AnnotationsRead]) -> None:
        found, overlays = reports[-1], self.bench.overlays
        if overlays is None:
            return
        teaching = self.teaching
        try:
            labels = teaching.merge_classes(found.classes)
        except HistodistillError as error:
            self.panel.say(f"Nothing was painted: {error}")
            return
        layer = overlays.show_strokes(teaching.classes.all)
        painted = labels[found.labels]
        there = np.nonzero(painted)
        layer.data_setitem(there, painted[there])  # in one step, which can be undone
        self.bench.changed.emit()
        self.panel.say(found.words)

    def _written(self, reports: list[StrokesWritten]) -> None:
        self.panel.say(f"Written: {reports[-1].path}")

    def _ended(self, job: Job[object]) -> None:
        if job.state is JobState.FAILED:
            self.panel.say(job.error)
