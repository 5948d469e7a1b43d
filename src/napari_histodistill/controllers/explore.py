"""Explore slide: what a person has chosen, what is computed, what may happen next.

The session belongs to the GUI thread and is the only thing that changes there. The
cycle is always the same: a button asks the session for *work* (a generator over frozen
values), a job runs it in a thread, its reports come back on the GUI thread and are
given to the session's ``take_…`` methods, and the widget draws what the session says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_histodistill.controllers.live_map import ClassRow, LiveMap
from napari_histodistill.controllers.mapping import run_work, stored_work
from napari_histodistill.controllers.planning import (
    Detail,
    RunPlan,
    default_step,
    detail_steps,
    duration_in_words,
    in_words,
    store_path_of,
    stored_since,
)
from napari_histodistill.controllers.similar import (
    IndexBuilt,
    Prompt,
    Prompts,
    SimilarResult,
    query_work,
)
from napari_histodistill.controllers.teaching import Strokes, Taught, teach_work
from napari_histodistill.errors import HistodistillError, InputError
from napari_histodistill.geometry import Mpp, Region

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.job import Work
    from napari_histodistill.controllers.mapping import RunUpdate
    from napari_histodistill.maps.similarity import SimilarityIndex
    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.tissue import TissueMask
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

RegionChoice = Literal["whole", "view", "shape"]


class ExploreSession:
    """State of one *Explore slide* panel; no Qt, no napari.

    Attributes
    ----------
    slide : Slide or None
        What is explored.
    student : Student or None
        What looks at it, loaded and ready.
    tissue : TissueMask or None
        Found or edited; None until then.
    mode : {"tiles", "tokens"}
        How embeddings are laid on the grid.
    region : {"whole", "view", "shape"}
        What Run covers.
    view : Region or None
        What the canvas shows, level-0 px; read by the worker, so only ever replaced.
    shape : ndarray or None
        ``(n, 2)`` level-0 px: the drawn shape.
    student_trouble : str
        Why a student that was chosen could not be loaded.
    steps, step : tuple of Detail, int
        Strides on offer and the chosen one.
    live : LiveMap or None
        The map as far as it is computed.
    prompts, similar : Prompts, SimilarResult or None
        What was clicked and the answer.
    taught : Taught or None
        A probe fitted to strokes, in place of the student's own head.
    """

    def __init__(self) -> None:
        self.slide: Slide | None = None
        self.student: Student | None = None
        self.tiles_per_s = 0.0
        self.tissue: TissueMask | None = None
        self.mode: EmbeddingMode = "tiles"
        self.region: RegionChoice = "whole"
        self.view: Region | None = None
        self.shape: npt.NDArray[np.float64] | None = None
        self.steps: tuple[Detail, ...] = ()
        self.step = 0
        self.trouble = ""
        self.student_trouble = ""
        self.live: LiveMap | None = None
        self.prompts = Prompts()
        self.similar: SimilarResult | None = None
        self.taught: Taught | None = None
        self.running = False
        self._index: SimilarityIndex | None = None
        self._indexed_cells = 0

    # --- choosing -----------------------------------------------------------------

    def choose_slide(self, slide: Slide | None) -> None:
        """Explore another slide, or none; what belonged to the old one is dropped."""
        self.slide, self.tissue = slide, None
        self.view = self.shape = None
        self.replan()

    def choose_student(self, student: Student | None, tiles_per_s: float = 0.0) -> None:
        """Look with another student, or none."""
        self.student_trouble = ""
        self.student, self.tiles_per_s = student, tiles_per_s
        if student is not None and self.mode not in student.modes:
            self.mode = "tiles"
        self.replan()

    def choose_mode(self, mode: EmbeddingMode) -> None:
        """Lay embeddings by tiles or by tokens; the two never share a map."""
        self.mode = mode
        self.replan()

    def choose_step(self, step: int) -> None:
        """Take one of :attr:`steps`."""
        self.step = max(0, min(step, len(self.steps) - 1))
        self._forget_map()

    def type_mpp(self, value: float, source: str = "typed by the user") -> None:
        """Give the µm per pixel where the file is silent or wrong.

        Raises
        ------
        InputError
            If there is no slide, or the number cannot be a microscope's.
        """
        if self.slide is None:
            msg = "Open a slide first, then give its µm per pixel."
            raise InputError(msg)
        mpp = Mpp(value, value, source)
        if not mpp.is_plausible:
            msg = (
                f"{value:g} µm per pixel cannot be a light microscope's: 0.25 is a 40× "
                "scan, 0.5 a 20× scan, 1.0 a 10× scan."
            )
            raise InputError(msg)
        self.slide = self.slide.with_mpp(mpp)
        self.replan()

    def take_tissue(self, tissue: TissueMask | None) -> None:
        """Take the tissue mask that was found or edited; maps stay as they are."""
        self.tissue = tissue
        chosen = self.steps[self.step].grid.stride_px if self.steps else None
        self._lay_steps(keep=chosen if self.live is not None else None)

    def replan(self) -> None:
        """Lay the grids again; the map of the old plan is let go (it stays stored)."""
        self._lay_steps(keep=None)
        self._forget_map()

    def drop_map(self) -> None:
        """Let the map on screen go; the choice stays, and the store."""
        self._forget_map()

    # --- planning -----------------------------------------------------------------

    @property
    def needs_mpp(self) -> bool:
        """Whether the slide's µm per pixel must be asked for."""
        mpp = self.slide.mpp if self.slide else None
        typed = mpp is not None and mpp.source.startswith("typed")
        return self.slide is not None and not (mpp and (mpp.is_plausible or typed))

    @property
    def why_not_run(self) -> str:
        """Why Run is disabled, in words; "" if it is not."""
        if self.slide is None:
            return "Open a slide first (drop a file here, or File › Open Sample)."
        if not self.slide.info.is_rgb:
            return "Students look at H&E colour images; this slide has other channels."
        if self.needs_mpp:
            return "Give the µm per pixel first: it decides how large the tissue is."
        if self.student is None:
            return self.student_trouble or (
                "Choose a student, and wait until it is loaded."
            )
        if self.trouble:
            return self.trouble
        if self.region == "shape" and self.shape is None:
            return "Draw a shape in a Shapes layer and select it, or choose a region."
        if self.region == "view" and self.view is None:
            return "The view shows no part of the slide."
        return ""

    @property
    def detail(self) -> Detail | None:
        """The chosen step."""
        return self.steps[self.step] if self.steps else None

    @property
    def detail_in_words(self) -> str:
        """Stride, count and time of the chosen step: "64 µm · about 2,100 cells"."""
        detail = self.detail
        if detail is None:
            return ""
        cells = self._cells_in_region(detail)
        parts = [f"{detail.stride_um:.3g} µm", in_words(cells), self.mode]
        if self.tiles_per_s and self.mode == "tiles":
            parts.append(f"~{duration_in_words(cells / self.tiles_per_s)}")
        return " · ".join(parts)

    def plan(self) -> RunPlan:
        """Return what Run would do now.

        Raises
        ------
        InputError
            If it cannot run; the reason is the one on the button.
        """
        reason = self.why_not_run
        detail = self.detail
        if reason or self.slide is None or self.student is None or detail is None:
            msg = reason or "Choose a slide and a student first."
            raise InputError(msg)
        return RunPlan(
            grid=detail.grid,
            mode=self.mode,
            store_path=self._store_path(detail),
            region=self.view if self.region == "view" else None,
            polygon=self.shape if self.region == "shape" else None,
            tissue=self.tissue,
        )

    @property
    def stored_since(self) -> str:
        """When the map of the present choice was stored, for people; "" if never."""
        if self.detail is None or self.slide is None or self.student is None:
            return ""
        return stored_since(self._store_path(self.detail))

    # --- the map ------------------------------------------------------------------

    def stored_work(self) -> Work | None:
        """Return work that reads the stored map of the present choice, if any."""
        if not self.stored_since or self.detail is None or self.student is None:
            return None
        self._new_map(self.detail, self.student)
        return stored_work(self._store_path(self.detail), self.student.head)

    def run_work(self, *, restart: bool = False) -> Work:
        """Return work that computes the map.

        Raises
        ------
        InputError
            If it cannot run.
        """
        plan = self.plan()
        slide, student, detail = self.slide, self.student, self.detail
        if slide is None or student is None or detail is None:
            raise InputError(self.why_not_run)
        if restart or self.live is None or self.taught is not None:
            self._new_map(detail, student)
        self.running = True
        return run_work(slide, student, plan, restart=restart, focus=lambda: self.view)

    def take_update(self, update: RunUpdate) -> None:
        """Take what a run reports."""
        if update.patch is not None and self.live is not None:
            self.live.apply(update.patch)

    def run_ended(self) -> None:
        """Note that no run is going any more."""
        self.running = False

    def class_rows(self) -> tuple[ClassRow, ...]:
        """Return the legend: of the map, or of what the student could find."""
        if self.live is not None:
            return self.live.rows()
        if self.student is None or not self.steps:
            return ()
        return tuple(
            ClassRow(name=c.name, color=c.color, cells=0, mm2=0.0, histogram=())
            for c in self.student.spec.classes
        )

    @property
    def run_title(self) -> str:
        """What the Run button says: "Run", "Continue" or "Run again"."""
        if self.live is None or not self.live.cells_done:
            return "Run"
        return "Continue" if self.cells_missing else "Run again"

    @property
    def cells_missing(self) -> int:
        """Wanted cells that the present map does not have yet."""
        if self.live is None or self.why_not_run:
            return 0
        wanted = self.plan().wanted_cells()
        return int((wanted & (self.live.status == 0)).sum())

    @property
    def store_path(self) -> Path | None:
        """Where the present map is stored; None without a map."""
        if self.live is None or self.detail is None:
            return None
        return self._store_path(self.detail)

    # --- similar ------------------------------------------------------------------

    @property
    def why_not_similar(self) -> str:
        """Why a click finds nothing; "" if it does."""
        if self.live is None or not self.live.cells_done:
            return "Run the student first: there is nothing to compare yet."
        return ""

    def add_prompt(self, y: float, x: float, *, like: bool) -> None:
        """Take a click, level-0 pixels (edge convention).

        Raises
        ------
        InputError
            If nothing is computed there, or the first click is a "not like this".
        """
        if self.why_not_similar or self.live is None:
            raise InputError(self.why_not_similar)
        row, column = self.live.grid.cell_at(y, x)
        if self.live.status[row, column] != 1:
            msg = "Nothing is computed there: click on tissue that the map covers."
            raise InputError(msg)
        self.prompts = self.prompts.added(Prompt(y, x, like))

    def remove_prompt(self, index: int) -> None:
        """Take a click back; without a "like this" the search ends."""
        self.prompts = self.prompts.removed(index)
        if not self.prompts.items:
            self.similar = None

    def clear_prompts(self) -> None:
        """End the search."""
        self.prompts, self.similar = Prompts(), None

    def query_work(self) -> Work | None:
        """Return work that answers the present prompts; None without any."""
        path = self.store_path
        if not self.prompts.items or path is None or self.live is None:
            return None
        done = self.live.cells_done
        fresh = self._indexed_cells == done
        return query_work(
            self.prompts,
            store_path=path,
            index=self._index if fresh else None,
            cells=done,
        )

    def take_answer(self, answer: IndexBuilt | SimilarResult) -> bool:
        """Take an answer; return whether there is something new to draw."""
        if isinstance(answer, IndexBuilt):
            self._index, self._indexed_cells = answer.index, answer.cells
            return False
        if answer.prompts != self.prompts:
            return False  # an older question's: the person has clicked on
        self.similar = answer
        return True

    # --- teach --------------------------------------------------------------------

    def teach_work(self, strokes: Strokes) -> Work:
        """Return work that fits a probe to strokes.

        Raises
        ------
        InputError
            If there is no map to learn from.
        """
        path = self.store_path
        if path is None or self.why_not_similar:
            msg = "Run the student first: strokes are learned from what it has seen."
            raise InputError(msg)
        return teach_work(strokes, store_path=path)

    def take_taught(self, taught: Taught) -> None:
        """Show the taught classes in place of the student's."""
        if self.live is None:
            return
        sure = self.live.min_confidence
        self.taught = taught
        self.live = LiveMap(self.live.grid, taught.classes, self.live.mode)
        self.live.apply(taught.patch)
        self.live.show_at_least(sure)

    def forget_taught(self) -> Work | None:
        """Return to the student's own classes; returns work that reads its map."""
        self.taught = None
        return self.stored_work()

    # --- in words -----------------------------------------------------------------

    def describe(self, y: float, x: float) -> str:
        """Return what is under a level-0 position: class, similarity, µm."""
        if self.slide is None:
            return ""
        parts = []
        try:
            parts = self._describe_cell(y, x)
        except InputError:
            return ""
        if self.slide.mpp is not None:
            um = y * self.slide.mpp.y, x * self.slide.mpp.x
            parts.append(f"y {um[0]:,.0f} µm, x {um[1]:,.0f} µm")
        return " · ".join(parts)

    def _describe_cell(self, y: float, x: float) -> list[str]:
        if self.live is None:
            return []
        parts = []
        row, column = self.live.grid.cell_at(y, x)
        label = int(self.live.labels[row, column])
        if label:
            sure = float(self.live.confidence[row, column])
            name = self.live.classes[label - 1].name.replace("_", " ")
            parts.append(f"{name} {sure:.0%}")
        elif self.live.status[row, column] == 2:
            parts.append("unreadable")
        if self.similar is not None:
            value = float(self.similar.similarity.values[row, column])
            if np.isfinite(value):
                parts.append(f"similarity {value:.2f}")
        return parts

    # --- inside -------------------------------------------------------------------

    def _lay_steps(self, *, keep: int | None) -> None:
        self.steps, self.trouble = (), ""
        slide, student = self.slide, self.student
        if slide is None or student is None or self.needs_mpp:
            return
        if not slide.info.is_rgb:
            return
        try:
            self.steps = detail_steps(slide, student, self.mode, self.tissue)
        except HistodistillError as error:
            self.trouble = str(error)
            return
        strides = [step.grid.stride_px for step in self.steps]
        self.step = strides.index(keep) if keep in strides else default_step(self.steps)

    def _store_path(self, detail: Detail) -> Path:
        if self.slide is None or self.student is None:
            raise InputError(self.why_not_run)
        return store_path_of(self.slide, self.student, detail.grid, self.mode)

    def _new_map(self, detail: Detail, student: Student) -> None:
        sure = self.live.min_confidence if self.live else 0.0
        self.live = LiveMap(detail.grid, student.spec.classes, self.mode)
        self.live.show_at_least(sure)
        self.taught = None
        self._index, self._indexed_cells = None, 0

    def _forget_map(self) -> None:
        self.live = self.taught = self.similar = self._index = None
        self._indexed_cells = 0
        self.prompts = Prompts()

    def _cells_in_region(self, detail: Detail) -> int:
        if self.region == "whole" or (self.region == "view" and self.view is None):
            return detail.cells
        rows, columns = detail.grid.shape
        share = detail.cells / (rows * columns)
        area = self.view if self.region == "view" else _bounds(self.shape)
        if area is None:
            return detail.cells
        inside = detail.grid.cells_in(area)
        count = np.prod([s.stop - s.start for s in inside])
        return max(1, round(float(count) * share))


def _bounds(polygon: npt.NDArray[np.float64] | None) -> Region | None:
    if polygon is None:
        return None
    (y0, x0), (y1, x1) = polygon.min(axis=0), polygon.max(axis=0)
    if y1 <= y0 or x1 <= x0:
        return None
    return Region(y=float(y0), x=float(x0), height=float(y1 - y0), width=float(x1 - x0))
