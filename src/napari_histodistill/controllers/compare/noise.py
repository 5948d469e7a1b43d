"""The second seed: a student by which *Compare students* measures its noise.

Two seeds of one recipe differ, too. What A and B differ by is set beside that: between
A (or B) and another seed of its recipe, that of the one without a partner if there is
one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.controllers.shared.map_work import student_work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.map_work import StudentLoader
    from napari_histodistill.controllers.shared.planning import RunPlan
    from napari_histodistill.distill.runs.kin import RunKin
    from napari_histodistill.running import CancelToken
    from napari_histodistill.students.student import Student

NOT_KNOWN = "Noise: not measured, no second seed of A or B is known."
NOT_TRAINED_HERE = (
    "Neither A nor B was trained on this computer, so their recipe is not here."
)
ARE_SEEDS = "Noise: A and B are two seeds of one recipe; what they differ by is noise."


@dataclass(frozen=True, slots=True)
class SecondSeed:
    """Another seed of the recipe of A (``beside`` 0) or B (1).

    Attributes
    ----------
    beside : int
        Whose recipe.
    seed : int
        Which seed.
    student : Student
        Loaded.
    tiles_per_s : float
        Its speed.
    """

    beside: int
    seed: int
    student: Student = field(repr=False)
    tiles_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SeedsFound:
    """What there is to measure noise by.

    Attributes
    ----------
    are_seeds : bool
        Whether A and B are themselves two seeds of one recipe.
    second : SecondSeed or None
        The student that was found.
    recipe_of : Path or None
        The student, A or B, whose recipe can be trained with another seed: of both,
        the one without a partner.
    """

    are_seeds: bool = False
    second: SecondSeed | None = None
    recipe_of: Path | None = None


@dataclass(frozen=True, slots=True)
class NoiseRun:
    """The third map of a comparison.

    Attributes
    ----------
    second : SecondSeed
        Whose map it is.
    plan : RunPlan
        On the grid of the two others.
    """

    second: SecondSeed
    plan: RunPlan


@dataclass(frozen=True, slots=True)
class OwnNoise:
    """A and B are themselves two seeds: no third map is needed."""


def seeds_work(loader: StudentLoader, sources: Sequence[str | Path]) -> Work:
    """Return the work that looks for a second seed and loads it.

    Parameters
    ----------
    loader : callable
        Loads a student.
    sources : sequence of str or Path
        Where A and B are from; bundled ones have no seeds.
    """

    def work(cancel: CancelToken) -> Iterator[SeedsFound]:
        from napari_histodistill.distill.runs.kin import kin_of

        kin = [
            kin_of(source) if isinstance(source, Path) else None for source in sources
        ]
        one, other = kin
        if one is not None and other is not None and one.is_other_seed_of(other):
            yield SeedsFound(are_seeds=True)
            return
        found = _second(kin)
        if found is None:
            known = _alone_first(kin)
            yield SeedsFound(recipe_of=known[0][1].bundle if known else None)
            return
        beside, seed = found
        cancel.check()
        for loaded in student_work(loader, seed.bundle, "auto")(cancel):
            second = SecondSeed(beside, seed.seed, loaded.student, loaded.tiles_per_s)
            yield SeedsFound(second=second)

    return work


def _alone_first(kin: Sequence[RunKin | None]) -> list[tuple[int, RunKin]]:
    """Return the runs that are known, and of which; without a partner first."""
    known = [(k, one) for k, one in enumerate(kin) if one is not None]
    return sorted(known, key=lambda item: not item[1].alone)


def _second(kin: Sequence[RunKin | None]) -> tuple[int, RunKin] | None:
    """Return another seed of A or B, and of which; first of one without a partner."""
    from napari_histodistill.distill.runs.kin import other_seeds

    for which, one in _alone_first(kin):
        seeds = other_seeds(one.bundle)
        if seeds:
            return which, seeds[0]
    return None
