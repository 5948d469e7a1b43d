"""*Compare students*: what one student has learned that the other has not.

This file only composes. What is compared, and how, lies in ``maps/difference.py``; what
a button means in ``controllers/compare/session.py``; each part keeps its panel, the
session and the viewer in step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_histodistill.controllers.compare.session import CompareSession
from napari_histodistill.controllers.shared.background_import import (
    import_work,
    load_student_in_background,
)
from napari_histodistill.controllers.shared.exporting import (
    DIFFERENCE_EXPORTS,
    ExportKey,
    check_difference,
    export_difference_work,
)
from napari_histodistill.controllers.shared.job import SlideJob, Work
from napari_histodistill.controllers.shared.map_work import StudentLoader
from napari_histodistill.controllers.shared.student_list import (
    StudentChoice,
    bundled_students,
)
from napari_histodistill.widgets.compare.answer_panels import (
    DifferencePanel,
    PlacePanel,
)
from napari_histodistill.widgets.compare.asking import Asking
from napari_histodistill.widgets.compare.bench import CompareBench
from napari_histodistill.widgets.compare.choose_panel import ChoosePanel
from napari_histodistill.widgets.compare.chooser import CompareChoosing
from napari_histodistill.widgets.compare.overlays import CompareOverlays
from napari_histodistill.widgets.compare.running import Comparing
from napari_histodistill.widgets.compare.seeding import SeedTraining
from napari_histodistill.widgets.keys import ExploreKeys, kept_keys
from napari_histodistill.widgets.shared.canvas_input import CanvasInput, CanvasKeys
from napari_histodistill.widgets.shared.controls import (
    explain,
    row,
    stack,
)
from napari_histodistill.widgets.shared.dock import line
from napari_histodistill.widgets.shared.saving import (
    ExportButton,
    SavedRow,
    research_label,
)
from napari_histodistill.widgets.shared.slide_dock import SlideDock

if TYPE_CHECKING:
    import napari
    from napari.layers import Image


class CompareWidget(SlideDock[CompareSession, CompareOverlays]):
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

    bench: CompareBench
    file_suffix = "-difference"

    def __init__(
        self,
        napari_viewer: napari.Viewer,
        *,
        load: StudentLoader = load_student_in_background,
        students: list[StudentChoice] | None = None,
    ) -> None:
        super().__init__(napari_viewer, CompareBench)
        self.choose_panel = ChoosePanel()
        self.difference_panel, self.place_panel = DifferencePanel(), PlacePanel()
        self.export_button = ExportButton(DIFFERENCE_EXPORTS, "Save…")
        self.saved_row = SavedRow()
        self.lay_out(
            (self.choose_panel, line(), self.difference_panel, line(),
             self.place_panel, line(), self._last_line()),
            spacing=6,
        )  # fmt: skip
        self.choosing = CompareChoosing(
            self.bench,
            self.choose_panel,
            load_student=load,
            students=bundled_students() if students is None else students,
        )
        self.comparing = Comparing(self.bench, self.choose_panel, self.difference_panel)
        self.seeding = SeedTraining(
            self.bench, self.choose_panel, self.choosing, self.comparing
        )
        self.asking = Asking(self.bench, self.place_panel)
        self.canvas = CanvasInput(
            self.bench.viewer,
            on_click=self._clicked,
            describe=self.describe,
            keys=CanvasKeys(),
        )
        self.take_keys(kept_keys())
        self.bench.changed.connect(self.refresh)
        self.bench.said.connect(self.say)
        self.comparing.place_reached.connect(self.asking.click)
        self.export_button.export.connect(self.export)
        self.bench.pump.start(
            import_work("pandas"), key=SlideJob.IMPORTING, on_reports=lambda _: None
        )
        self.choosing.layers_changed()
        self.refresh()

    def take_keys(self, keys: ExploreKeys) -> None:
        """Let these keys mean what they are for, on this viewer's canvas."""
        flicker = CanvasKeys(on_flicker=self._flicker, flicker=keys.flicker)
        self.canvas.take_keys(flicker)
        self.difference_panel.show_flicker_key(keys.flicker)

    def refresh(self) -> None:
        """Draw every panel from the session."""
        self.choosing.show()
        self.comparing.show()
        self.seeding.show()
        self.asking.show()
        explain(
            self.export_button,
            "Take the difference elsewhere: QuPath, OME-Zarr, tables.",
            self.session.why_not_export,
        )

    def compare_bundles(
        self, bundles: Sequence[Path], notes: Sequence[str], layer: Image | None = None
    ) -> None:
        """Compare the students of two bundle folders, on the slide of a layer."""
        for which, (folder, note) in enumerate(zip(bundles, notes, strict=True)):
            self.choosing.open_bundle(which, folder, note)
        if layer is not None:
            self.choosing.choose_layer(layer)

    def say(self, sentence: str) -> None:
        """Show a sentence below the progress bar."""
        self.choose_panel.runner.say(sentence)

    def click(self, y: float, x: float, _shift: bool) -> None:
        """Ask what is most alike to a place, where both students have looked."""
        if self.session.has_maps:
            self.asking.click(y, x)

    def describe(self, world: Sequence[float]) -> str:
        """Return what is known of a place; nothing while another tab is in front."""
        return super().describe(world) if self.is_in_front else ""

    def prepare_export(self, key: ExportKey) -> Callable[[Path], Work]:
        """Return what writes one export of the comparison, as it is now."""
        slide, compared = self.session.slide, self.session.compared
        difference = compared.difference if compared else None
        ranked = compared.ranked if compared else ()
        check_difference(key, difference, ranked)
        students = self.session.students

        def work(path: Path) -> Work:
            return export_difference_work(
                key, path, difference, ranked, slide, students
            )

        return work

    def let_go(self) -> None:
        """Stop all jobs and let go of the viewer."""
        self.bench.pump.close()
        self.comparing.close()
        self.asking.close()
        self.canvas.close()
        self.choosing.close()
        self.bench.drop_overlays(keep_layers=True)

    # --- wiring -------------------------------------------------------------------

    def _flicker(self, looking: bool) -> None:
        if self.is_in_front or not looking:
            self.comparing.flicker(looking)

    def _last_line(self) -> QWidget:
        box = QWidget()
        last = row(self.export_button, QWidget(), research_label(), stretch=1)
        stack(box, last, self.saved_row)
        return box
