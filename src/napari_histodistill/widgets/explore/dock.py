"""*Explore slide*: the panel that a pathologist meets.

This file only composes. What a button means is decided in ``controllers``; each part
(:class:`Choosing`, :class:`Mapping`, :class:`Searching`, :class:`Teaching`) keeps one
panel, the session and the viewer in step; everything shared is on the workbench.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_histodistill.controllers.explore.exports import prepared_export
from napari_histodistill.controllers.explore.session import ExploreSession
from napari_histodistill.controllers.shared.background_import import (
    import_work,
    load_student_in_background,
)
from napari_histodistill.controllers.shared.exporting import ExportKey
from napari_histodistill.controllers.shared.job import SlideJob, Work
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.map_work import StudentLoader
from napari_histodistill.controllers.shared.student_list import (
    StudentChoice,
    bundled_students,
)
from napari_histodistill.students.bundle import load_spec
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.chooser import Choosing
from napari_histodistill.widgets.explore.judging import Judging
from napari_histodistill.widgets.explore.keeping import PaintKeeping
from napari_histodistill.widgets.explore.legend import ClassesPanel
from napari_histodistill.widgets.explore.on_canvas import OnCanvas
from napari_histodistill.widgets.explore.running import Mapping
from napari_histodistill.widgets.explore.showing import Showing, ShowingPanel
from napari_histodistill.widgets.explore.similar import Searching, SimilarPanel
from napari_histodistill.widgets.explore.slide_panel import SlidePanel
from napari_histodistill.widgets.explore.stain import Staining
from napari_histodistill.widgets.explore.teach.annotations import Annotating
from napari_histodistill.widgets.explore.teach.asking import Questioning
from napari_histodistill.widgets.explore.teach.panel import TeachPanel
from napari_histodistill.widgets.explore.teach.teaching import Teaching
from napari_histodistill.widgets.explore.trust import TrustPanel
from napari_histodistill.widgets.keys import ExploreKeys, kept_keys
from napari_histodistill.widgets.shared.canvas_input import CanvasInput, CanvasKeys
from napari_histodistill.widgets.shared.dock import line
from napari_histodistill.widgets.shared.drafting import DraftRow
from napari_histodistill.widgets.shared.overlays import Overlays
from napari_histodistill.widgets.shared.run_panel import RunPanel
from napari_histodistill.widgets.shared.slide_dock import SlideDock

if TYPE_CHECKING:
    import napari
    from napari.utils.events import Event, EventEmitter

VIEW_SETTLE_MS = 250


class ExploreWidget(SlideDock[ExploreSession, Overlays]):
    """Run a student over a slide, see its map fill, find what looks alike, teach it.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The parameter's name tells napari to hand the viewer over.
    load : callable, optional
        ``(name or folder, device=…) -> Student``; for tests.
    students : sequence of StudentChoice, optional
        What is on offer; the bundled ones by default.
    """

    bench: ExploreBench

    def __init__(
        self,
        napari_viewer: napari.Viewer,
        *,
        load: StudentLoader = load_student_in_background,
        students: list[StudentChoice] | None = None,
    ) -> None:
        super().__init__(napari_viewer, ExploreBench)
        self.slide_panel, self.run_panel = SlidePanel(), RunPanel(starts_over=True)
        self.classes_panel, self.teach_panel = ClassesPanel(), TeachPanel()
        self.similar_panel, self.trust_panel = SimilarPanel(), TrustPanel()
        self.showing_panel, self.draft_row = ShowingPanel(), DraftRow()
        self.saved_row = self.trust_panel.saved
        sections = (
            self.draft_row,
            self.slide_panel, self.run_panel, line(),
            self.showing_panel, self.classes_panel, line(),
            self.trust_panel, line(), self.similar_panel, line(), self.teach_panel,
            line(), self.trust_panel.footer,
        )  # fmt: skip
        self.lay_out(sections, spacing=6)
        self.choosing = Choosing(
            self.bench,
            self.slide_panel,
            load_student=load,
            students=bundled_students() if students is None else students,
        )
        self.staining = Staining(
            self.bench, self.slide_panel.stain, drop_map=self.choosing.drop_map
        )
        self.mapping = Mapping(
            self.bench, self.slide_panel, self.run_panel, self.classes_panel
        )
        self.judging = Judging(self.bench, self.trust_panel, self.classes_panel)
        self.searching = Searching(
            self.bench,
            self.similar_panel,
            files=self.choosing.listed_files,
            open_file=self.choosing.look_at,
        )
        self.teaching = Teaching(self.bench, self.teach_panel)
        self.asking = Questioning(self.bench, self.teach_panel, self.teaching)
        self.annotating = Annotating(self.bench, self.teach_panel, self.teaching)
        self.showing = Showing(self.bench, self.showing_panel, self.classes_panel)
        self.on_canvas = OnCanvas(
            self.bench, self.showing_panel, self.classes_panel, self
        )
        self.keeping = PaintKeeping(self.bench, self.teaching, self.draft_row)
        self.canvas = CanvasInput(
            self.bench.viewer,
            on_click=self._clicked,
            describe=self.describe,
            keys=CanvasKeys(),
        )
        self.take_keys(kept_keys())
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(VIEW_SETTLE_MS)
        self._disposers: list[Callable[[], None]] = []
        self._connect()
        self.bench.pump.start(
            import_work(
                "pandas", "zarr", "zarr.codecs", "napari_histodistill.maps.engine"
            ),
            key=SlideJob.IMPORTING,
            on_reports=lambda _: None,
        )
        self.choosing.layers_changed()
        self.refresh()

    def take_keys(self, keys: ExploreKeys) -> None:
        """Let these keys mean what they are for, on this viewer's canvas."""
        self.key_names = keys
        places = self.similar_panel.places
        self.canvas.take_keys(
            CanvasKeys(
                on_toggle=self._press_digit,
                on_peek=self._peek,
                on_opacity=self.showing.step_opacity,
                others={
                    keys.next_slide: partial(self.choosing.step, 1),
                    keys.previous_slide: partial(self.choosing.step, -1),
                    keys.next_place: partial(places.step, 1),
                    keys.previous_place: partial(places.step, -1),
                    "S": self.asking.skip,
                    "Escape": self.asking.stop,
                },
                peek=keys.bare_tissue,
                fainter=keys.fainter,
                stronger=keys.stronger,
            )
        )
        self.showing_panel.show_peek_key(keys.bare_tissue)

    def refresh(self) -> None:
        """Draw every panel from the session."""
        self.staining.follow()
        self.choosing.show()
        self.mapping.show()
        self.staining.show(self.session.why_locked)
        self.searching.show()
        self.teaching.show()
        self.judging.show()
        self.showing.show()

    def say(self, sentence: str) -> None:
        """Show a sentence below the progress bar; "" takes the last one back."""
        self.run_panel.say_in_passing(sentence)

    def click(self, y: float, x: float, shift: bool) -> None:
        """Search for what looks like a place, or with Shift does not."""
        if self.session.live is not None:
            self.searching.click(y, x, like=not shift)

    def prepare_export(self, key: ExportKey) -> Callable[[Path], Work]:
        """Return what writes one export of the map or the search, as shown now."""
        return prepared_export(self.session, key, self.classes_panel.hidden)

    def may_close(self) -> bool:
        """Ask before what was painted is lost, where no draft of it could be kept."""
        return self.keeping.may_close()

    def let_go(self) -> None:
        """Stop all jobs and let go of the viewer."""
        self.keeping.close()
        self.teaching.close()
        self.bench.pump.close()
        self._settle.stop()
        self.canvas.close()
        self.on_canvas.close()
        self.mapping.close()
        self.choosing.close()
        self.bench.let_go()
        for dispose in self._disposers:
            dispose()
        self._disposers.clear()

    # --- wiring -------------------------------------------------------------------

    def _connect(self) -> None:
        bench = self.bench
        bench.changed.connect(self.refresh)
        bench.said.connect(self.say)
        self.run_panel.device_chosen.connect(self.choosing.choose_device)
        self.trust_panel.export.connect(self.export)
        self.teaching.saved.connect(self._student_saved)
        self.teaching.taught.connect(self.mapping.show_taught)
        self.teaching.untaught.connect(self.mapping.forget_taught)
        self.teaching.recoloured.connect(self._recolour_taught)
        bench.put.connect(self._clear_words)
        bench.put.connect(self.mapping.show_resumed)
        bench.put.connect(self.searching.show_resumed)
        self.choosing.student_followed.connect(self.run_panel.say_while_idle)
        self.classes_panel.renamed.connect(self._rename_taught)
        self.classes_panel.all_wanted.connect(self._show_all)
        self.showing.color_chosen.connect(self._recolour)
        self.showing.drawn.connect(self.on_canvas.show)
        self.mapping.drawn.connect(self.showing.show_counts)
        self._settle.timeout.connect(self._view_settled)
        camera, layers = bench.viewer.scene.camera.events, bench.viewer.layers.events
        self._listen(camera.center, self._view_moved)
        self._listen(camera.zoom, self._view_moved)
        self._listen(layers.inserted, self._adopt_keys)
        self._listen(layers.removed, self._adopt_keys)
        active = bench.viewer.layers.selection.events.active
        self._listen(active, self.teaching.show_painting)

    def _listen(self, event: EventEmitter, callback: Callable[..., None]) -> None:
        event.connect(callback)
        self._disposers.append(partial(event.disconnect, callback))

    def _adopt_keys(self, _event: Event | None = None) -> None:
        if self.bench.slide_layer is not None:
            self.canvas.adopt(self.bench.slide_layer)

    def _clear_words(self) -> None:
        """Take back what was said of the slide that was left."""
        self.teach_panel.say("")
        if not self.session.running:
            self.run_panel.say("")
        self.mapping.show()

    def _view_moved(self, _event: Event | None = None) -> None:
        self.on_canvas.follow()
        self._settle.start()

    def _view_settled(self) -> None:
        self.bench.look()
        # What is looked at is read: damage may have come to light.
        self.judging.show_notes()
        self.mapping.drawing.fit_outlines()
        if self.session.region is RegionChoice.VIEW:
            self.mapping.show()

    def _peek(self, looking: bool) -> None:
        if self.bench.overlays is not None:
            self.bench.overlays.peek(looking)

    def _show_all(self) -> None:
        self.showing.show_all()
        if self.session.map_trust.leave_out:
            self.judging.leave_out(wanted=False)

    def _rename_taught(self, name: str, wish: str) -> None:
        names = [spec.name for spec in self.teaching.classes.all]
        if name in names:
            self.teaching.rename(names.index(name), wish)

    def _recolour(self, index: int, color: str) -> None:
        name = self.session.class_rows()[index].name
        names = [spec.name for spec in self.teaching.classes.all]
        if self.session.taught is not None and name in names:
            self.teaching.recolour(names.index(name), color)  # the strokes, too
        else:
            self.showing.recolour(index, color)

    def _recolour_taught(self, name: str, color: str) -> None:
        self.session.showing.recolour(name, color)
        rows = [row.name for row in self.session.class_rows()]
        if self.session.taught is not None and name in rows:
            self.showing.recolour(rows.index(name), color)

    def _press_digit(self, index: int) -> None:
        if not self.asking.answer(index):
            self.showing.press_digit(index)

    def _student_saved(self, folder: Path, _slide: object) -> None:
        self.choosing.add_student(
            StudentChoice(folder, load_spec(folder)), choose=False
        )
