"""The choice of what to compare: a slide, two students, a distance, a measure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_histodistill.controllers.compare.noise import (
    ARE_SEEDS,
    NOT_KNOWN,
    NOT_TRAINED_HERE,
    NoiseRun,
)
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
    from napari_histodistill.controllers.compare.noise import SeedsFound
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
    seeds : SeedsFound or None
        What there is to measure noise by; None until that was looked for.
    measures_noise : bool
        Whether a run measures noise where it can.
    seed_progress : str
        How far the training of a second seed is; "" where none is going on here.
    """

    def __init__(self) -> None:
        self.choices = MapChoice(), MapChoice()
        self.seeds: SeedsFound | None = None
        self.measures_noise = True
        self.seed_progress = ""
        self._noise = MapChoice()
        self._noise_trouble = ""
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
        for choice in self._all:
            choice.choose_slide(slide)
        self._line_up()

    def choose_student(
        self, which: int, student: Student | None, tiles_per_s: float = 0.0
    ) -> None:
        """Make a student A (0) or B (1); what measures noise is looked for again."""
        self.choices[which].choose_student(student, tiles_per_s)
        self._forget_seeds()
        self._line_up()

    def await_student(self, which: int) -> None:
        """Go without A (0) or B (1) until it is loaded."""
        self.choices[which].await_student()
        self._forget_seeds()
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
        seeds = self.seeds
        known = (other.student, other.tiles_per_s), (one.student, one.tiles_per_s)
        for which, (student, speed) in enumerate(known):
            self.choose_student(which, student, speed)
        if seeds is not None:
            second = seeds.second
            self.take_seeds(
                replace(
                    seeds, second=second and replace(second, beside=1 - second.beside)
                )
            )

    def lose_student(self, which: int, trouble: str) -> None:
        """Note why a student could not be loaded."""
        self.choices[which].lose_student(trouble)
        self._forget_seeds()
        self._line_up()

    # --- noise --------------------------------------------------------------------

    def take_seeds(self, seeds: SeedsFound) -> None:
        """Take what there is to measure noise by; A's and B's maps stay."""
        self.seeds = seeds
        second = seeds.second
        if second is None:
            self._noise.choose_student(None)
        else:
            self._noise.choose_student(second.student, second.tiles_per_s)
        self._follow_noise()

    def choose_noise(self, *, measured: bool) -> None:
        """Let the next run measure noise, or not."""
        self.measures_noise = measured

    @property
    def lacks_seed(self) -> bool:
        """Whether noise is not measured for want of a second seed."""
        found = self.seeds
        return found is not None and not found.are_seeds and found.second is None

    @property
    def why_no_seed_training(self) -> str:
        """Why no second seed can be trained from here; "" if one can."""
        if self.seeds is None or self.seeds.recipe_of is None:
            return NOT_TRAINED_HERE
        return ""

    def show_seed_progress(self, words: str) -> None:
        """Note how far the training of a second seed is; "" when it has ended."""
        self.seed_progress = words

    def look_for_seeds_again(self) -> None:
        """Forget what there is to measure noise by: there may be more by now."""
        self._forget_seeds()

    @property
    def why_no_noise(self) -> str:
        """Why a run cannot measure noise; "" if it can."""
        if self.seeds is None:
            return "Noise: looking for a second seed of A or B…"
        if self.seeds.are_seeds:
            return ARE_SEEDS
        if self.seeds.second is None:
            return NOT_KNOWN
        if self._noise.detail is None or self._noise_trouble:
            why = self._noise_trouble or self._noise.why_not_run
            return f"Noise: not measured. {why}" if self.slide else ""
        return ""

    @property
    def why_no_noise_choice(self) -> str:
        """Why there is nothing to choose about noise; "" if there is."""
        if len(self.students) < len(LETTERS):
            return "Choose two models first."
        return self.why_no_noise

    def noise_run(self) -> NoiseRun | None:
        """Return the third map of a run; None where noise is not measured."""
        if not self.measures_noise or self.seeds is None or self.why_no_noise:
            return None
        second = self.seeds.second
        return None if second is None else NoiseRun(second, self._noise.plan())

    def say_noise(self) -> str:
        """Return how noise is measured, or why not; "" before both are chosen."""
        if self.seed_progress:
            return f"A second seed for the noise. {self.seed_progress}"
        if len(self.students) < len(LETTERS):
            return ""
        if self.why_no_noise or self.seeds is None or self.seeds.second is None:
            return self.why_no_noise
        second = self.seeds.second
        whose = f"another seed of {LETTERS[second.beside]} (seed {second.seed})"
        return f"Noise, by {whose}: {_say_map(self._noise)}"

    def _forget_seeds(self) -> None:
        self.seeds = None
        self._noise.choose_student(None)

    def _follow_noise(self) -> None:
        """Lay the second seed on the grid of A and B."""
        lead = self.choices[self._lead]
        self._noise_trouble = ""
        if lead.detail is not None and self._noise.student is not None:
            self._noise_trouble = _lay_on(self._noise, lead.detail.stride_um)

    @property
    def _all(self) -> tuple[MapChoice, ...]:
        return (*self.choices, self._noise)

    # --- choosing, of both ----------------------------------------------------------

    def choose_step(self, step: int) -> None:
        """Take one of :attr:`steps`."""
        lead = self.choices[self._lead]
        lead.choose_step(step)
        self._follow()

    def choose_region(self, region: RegionChoice) -> None:
        """Cover the whole slide or what the canvas shows."""
        for choice in self._all:
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
        for choice in self._all:
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
        self.choices[0].call_rgb()
        self._share_slide()

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
        self.choices[0].type_mpp(value, source)
        self._share_slide()

    def take_tissue(self, tissue: TissueMask | None) -> None:
        """Take the tissue that was found."""
        chosen = self.choices[self._lead].step_is_chosen
        for choice in self._all:
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
        return f"{choice.student.spec.tile_um:.3g} µm tiles · {_say_map(choice)}"

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
        trouble = _lay_on(other, lead.detail.stride_um)
        self._trouble = f"{LETTERS[1 - self._lead]}: {trouble}" if trouble else ""
        self._follow_noise()

    def _share_slide(self) -> None:
        """Give all the first one's slide, which a person has said more of."""
        first, *others = self._all
        for choice in others:
            choice.slide = first.slide
            choice.replan()
        self._line_up()


def _lay_on(choice: MapChoice, stride_um: float) -> str:
    """Lay a student on a grid of a distance; return why that cannot be, or ""."""
    from napari_histodistill.maps.embedding_plan import plan_grid

    if choice.slide is None or choice.student is None:
        return ""
    try:
        grid = plan_grid(choice.slide, choice.student, stride_um=stride_um)
    except HistodistillError as error:
        return str(error)
    share = 1.0 if choice.tissue is None else choice.tissue.fraction
    rows, columns = grid.shape
    choice.steps, choice.step = (
        (Detail(grid, max(1, round(rows * columns * share))),),
        0,
    )
    return ""


def _say_map(choice: MapChoice) -> str:
    """Return since when a map is stored, or how much is to be computed."""
    assert choice.detail is not None
    since = choice.stored_since
    if since:
        return f"map from {since}"
    words = f"{about_in_words(choice.detail.cells)} to compute"
    if choice.tiles_per_s:
        seconds = choice.detail.cells / choice.tiles_per_s
        words += f", ~{duration_in_words(seconds)}"
    return words
