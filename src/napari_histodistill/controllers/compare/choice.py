"""The choice of what to compare: a slide, two students, a distance, a measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.controllers.compare.work import LETTERS
from napari_histodistill.controllers.shared.map_choice import MapChoice, RegionChoice
from napari_histodistill.controllers.shared.planning import Detail
from napari_histodistill.controllers.shared.wording import (
    about_in_words,
    duration_in_words,
)
from napari_histodistill.errors import HistodistillError, InputError
from napari_histodistill.maps.difference import default_measure, why_not_measure

if TYPE_CHECKING:
    from napari_histodistill.geometry import Region
    from napari_histodistill.maps.difference import Measure
    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.tissue.tissue import TissueMask
    from napari_histodistill.students.student import Student

ENOUGH_CELLS = 500
"""A comparison on fewer places than this is hardly a map."""


class CompareChoice:
    """Slide, two students, distance and measure of one *Compare students* panel.

    Attributes
    ----------
    choices : tuple of MapChoice
        What A and B are, and how each would look at the slide.
    """

    def __init__(self) -> None:
        self.choices = MapChoice(), MapChoice()
        self._measure: Measure | None = None
        self._lead = 0
        self._trouble = ""

    def drop_maps(self) -> None:
        """Let the maps on screen go, if any; they stay stored."""

    # --- choosing -----------------------------------------------------------------

    @property
    def slide(self) -> Slide | None:
        """What both look at."""
        return self.choices[0].slide

    @property
    def students(self) -> tuple[Student, ...]:
        """A and B, as far as they are chosen and loaded."""
        chosen = (choice.student for choice in self.choices)
        return tuple(student for student in chosen if student is not None)

    @property
    def steps(self) -> tuple[Detail, ...]:
        """Distances of places on offer, coarse to fine."""
        return self.choices[self._lead].steps

    @property
    def step(self) -> int:
        """The chosen one of :attr:`steps`."""
        return self.choices[self._lead].step

    def choose_slide(self, slide: Slide | None) -> None:
        """Compare on another slide, or none; what belonged to the old one goes."""
        for choice in self.choices:
            choice.choose_slide(slide)
        self._line_up()

    def choose_student(
        self, which: int, student: Student | None, tiles_per_s: float = 0.0
    ) -> None:
        """Make a student A (0) or B (1)."""
        self.choices[which].choose_student(student, tiles_per_s)
        self._line_up()

    def await_student(self, which: int) -> None:
        """Go without A (0) or B (1) until it is loaded."""
        self.choices[which].await_student()
        self._line_up()

    def swap(self) -> None:
        """Make A the second and B the first.

        Raises
        ------
        InputError
            If one of them is still being loaded.
        """
        if any(choice.is_loading for choice in self.choices):
            msg = "A model is being loaded: a moment."
            raise InputError(msg)
        one, other = self.choices
        known = (other.student, other.tiles_per_s), (one.student, one.tiles_per_s)
        for which, (student, speed) in enumerate(known):
            self.choose_student(which, student, speed)

    def lose_student(self, which: int, trouble: str) -> None:
        """Note why a student could not be loaded."""
        self.choices[which].lose_student(trouble)
        self._line_up()

    def choose_step(self, step: int) -> None:
        """Take one of :attr:`steps`."""
        lead = self.choices[self._lead]
        lead.choose_step(step)
        self._follow()

    def choose_region(self, region: RegionChoice) -> None:
        """Cover the whole slide or what the canvas shows."""
        for choice in self.choices:
            choice.choose_region(region)

    @property
    def region(self) -> RegionChoice:
        """What is covered."""
        return self.choices[0].region

    @property
    def view(self) -> Region | None:
        """What the canvas shows, level-0 pixels."""
        return self.choices[0].view

    def look_at(self, view: Region | None) -> None:
        """Note what the canvas shows, level-0 pixels; None for nothing of the slide."""
        for choice in self.choices:
            choice.look_at(view)

    @property
    def needs_mpp(self) -> bool:
        """Whether the slide's µm per pixel must be asked for."""
        return self.choices[0].needs_mpp

    @property
    def needs_rgb(self) -> bool:
        """Whether a person must say if three channels are red, green and blue."""
        return self.choices[0].needs_rgb

    def call_rgb(self) -> None:
        """Say that the three channels, which the file does not name, are colour.

        Raises
        ------
        InputError
            If the slide has other channels.
        """
        first, second = self.choices
        first.call_rgb()
        second.slide = first.slide
        second.replan()
        self._line_up()

    @property
    def takes_mpp(self) -> bool:
        """Whether a person may give the µm per pixel."""
        return self.choices[0].takes_mpp

    def type_mpp(self, value: float, source: str = "typed by the user") -> None:
        """Give the µm per pixel where the file is silent or wrong.

        Raises
        ------
        InputError
            If there is no slide, or the number cannot be a microscope's.
        """
        first, second = self.choices
        first.type_mpp(value, source)
        second.slide = first.slide
        second.replan()
        self._line_up()

    def take_tissue(self, tissue: TissueMask | None) -> None:
        """Take the tissue that was found."""
        chosen = self.choices[self._lead].step_is_chosen
        for choice in self.choices:
            choice.take_tissue(tissue)
        if chosen:
            self._follow()
        else:
            self._line_up()

    @property
    def measure(self) -> Measure:
        """What is compared: as chosen, or by classes where both have the same."""
        classes = self._classes()
        if self._measure and not why_not_measure(self._measure, *classes):
            return self._measure
        return default_measure(*classes)

    def choose_measure(self, measure: Measure) -> None:
        """Compare by something else; the maps stay."""
        self._measure = measure

    def why_not_measure(self, measure: Measure) -> str:
        """Why the two cannot be compared so; "" if they can."""
        if len(self.students) < 2:
            return "Choose two models first."
        return why_not_measure(measure, *self._classes())

    # --- what would happen ----------------------------------------------------------

    @property
    def why_not_run(self) -> str:
        """Why Run is disabled, in words; "" if it is not."""
        first = self.choices[0]
        for letter, choice in zip(LETTERS, self.choices, strict=True):
            if choice.is_loading:
                return f"{letter} is being loaded: a moment."
        if self.needs_mpp:
            return first.why_not_run
        for which, choice in enumerate(self.choices):
            if choice.why_not_run:
                return self._why_not_half(which)
        if first.tissue is None:
            return "The tissue is being looked for: a moment."
        one, other = self.students
        if one.digest == other.digest:
            return "A and B are the same model: choose another for one of them."
        return self._trouble

    def _why_not_half(self, which: int) -> str:
        """Return why a student cannot run; its letter first where it is about it."""
        choice = self.choices[which]
        about_one = choice.student is None or bool(choice.trouble)
        here = self.slide is not None and about_one
        return f"{LETTERS[which]}: {choice.why_not_run}" if here else choice.why_not_run

    def say_half(self, which: int) -> str:
        """Return what there is of a student's map, and what is to be computed."""
        choice = self.choices[which]
        if choice.is_loading:
            return "is being loaded…"
        if choice.student is None or choice.detail is None or choice.trouble:
            return choice.student_trouble or choice.trouble
        since = choice.stored_since
        tile = f"{choice.student.spec.tile_um:.3g} µm tiles"
        if since:
            return f"{tile} · map from {since}"
        cells = choice.detail.cells
        words = f"{tile} · {about_in_words(cells)} to compute"
        if choice.tiles_per_s:
            words += f", ~{duration_in_words(cells / choice.tiles_per_s)}"
        return words

    @property
    def detail_in_words(self) -> str:
        """Distance and count of the places that would be compared."""
        detail = self.choices[self._lead].detail
        if detail is None:
            return ""
        return f"{detail.stride_um:.3g} µm apart · {about_in_words(detail.cells)}"

    # --- inside -------------------------------------------------------------------

    def _classes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        one, other = (
            () if c.student is None else c.student.spec.class_names
            for c in self.choices
        )
        return tuple(one), tuple(other)

    def _line_up(self) -> None:
        """Lay both on grids of one distance; the larger tile decides what is on offer.

        The finest distance at which both have a stored map is taken, else one that
        makes a readable map.
        """
        tiles = [c.student.spec.tile_um if c.student else 0.0 for c in self.choices]
        self._lead = int(tiles[1] > tiles[0])
        lead = self.choices[self._lead]
        if lead.steps:
            lead.step = self._default_step(lead.steps)
        self._follow()

    def _default_step(self, steps: tuple[Detail, ...]) -> int:
        lead = self.choices[self._lead]
        for k in reversed(range(len(steps))):
            lead.step = k
            self._follow()
            if all(choice.stored_since for choice in self.choices):
                return k
        enough = (k for k, step in enumerate(steps) if step.cells >= ENOUGH_CELLS)
        return next(enough, len(steps) - 1)

    def _follow(self) -> None:
        """Give the other student a grid of the leader's distance."""
        self._trouble = ""
        self.drop_maps()
        lead, other = self.choices[self._lead], self.choices[1 - self._lead]
        if lead.detail is None or other.student is None or other.slide is None:
            return
        from napari_histodistill.maps.embedding_plan import plan_grid

        try:
            grid = plan_grid(
                other.slide, other.student, stride_um=lead.detail.stride_um
            )
        except HistodistillError as error:
            self._trouble = f"{LETTERS[1 - self._lead]}: {error}"
            return
        share = 1.0 if other.tissue is None else other.tissue.fraction
        rows, columns = grid.shape
        cells = max(1, round(rows * columns * share))
        other.steps, other.step = (Detail(grid, cells),), 0
