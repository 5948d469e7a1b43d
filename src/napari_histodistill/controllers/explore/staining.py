"""Stain normalisation in the panel: the student that sees *this* slide normalised.

Whether it is wanted is a person's choice; the rest follows. A student bound to a
slide's stains is fitted in a job, and let go as soon as slide or student change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.map_choice import MapChoice
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide
    from napari_histodistill.students.student import Student


@dataclass(frozen=True, slots=True)
class StainFitted:
    """A student that sees a slide's stain normalised.

    Attributes
    ----------
    slide : Slide
        Whose stain was looked at.
    bare, student : Student
        The student as it is, and as it sees this slide.
    """

    slide: Slide
    bare: Student
    student: Student


def stain_work(slide: Slide, bare: Student) -> Work:
    """Look at a slide's stain and bind a student to it."""

    def work(cancel: CancelToken) -> Iterator[StainFitted]:
        from napari_histodistill.students.staining import seen_through, stain_map_for

        stains = stain_map_for(slide, bare)
        cancel.check()
        yield StainFitted(slide, bare, seen_through(bare, stains))

    return work


class StainChoice:
    """Keeps the session's student bare or normalised, as is wanted.

    Attributes
    ----------
    wanted : bool
        Whether a person asked for it.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._bare: Student | None = None
        self._tiles_per_s = 0.0
        self._slide: Slide | None = None

    def why_not(self, choice: MapChoice) -> str:
        """Return why stain normalisation is not on offer; "" if it is."""
        from napari_histodistill.students.staining import why_not_normalise

        if choice.slide is None:
            return "Open a slide first."
        if not choice.slide.info.is_rgb:
            return "Only H&E colour images are stained; this slide has other channels."
        if choice.needs_mpp:
            return "Give the µm per pixel first."
        student = choice.student or (self._bare if self._is_looking(choice) else None)
        if student is None:
            return "Wait until the model is loaded."
        reason = why_not_normalise(student.spec)
        return reason[:1].upper() + reason[1:]

    def is_on(self, choice: MapChoice) -> bool:
        """Whether the present student sees the present slide normalised."""
        student = choice.student
        return student is not None and student.stains is not None

    def follow(self, choice: MapChoice, *, fitting: bool = True) -> Work | None:
        """Make the session's student what is wanted; may return work to do for it.

        Parameters
        ----------
        choice : MapChoice
            The session.
        fitting : bool
            Whether the work that was returned last is still going on.
        """
        if self._is_looking(choice) and (
            choice.slide is not self._slide or not self.wanted or not fitting
        ):
            choice.choose_student(self._bare, self._tiles_per_s)
        student = choice.student
        if student is None:
            return None
        if student.stains is not None:
            if self.wanted and choice.slide is self._slide:
                return None
            choice.choose_student(self._bare, self._tiles_per_s)
            return self.follow(choice)
        self._bare, self._tiles_per_s = student, choice.tiles_per_s
        slide = choice.slide
        if not self.wanted or slide is None or self.why_not(choice):
            return None
        choice.await_stain()
        self._slide = slide
        return stain_work(slide, student)

    def take(self, choice: MapChoice, fitted: StainFitted) -> None:
        """Look with the normalised student, if that is still what is wanted."""
        same = fitted.slide is choice.slide and fitted.bare is self._bare
        if self._is_looking(choice) and same:
            choice.choose_student(fitted.student, self._tiles_per_s)

    def give_up(self, choice: MapChoice) -> None:
        """Return to the bare student: the slide's stain could not be measured."""
        self.wanted = False
        if self._is_looking(choice):
            choice.choose_student(self._bare, self._tiles_per_s)

    def _is_looking(self, choice: MapChoice) -> bool:
        return choice.waits_for_stain
