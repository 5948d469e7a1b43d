"""*Compare students*: what one student has learned that the other has not.

This file only composes. What is compared, and how, lies in ``maps/difference.py``; what
a button means in ``controllers/compare.py``; each part keeps its panel, the session and
the viewer in step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QWidget

from napari_histodistill.controllers.exporting import (
    DIFFERENCE_EXPORTS,
    Exported,
    export_difference_work,
    kind_of,
)
from napari_histodistill.controllers.gentle_import import (
    import_work,
    load_student_gently,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.students import list_students
from napari_histodistill.widgets.asking import Asking
from napari_histodistill.widgets.canvas import CanvasInput
from napari_histodistill.widgets.choosing import StudentChoice
from napari_histodistill.widgets.compare_answers import DifferencePanel, PlacePanel
from napari_histodistill.widgets.compare_bench import CompareBench
from napari_histodistill.widgets.compare_choosing import CompareChoosing
from napari_histodistill.widgets.compare_panel import ChoosePanel
from napari_histodistill.widgets.comparing import Comparing
from napari_histodistill.widgets.dock import Dock, line
from napari_histodistill.widgets.export_button import ExportButton, research_label
from napari_histodistill.widgets.parts import explain
from napari_histodistill.widgets.slide_layers import world_to_pixels

WIDTH, HEIGHT = 340, 760


class CompareWidget(Dock):
    """Run two students over a slide and see where, and in what, they differ.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The parameter's name tells napari to hand the viewer over.
    load : callable, optional
        ``(name or folder, device=…) -> Student``; for tests.
    students : sequence of StudentChoice, optional
        What is on offer; the bundled ones by default.
    """

    def __init__(
        self,
        napari_viewer: Any,
        *,
        load: Callable[..., Any] = load_student_gently,
        students: list[StudentChoice] | None = None,
    ) -> None:
        super().__init__(WIDTH, HEIGHT)
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        if students is None:
            students = [StudentChoice(e.name, e.spec) for e in list_students()]
        self.bench = CompareBench(viewer, self)
        self.choose_panel = ChoosePanel()
        self.difference_panel, self.place_panel = DifferencePanel(), PlacePanel()
        self.export_button = ExportButton(DIFFERENCE_EXPORTS)
        self.lay_out(
            (self.choose_panel, line(), self.difference_panel, line(),
             self.place_panel, line(), self._last_line()),
            spacing=6,
        )  # fmt: skip
        self.choosing = CompareChoosing(
            self.bench, self.choose_panel, load_student=load, students=students
        )
        self.comparing = Comparing(self.bench, self.choose_panel, self.difference_panel)
        self.asking = Asking(self.bench, self.place_panel)
        self.canvas = CanvasInput(
            viewer,
            on_click=self._clicked,
            describe=self._describe,
            on_flicker=self._flicker,
        )
        self.bench.changed.connect(self.refresh)
        self.bench.said.connect(self.choose_panel.runner.say)
        self.comparing.place_reached.connect(self.asking.click)
        self.export_button.export.connect(self.export)
        self.bench.pump.start(
            import_work("pandas"), name="Warming up", on_reports=lambda _: None
        )
        self.choosing.layers_changed()
        self.refresh()

    @property
    def session(self) -> Any:
        """The state behind the panel."""
        return self.bench.session

    def refresh(self) -> None:
        """Draw every panel from the session."""
        self.choosing.show()
        self.comparing.show()
        self.asking.show()
        explain(
            self.export_button,
            "Take the difference elsewhere: QuPath, OME-Zarr, tables.",
            "" if self.session.compared else "Nothing to export yet: run first.",
        )

    def compare_bundles(
        self, bundles: Sequence[Path], notes: Sequence[str], layer: Any = None
    ) -> None:
        """Compare the students of two bundle folders, on the slide of a layer."""
        for which, (folder, note) in enumerate(zip(bundles, notes, strict=True)):
            self.choosing.open_bundle(which, folder, note)
        if layer is not None:
            self.choosing.choose_layer(layer)

    def export(self, key: str, path: Path | None = None) -> None:
        """Export the comparison; asks for the file where none is given."""
        kind, session = kind_of(key), self.session
        if path is None:
            name = session.slide.name if session.slide else "slide"
            chosen, _ = QFileDialog.getSaveFileName(
                self,
                kind.title.rstrip("…"),
                f"{Path(name).stem}-difference{kind.ending}",
            )
            if not chosen:
                return
            path = Path(chosen)
        try:
            work = export_difference_work(key, path, session.compared)
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        self.bench.pump.start(
            work, name="Export", on_reports=self._exported, on_end=self.bench.report_end
        )

    def let_go(self) -> None:
        """Stop all jobs and let go of the viewer."""
        self.bench.pump.close()
        self.comparing.close()
        self.asking.close()
        self.canvas.close()
        self.choosing.close()
        self.bench.drop_overlays(keep_layers=True)

    # --- wiring -------------------------------------------------------------------

    def _clicked(self, world: Any, _shift: bool) -> None:
        layer = self.bench.slide_layer
        # A panel behind another tab does not answer.
        if layer is None or not self.isVisible() or not self.session.has_maps:
            return
        y, x = world_to_pixels(layer, world)
        height, width = self.session.slide.shape
        if 0 <= y < height and 0 <= x < width:
            self.asking.click(y, x)

    def _describe(self, world: Any) -> str:
        layer = self.bench.slide_layer
        if layer is None or not self.isVisible():
            return ""
        words: str = self.session.describe(*world_to_pixels(layer, world))
        return words

    def _flicker(self, looking: bool) -> None:
        if self.isVisible() or not looking:
            self.comparing.flicker(looking)

    def _exported(self, reports: list[Exported]) -> None:
        self.bench.said.emit(f"Wrote {reports[-1].path.name}.")

    def _last_line(self) -> QWidget:
        box = QWidget()
        layout = QHBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.export_button)
        layout.addStretch(1)
        layout.addWidget(research_label())
        return box
