"""The long steps of *Compare students*, as generators of frozen reports."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_histodistill.controllers.compare.noise import NoiseRun, OwnNoise
from napari_histodistill.controllers.shared.map_work import RunUpdate, run_work
from napari_histodistill.controllers.shared.similar import COUNTED
from napari_histodistill.controllers.shared.wording import progress_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.planning import RunPlan
    from napari_histodistill.geometry import Region
    from napari_histodistill.maps.alike.ranking import RankedRegion
    from napari_histodistill.maps.alike.similarity import SimilarityIndex, SimilarityMap
    from napari_histodistill.maps.difference import DifferenceMap, Measure, Side
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide
    from napari_histodistill.students.student import Student

LETTERS = ("A", "B")

NEIGHBOURS = 8
"""Pictures of each student's nearest places."""

Position = tuple[float, float]
"""Level-0 pixels ``(y, x)``, edge convention."""


@dataclass(frozen=True, slots=True)
class HalfUpdate:
    """Where the run of student ``which`` (0 for A) stands; 2 is the second seed."""

    which: int
    update: RunUpdate
    runs: int = 2


@dataclass(frozen=True, slots=True)
class CompareProgress:
    """How far the comparison itself is."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Compared:
    """The difference map, and where to look first.

    Attributes
    ----------
    difference : DifferenceMap
        Values over the grid.
    threshold : float
        Below, nothing is shown.
    ranked : tuple of RankedRegion
        Most different first.
    """

    difference: DifferenceMap
    threshold: float
    ranked: tuple[RankedRegion, ...]


@dataclass(frozen=True, slots=True)
class HalfIndex:
    """Student ``which``'s embeddings, ready for questions."""

    which: int
    index: SimilarityIndex = field(repr=False)


@dataclass(frozen=True, slots=True)
class PlaceFound:
    """The places that both students find most like one place.

    Attributes
    ----------
    place : tuple of float
        The question, level-0 pixels.
    answers : tuple of SimilarityMap
        Of A and of B.
    nearest : tuple of tuple of RankedRegion
        The most similar places of A and of B, best first.
    thresholds : tuple of float
        From where on either finds tissue clearly similar.
    shared : int
        How many of A's nearest places B has among its own.
    shared_by_seeds : int or None
        The same of two seeds of one recipe; None without a second seed.
    """

    place: Position
    answers: tuple[SimilarityMap, SimilarityMap]
    nearest: tuple[tuple[RankedRegion, ...], tuple[RankedRegion, ...]]
    thresholds: tuple[float, float]
    shared: int
    shared_by_seeds: int | None = None


_RUNS_SHARE = 0.9
"""Of the progress bar; the comparison itself has the rest."""


def how_far(report: HalfUpdate | CompareProgress) -> tuple[float, str]:
    """Return how far a comparison is, 0 to 1 and in words."""
    if isinstance(report, CompareProgress):
        share = report.done / max(1, report.total)
        return _RUNS_SHARE + (1 - _RUNS_SHARE) * share, "Comparing…"
    run = report.update.report
    share = (report.which + run.done / max(1, run.total)) / report.runs
    words = progress_in_words(run, speed=False)
    whose = (*LETTERS, "Noise")[report.which]
    return _RUNS_SHARE * share, f"{whose}: {words}"


def compare_work(
    slide: Slide,
    students: Sequence[Student],
    plans: Sequence[RunPlan],
    measure: Measure,
    focus: Callable[[], Region | None],
    noise: NoiseRun | OwnNoise | None = None,
) -> Work:
    """Compute what is missing of either map, then compare them.

    Parameters
    ----------
    slide : Slide
        Stays open until the work has ended.
    students, plans : sequence of Student, of RunPlan
        Of A and of B.
    measure : {"classes", "neighbours", "news"}
        What is compared.
    focus : callable
        Asked from the worker for what a person looks at, level-0 pixels.
    noise : NoiseRun, OwnNoise or None
        The map of a second seed, computed as well; or that A and B are two seeds of one
        recipe, whose difference is noise itself; None to leave noise unmeasured.
    """

    def work(cancel: CancelToken) -> Iterator[HalfUpdate | CompareProgress | Compared]:
        runs = list(zip(students, plans, strict=True))
        if isinstance(noise, NoiseRun):
            runs.append((noise.second.student, noise.plan))
        for which, (student, plan) in enumerate(runs):
            run = run_work(slide, student, plan, focus=focus)
            for update in run(cancel):
                yield HalfUpdate(which, update, len(runs))
        yield from _compare(students, plans, measure, noise, cancel)

    return work


def measure_work(
    students: Sequence[Student],
    plans: Sequence[RunPlan],
    measure: Measure,
    noise: NoiseRun | OwnNoise | None = None,
) -> Work:
    """Compare maps that are there, by another measure."""

    def work(cancel: CancelToken) -> Iterator[CompareProgress | Compared]:
        yield from _compare(students, plans, measure, noise, cancel)

    return work


