"""Choosing: which slide, which student, which µm per pixel, which part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog, QInputDialog

from napari_histodistill.controllers.job import Job
from napari_histodistill.controllers.mapping import (
    SlideOpened,
    StudentLoaded,
    TissueFound,
    open_work,
    student_work,
    tissue_work,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.reader import FILE_ENDINGS
from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.slides import Slide, open_slide
from napari_histodistill.students.spec import StudentSpec
from napari_histodistill.widgets.slide_layers import adopt_work, slide_layers
from napari_histodistill.widgets.slide_panel import SlidePanel
from napari_histodistill.widgets.workbench import Workbench

FILE_PATTERNS = " ".join(f"*{ending}" for ending in FILE_ENDINGS)

OF_THE_SLIDE = ("Finding tissue", "Reading pixels", "Stored map", "Run", "Search",
                "Ranking", "Thumbnails", "Fit", "Fitting the stain")  # fmt: skip
"""Jobs that have no meaning once another slide is chosen."""


class StudentChoice:
    """One line of the student combo: a name or folder, and its spec."""

    def __init__(self, name: str | Path, spec: StudentSpec) -> None:
        self.name, self.spec = name, spec

    @property
    def title(self) -> str:
        """Name and scale, for the combo."""
        return f"{self.spec.name} · {self.spec.mpp:g} µm/px"


class Choosing(QObject):
    """Keeps the slide panel, the viewer's layers and the session in step."""

    def __init__(
        self,
        bench: Workbench,
        panel: SlidePanel,
        *,
        load_student: Callable[..., Any],
        students: Sequence[StudentChoice],
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self._load_student = load_student
        self._students = list(students)
        self._current_student = 0 if students else -1
        self._student_asked = False
        self._device = "auto"
        self._layers: list[Image] = []
        self._ruler: Layer | None = None
        panel.slide_chosen.connect(self._slide_picked)
        panel.open_slide.connect(self.ask_slide)
        panel.student_chosen.connect(self.choose_student)
        panel.open_bundle.connect(self.ask_bundle)
        panel.mpp.given.connect(lambda value: self.give_mpp(value))
        panel.mpp.refused.connect(bench.said)
        panel.mpp.measure.connect(self.measure)
        events = bench.viewer.layers.events
        self._sources = (events.inserted, events.removed, events.reordered)
        for event in self._sources:
            event.connect(self.layers_changed)

    def close(self) -> None:
        """Let go of the viewer."""
        for event in self._sources:
            event.disconnect(self.layers_changed)

    # --- slides -------------------------------------------------------------------

    def layers_changed(self, _event: Any = None) -> None:
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
        self.bench.pump.abandon(*OF_THE_SLIDE)
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

    # --- students -----------------------------------------------------------------

    def choose_student(self, index: int) -> None:
        """Load a student of the list."""
        self._current_student, self._student_asked = index, True
        self.bench.session.choose_student(None)
        self.drop_map()
        choice = self._students[index]
        self.bench.pump.start(
            student_work(self._load_student, choice.name, self._device),
            name="Loading the student",
            on_reports=self._student_loaded,
            on_end=self._student_ended,
        )
        self.bench.changed.emit()

    def choose_device(self, device: str) -> None:
        """Load the present student onto another device."""
        self._device = device
        if self._student_asked:
            self.choose_student(self._current_student)

    def add_student(self, choice: StudentChoice, *, choose: bool = True) -> None:
        """Offer another student."""
        self._students.append(choice)
        if choose:
            self.choose_student(len(self._students) - 1)
        self.show()

    def ask_bundle(self) -> None:
        """Let the person pick a bundle folder."""
        folder = QFileDialog.getExistingDirectory(self.panel, "Open student bundle")
        if folder:
            self.open_bundle(Path(folder))
        self.show()

    def open_bundle(self, folder: Path) -> None:
        """Offer the student of a bundle folder."""
        from napari_histodistill.students.bundle import load_spec

        try:
            self.add_student(StudentChoice(folder, load_spec(folder)))
        except HistodistillError as error:
            self.bench.said.emit(str(error))

    # --- drawing ------------------------------------------------------------------

    def show(self) -> None:
        """Draw the panel."""
        bench, panel = self.bench, self.panel
        layers = [id(x) for x in self._layers]
        current = layers.index(id(bench.slide_layer)) if bench.slide_layer else -1
        panel.show_slides([x.name for x in self._layers], current)
        panel.slide_info.setToolTip(_slide_words(bench.session.slide))
        panel.show_students([s.title for s in self._students], self._current_student)
        if self._current_student >= 0:
            spec = self._students[self._current_student].spec
            panel.student_info.setToolTip(_student_words(spec))
        panel.mpp.setVisible(bench.session.needs_mpp)

    def _slide_picked(self, index: int) -> None:
        if 0 <= index < len(self._layers):
            self.choose_layer(self._layers[index])

    def _put(self, layer: Image, slide: Slide) -> None:
        self.bench.put_slide(layer, slide)
        if slide.mpp is not None:
            self.bench.viewer.canvas.overlays.scale_bar.visible = True
        self._find_tissue()
        if not self._student_asked and self._students:
            # Only now: loading one takes a moment, and nothing is done without a slide.
            self.choose_student(self._current_student)

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

    def _student_loaded(self, reports: list[StudentLoaded]) -> None:
        loaded = reports[-1]
        self.drop_map()
        self.bench.session.choose_student(loaded.student, loaded.tiles_per_s)

    def _student_ended(self, job: Job[Any]) -> None:
        self.bench.session.student_trouble = job.error
        self.bench.changed.emit()

    def drop_map(self) -> None:
        """Take the map off the screen: it was of another student."""
        self.bench.pump.abandon("Stored map", "Search", "Ranking", "Thumbnails", "Fit")
        if self.bench.overlays is not None:
            self.bench.overlays.remove_map()

    def _opened(self, job: Job[Any]) -> None:
        self.bench.said.emit(job.error)
        self.bench.changed.emit()


def _slide_words(slide: Slide | None) -> str:
    if slide is None:
        return "No slide is open."
    height, width = slide.shape
    mpp = f"{slide.mpp.mean:.4g} µm/px ({slide.mpp.source})" if slide.mpp else "unknown"
    lines = [
        slide.name,
        f"{height:,} × {width:,} px, {len(slide.level_infos)} levels",
        f"µm per pixel: {mpp}",
        f"Read as {slide.info.vendor or slide.info.backend}",
        *slide.info.notes,
    ]
    return "\n".join(lines)


def _student_words(spec: StudentSpec) -> str:
    lines = [spec.title, spec.description, f"Licence: {spec.licence}"]
    scale = f"Tile {spec.tile_um:.0f} µm at {spec.mpp:g} µm/px ({spec.mpp_source})"
    lines.append(scale)
    if spec.classes:
        lines.append("Classes: " + ", ".join(spec.class_names))
    lines += [f"{m.name}: {m.value:.2f} ({m.protocol})" for m in spec.metrics]
    return "\n".join(line for line in lines if line)
