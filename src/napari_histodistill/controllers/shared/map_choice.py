"""The choice of a map: its slide, student, region and detail."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.shared.estimating import Estimator, RunEstimate
from napari_histodistill.controllers.shared.planning import (
    BETWEEN_CELLS,
    Detail,
    RunPlan,
    default_step,
    detail_steps,
    rows_inside,
    store_path_of,
    stored_since,
)
from napari_histodistill.controllers.shared.wording import about_in_words
from napari_histodistill.errors import HistodistillError, InputError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.slides.formats.zarr_colours import taken_for_colour

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.planning import Polygons
    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.tissue.tissue import TissueMask
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

LOADING = "The model is being loaded: a moment."
DRAW_FIRST = "Draw a region: click its corners on the slide, double-click the last one."
LOOKING_AT_STAIN = "The slide's stain is being measured: a moment."


def typed_mpp(value: float, source: str = "typed by the user") -> Mpp:
    """Return the µm per pixel that a person gives.

    Raises
    ------
    InputError
        If the number cannot be a microscope's.
    """
    mpp = Mpp.given(value, source)
    if not mpp.is_plausible:
        msg = (
            f"{value:g} µm per pixel cannot be a light microscope's: 0.25 is a 40× "
            "scan, 0.5 a 20× scan, 1.0 a 10× scan."
        )
        raise InputError(msg)
    return mpp


class RegionChoice(Enum):
    """The part of a slide that a run covers."""

    WHOLE = "whole"
    VIEW = "view"
    """What the canvas shows."""
    SHAPE = "shape"
    """The inside of drawn shapes."""


class MapChoice:
    """Slide, student, region and detail of one *Explore slide* panel.

    Attributes
    ----------
    slide : Slide or None
        What is explored.
    student : Student or None
        What looks at it, loaded and ready.
    tiles_per_s : float
        Its speed as measured when it was loaded; 0 if unknown.
    tissue : TissueMask or None
        Found or edited; None until then.
    every_square : bool
        Whether Run covers every square, not only tissue.
    mode : {"tiles", "tokens"}
        How embeddings are laid on the grid.
    region : RegionChoice
        What Run covers.
    view : Region or None
        What the canvas shows, level-0 px; read by the worker, so only ever replaced.
    shapes : tuple of ndarray
        Each ``(n, 2)`` level-0 px: the drawn shapes, which add up.
    steps, step : tuple of Detail, int
        Strides on offer and the chosen one.
    step_is_chosen : bool
        Whether a person chose that step, which then stays.
    trouble, student_trouble : str
        Why this student cannot see this slide; why a student could not be loaded.
    is_loading : bool
        Whether there is no student because one is being loaded.
    waits_for_stain : bool
        Whether there is no student because one is being fitted to the slide's stain.
    """

    def __init__(self) -> None:
        self.slide: Slide | None = None
        self.student: Student | None = None
        self.tiles_per_s = 0.0
        self.tissue: TissueMask | None = None
        self.every_square = False
        self.mode: EmbeddingMode = "tiles"
        self.region = RegionChoice.WHOLE
        self.view: Region | None = None
        self.shapes: Polygons = ()
        self.steps: tuple[Detail, ...] = ()
        self.step = 0
        self.step_is_chosen = False
        self.trouble = ""
        self.student_trouble = ""
        self.is_loading = self.waits_for_stain = False
        self.estimator = Estimator()

    @property
    def has_map(self) -> bool:
        """Whether a map of this choice is on screen."""
        return False

    @property
    def map_status(self) -> npt.NDArray[np.uint8] | None:
        """Status of the cells of the map on screen; None without one."""
        return None

    def drop_map(self) -> None:
        """Let the map on screen go, if any; the choice stays, and the store."""

    # --- choosing -----------------------------------------------------------------

    def choose_slide(self, slide: Slide | None) -> None:
        """Explore another slide, or none; what belonged to the old one is dropped."""
        self.slide, self.tissue = slide, None
        self.view, self.shapes = None, ()
        self.region = RegionChoice.WHOLE
        self.replan()

    def choose_student(self, student: Student | None, tiles_per_s: float = 0.0) -> None:
        """Look with another student, or none."""
        self.student_trouble = ""
        self.is_loading = self.waits_for_stain = False
        self.student, self.tiles_per_s = student, tiles_per_s
        if student is not None and self.mode not in student.modes:
            self.mode = "tiles"
        self.replan()

    def lose_student(self, trouble: str) -> None:
        """Note why a student could not be loaded; there is none now."""
        self.choose_student(None)
        self.student_trouble = trouble

    def await_student(self) -> None:
        """Go without a student until one is loaded."""
        self.choose_student(None)
        self.is_loading = True

    def await_stain(self) -> None:
        """Go without a student until one is fitted to the slide's stain."""
        self.choose_student(None)
        self.waits_for_stain = True

    def choose_mode(self, mode: EmbeddingMode) -> None:
        """Lay embeddings by tiles or by tokens; the two never share a map."""
        self.mode = mode
        self.replan()

    def choose_every_square(self, *, every: bool) -> None:
        """Cover glass, pen and blur too, or only tissue; maps stay as they are."""
        keeps = self.has_map or self.step_is_chosen
        self.every_square = every
        self._lay_steps_again(keep=keeps)

    def choose_region(self, region: RegionChoice) -> None:
        """Cover the whole slide, what the canvas shows, or a drawn shape."""
        self.region = region

    def look_at(self, view: Region | None) -> None:
        """Note what the canvas shows, level-0 pixels; None for nothing of the slide."""
        self.view = view

    def take_shapes(self, shapes: Polygons) -> None:
        """Take the drawn shapes, each ``(n, 2)`` level-0 pixels ``(y, x)``."""
        same = len(shapes) == len(self.shapes) and all(
            map(np.array_equal, shapes, self.shapes)
        )
        if not same:
            self.shapes = shapes

    def choose_step(self, step: int) -> None:
        """Take one of :attr:`steps`."""
        self.step = max(0, min(step, len(self.steps) - 1))
        self.step_is_chosen = True
        self.drop_map()

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
        mpp = typed_mpp(value, source)
        self.slide = self.slide.with_mpp(mpp)
        self.replan()

    def call_rgb(self) -> None:
        """Say that the three channels, which the file does not name, are colour.

        Raises
        ------
        InputError
            If the slide has other channels.
        """
        if self.slide is not None:
            self.slide = taken_for_colour(self.slide)
            self.replan()

    def take_tissue(self, tissue: TissueMask | None) -> None:
        """Take the tissue mask that was found or edited; maps stay as they are."""
        # How many cells are worth it is known once the tissue is: until then the step
        # is a guess, unless a person took it.
        keeps = self.has_map or self.step_is_chosen or self.tissue is not None
        self.tissue = tissue
        self._lay_steps_again(keep=keeps)

    def replan(self) -> None:
        """Lay the grids again; the map of the old plan is let go (it stays stored)."""
        self.step_is_chosen = False
        self._lay_steps(keep=None)
        self.drop_map()

    # --- planning -----------------------------------------------------------------

    @property
    def needs_mpp(self) -> bool:
        """Whether the slide's µm per pixel must be asked for."""
        return self.slide is not None and self.slide.usable_mpp is None

    @property
    def needs_rgb(self) -> bool:
        """Whether a person must say if three channels are red, green and blue."""
        return self.slide is not None and self.slide.info.needs_rgb

    @property
    def takes_mpp(self) -> bool:
        """Whether a person may give the µm per pixel.

        What was typed can be mistyped; what a file says is not for a panel to change.
        """
        mpp = self.slide.mpp if self.slide else None
        return self.needs_mpp or (mpp is not None and mpp.is_given)

    @property
    def why_not_run(self) -> str:
        """Why Run is disabled, in words; "" if it is not."""
        if self.is_loading:
            return LOADING
        return self._why_no_slide() or self._why_no_plan()

    def _why_no_slide(self) -> str:
        if self.slide is None:
            return "Open a slide first (drop a file here, or File › Open Sample)."
        if self.needs_rgb:
            return "Say first whether the slide's channels are red, green and blue."
        if not self.slide.info.is_rgb:
            return "Models look at H&E colour images; this slide has other channels."
        if self.needs_mpp:
            return "Give the µm per pixel first: it decides how large the tissue is."
        return ""

    def _why_no_plan(self) -> str:
        if self.student is None:
            return self._why_no_student()
        if self.trouble:
            return self.trouble
        if self.region is RegionChoice.SHAPE and not self.shapes:
            return DRAW_FIRST
        if self.region is RegionChoice.VIEW and self.view is None:
            return "The view shows no part of the slide."
        return self._why_no_shape()

    def _why_no_student(self) -> str:
        if self.waits_for_stain:
            return LOOKING_AT_STAIN
        return self.student_trouble or "Choose a model, and wait until it is loaded."

    @property
    def detail(self) -> Detail | None:
        """The chosen step."""
        return self.steps[self.step] if self.steps else None

    @property
    def detail_in_words(self) -> str:
        """Stride, count and, if known, time: "64 µm · 2,104 squares · 8 s"."""
        detail = self.detail
        if detail is None:
            return ""
        estimate = self.estimate
        what = about_in_words(detail.cells) if estimate is None else estimate.in_words()
        return f"{detail.stride_um:.3g} µm · {what}"

    @property
    def estimate(self) -> RunEstimate | None:
        """What Run would compute now, and how long it would take; None if it cannot."""
        if self.why_not_run or self.student is None:
            return None
        return self.estimator.estimate(
            self.plan(), self.student, self.map_status, self.tiles_per_s
        )

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
            msg = reason or "Choose a slide and a model first."
            raise InputError(msg)
        return RunPlan(
            grid=detail.grid,
            mode=self.mode,
            store_path=self._store_path(detail),
            region=self.view if self.region is RegionChoice.VIEW else None,
            polygons=self.shapes if self.region is RegionChoice.SHAPE else (),
            tissue=self.tissue,
            every_square=self.every_square,
        )

    @property
    def stored_since(self) -> str:
        """When the map of the present choice was stored, for people; "" if never."""
        if self.detail is None or self.slide is None or self.student is None:
            return ""
        return stored_since(self._store_path(self.detail))

    # --- inside -------------------------------------------------------------------

    def _why_no_shape(self) -> str:
        if (
            self.region is not RegionChoice.SHAPE
            or not self.shapes
            or self.detail is None
        ):
            return ""
        grid = self.detail.grid
        covers = any(True for shape in self.shapes for _ in rows_inside(grid, shape))
        return "" if covers else BETWEEN_CELLS

    @property
    def _wanted_tissue(self) -> TissueMask | None:
        """The mask that a run keeps to; None for every square."""
        return None if self.every_square else self.tissue

    def _lay_steps_again(self, *, keep: bool) -> None:
        known = self.steps[self.step].grid.stride_px if self.steps else None
        self._lay_steps(keep=known if keep else None)

    def _lay_steps(self, *, keep: int | None) -> None:
        self.steps, self.trouble = (), ""
        slide, student = self.slide, self.student
        if slide is None or student is None or self.needs_mpp:
            return
        if not slide.info.is_rgb:
            return
        try:
            self.steps = detail_steps(slide, student, self.mode, self._wanted_tissue)
        except HistodistillError as error:
            self.trouble = str(error)
            return
        strides = [step.grid.stride_px for step in self.steps]
        self.step = strides.index(keep) if keep in strides else default_step(self.steps)

    def _store_path(self, detail: Detail) -> Path:
        if self.slide is None or self.student is None:
            raise InputError(self.why_not_run)
        return store_path_of(self.slide, self.student, detail.grid, self.mode)