def _compare(
    students: Sequence[Student],
    plans: Sequence[RunPlan],
    measure: Measure,
    noise: NoiseRun | OwnNoise | None,
    cancel: CancelToken,
) -> Iterator[CompareProgress | Compared]:
    from napari_histodistill.maps.difference import noise_between

    alike = students[0].name == students[1].name
    sides = []
    for letter, student, plan in zip(LETTERS, students, plans, strict=True):
        name = letter if alike else f"{letter} ({student.name})"
        sides.append(replace(_side(student, plan), name=name))
    floor = None
    if isinstance(noise, NoiseRun):
        second = _side(noise.second.student, noise.plan)
        # What B sees and A does not has a direction, and noise has the same.
        pair = (second, sides[1]) if noise.second.beside else (sides[0], second)
        result = yield from _differ(pair, measure, cancel)
        floor = noise_between(result)
    result = yield from _differ((sides[0], sides[1]), measure, cancel)
    if isinstance(noise, OwnNoise):
        floor = noise_between(result)
    yield ranked(replace(result, noise=floor), result.threshold())


def _side(student: Student, plan: RunPlan) -> Side:
    from napari_histodistill.maps.difference import side_of
    from napari_histodistill.maps.store import EmbeddingStore

    return side_of(EmbeddingStore.open(plan.store_path), student)


def _differ(
    pair: tuple[Side, Side], measure: Measure, cancel: CancelToken
) -> Generator[CompareProgress, None, DifferenceMap]:
    from napari_histodistill.maps.difference import compare

    result: DifferenceMap | None = None
    for report in compare(*pair, measure=measure, cancel=cancel):
        result = report.result
        if result is None:
            yield CompareProgress(report.done, report.total)
    assert result is not None
    return result


def ranked(difference: DifferenceMap, threshold: float) -> Compared:
    """Rank the places that differ at least so much.

    Of places whose tiles overlap, only the best is listed: on a fine grid, specks of
    one spot would show the same tissue again and again.
    """
    from napari_histodistill.maps.alike.ranking import rank_regions

    grid = difference.grid
    fy, fx = grid.px_per_student_px
    apart: list[RankedRegion] = []
    for place in rank_regions(difference, threshold=threshold, limit=COUNTED):
        if not _is_among(place, apart, (grid.tile_px * fy, grid.tile_px * fx)):
            apart.append(replace(place, rank=len(apart) + 1))
    return Compared(difference, threshold, tuple(apart))


def rank_work(difference: DifferenceMap, threshold: float) -> Work:
    """Rank again with another threshold."""

    def work(cancel: CancelToken) -> Iterator[Compared]:
        cancel.check()
        yield ranked(difference, threshold)

    return work


def place_work(
    place: Position,
    stores: Sequence[Path],
    indices: Sequence[SimilarityIndex | None],
    beside: int = 0,
) -> Work:
    """Ask both students, and a second seed, what looks most like a place.

    Parameters
    ----------
    place : tuple of float
        Level-0 pixels.
    stores : sequence of Path
        Of A and of B, and of the second seed if there is one.
    indices : sequence of SimilarityIndex or None
        What an earlier question has read already, one for each store.
    beside : int
        Whether the second seed is one of A (0) or of B (1).
    """

    def work(cancel: CancelToken) -> Iterator[HalfIndex | PlaceFound]:
        from napari_histodistill.maps.alike.ranking import (
            nearest_places,
            suggest_threshold,
        )
        from napari_histodistill.maps.alike.similarity import SimilarityIndex
        from napari_histodistill.maps.store import EmbeddingStore

        answers, nearest = [], []
        for which, (path, known) in enumerate(zip(stores, indices, strict=True)):
            index = known
            if index is None:
                index = SimilarityIndex.from_store(EmbeddingStore.open(path))
                yield HalfIndex(which, index)
            cancel.check()
            answer = index.query([place])
            answers.append(answer)
            nearest.append(nearest_places(answer, count=NEIGHBOURS))
        tiles = [answer.grid.tile_px * answer.grid.mpp for answer in answers]
        mpp = answers[0].grid.slide_mpp
        reach = max(tiles) / 2 / mpp.y, max(tiles) / 2 / mpp.x

        def shared(one: int, other: int) -> int:
            return sum(_is_among(p, nearest[other], reach) for p in nearest[one])

        yield PlaceFound(
            place,
            (answers[0], answers[1]),
            (nearest[0], nearest[1]),
            (suggest_threshold(answers[0]), suggest_threshold(answers[1])),
            shared(0, 1),
            shared(beside, len(LETTERS)) if len(nearest) > len(LETTERS) else None,
        )

    return work


def _is_among(
    place: RankedRegion, others: Sequence[RankedRegion], reach: tuple[float, float]
) -> bool:
    """Whether one of the others is nearer than that, level-0 pixels ``(y, x)``."""
    return any(
        abs(o.y - place.y) < reach[0] and abs(o.x - place.x) < reach[1] for o in others
    )
