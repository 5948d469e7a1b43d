"""Trainings that differ in partner or seed alone, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from napari_histodistill.distill.runs.kin import kin_beside, kin_of
from napari_histodistill.errors import HistodistillError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.map_work import StudentLoader
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.scoring.arms import ArmsJudged, ArmsProgress
    from napari_histodistill.running import CancelToken

NOTES = ("without partner", "with partner")

NO_STUDENT = "There is no model yet: train one first."
NO_CONTROL = (
    "Train both first: the same pairs and preset once with “without the partner” "
    "ticked and once without the tick."
)


def why_no_comparison(bundle: Path | None) -> str:
    """Return why a student cannot be compared with its control; empty if it can."""
    if bundle is None:
        return NO_STUDENT
    return NO_CONTROL if student_and_control(bundle) is None else ""


def student_and_control(bundle: Path) -> tuple[Path, Path] | None:
    """Return a student and its control: trained alike, but for the partner.

    Recipe (preset, steps, seed) and pairs must be the same.

    Parameters
    ----------
    bundle : Path
        The student of a run; its control is looked for in the runs beside it.

    Returns
    -------
    tuple of Path or None
        The bundles without and with a partner; the newest where there are several.
    """
    mine = kin_of(bundle)
    if mine is None:
        return None
    for other in kin_beside(bundle):
        if other.is_control_of(mine):
            return other.bundle, bundle
        if mine.is_control_of(other):
            return bundle, other.bundle
    return None


# --- seeds ----------------------------------------------------------------------------


def why_no_second_seed(bundle: Path | None, *, works: bool) -> str:
    """Return why a run cannot be trained again with another seed; empty if it can.

    Parameters
    ----------
    bundle : Path or None
        Its student.
    works : bool
        Whether something is being trained.
    """
    if works:
        return "A training is going on: wait until it has ended."
    if bundle is None:
        return NO_STUDENT
    return "" if kin_of(bundle) else "This run's pairs or recipe cannot be read."


def say_measured(bundle: Path) -> str:
    """Return held-out retrieval of a run beside chance and its other seeds."""
    from napari_histodistill.distill.runs.events import read_events
    from napari_histodistill.distill.runs.judged import (
        judged,
        judged_seeds,
        say_retrieval,
    )

    mine = judged(read_events(bundle.parent))
    return "" if mine is None else say_retrieval(mine, judged_seeds(bundle))


# --- does it help? --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainedArms:
    """Bundles with a partner and without one, all seeds that there are of each.

    Attributes
    ----------
    students, controls : tuple of Path
        At least one of each.
    """

    students: tuple[Path, ...]
    controls: tuple[Path, ...]


def arms_of(bundle: Path) -> TrainedArms | None:
    """Return a student's arm and its control's; None if one of them is missing."""
    mine = kin_of(bundle)
    if mine is None:
        return None
    everyone = (mine, *kin_beside(bundle))
    taught = [one for one in everyone if not one.alone]
    if not taught:
        return None
    # The one looked at, or else the newest, says which partner.
    way = taught[0].taught_by
    arms: tuple[dict[int, Path], dict[int, Path]] = {}, {}
    for one in everyone:
        if one.alone or one.taught_by == way:
            arms[int(one.alone)].setdefault(one.seed, one.bundle)
    students, controls = (tuple(arm.values()) for arm in arms)
    return TrainedArms(students, controls) if students and controls else None


def why_no_help(bundle: Path | None) -> str:
    """Return why nothing can say whether the partner helps; empty if it can be."""
    if bundle is None:
        return NO_STUDENT
    return NO_CONTROL if arms_of(bundle) is None else ""


def why_no_help_here(bundle: Path | None) -> str:
    """Return why a run's own held-out pairs cannot say whether the partner helps.

    Empty if they can: a mask of classes is among their partners.
    """
    why = why_no_help(bundle)
    if why or bundle is None:
        return why
    from napari_histodistill.distill.pairs.held_out_tiles import why_no_labels

    try:
        return why_no_labels(_run_and_data(bundle.parent)[1])
    except HistodistillError as error:
        return str(error)


def _run_and_data(run: Path) -> tuple[DistillConfig, Path]:
    """Return the recipe of a run, and the folder of its pairs."""
    from napari_histodistill.distill.runs.folder import read_run

    config, place = read_run(run)
    return config, Path(place["data"])


def help_work(
    arms: TrainedArms, tiles: Path, load: StudentLoader, *, held_out: bool = False
) -> Work:
    """Return the work that judges both arms on labelled tiles.

    Parameters
    ----------
    arms : TrainedArms
        Who is judged.
    tiles : Path
        A tile folder with labels and cases; or a run, whose held-out pairs are meant.
    held_out : bool
        Which of the two it is.
    load : callable
        Loads a student.
    """

    def work(cancel: CancelToken) -> Iterator[ArmsProgress | ArmsJudged]:
        from napari_histodistill.distill.pairs.held_out_tiles import held_out_tiles
        from napari_histodistill.distill.scoring.arms import judge_arms

        judged_by = held_out_tiles(*_run_and_data(tiles)) if held_out else tiles
        cancel.check()
        loaded = []
        for bundles in (arms.students, arms.controls):
            loaded.append([load(bundle, device="auto") for bundle in bundles])
            cancel.check()
        yield from judge_arms(loaded[0], loaded[1], judged_by, cancel=cancel)

    return work


def help_table(found: ArmsJudged) -> tuple[tuple[str, str, str], ...]:
    """Return the answer as a table: whose, balanced accuracy, of how many of what."""
    report = found.report
    arms = (("with partner", report.scores), ("without", report.against))
    rows = [
        (title, f"{mean(scores):.3f}", _say_seeds(scores)) for title, scores in arms
    ]
    low, high = report.interval.low, report.interval.high
    return (
        *rows,
        (
            "difference",
            f"{report.difference:+.3f}",
            f"95 %: {low:+.3f} to {high:+.3f}, {report.sections} cases",
        ),
    )


def _say_seeds(scores: Sequence[float]) -> str:
    if len(scores) == 1:
        return "one seed"
    return f"{len(scores)} seeds: " + ", ".join(f"{score:.3f}" for score in scores)


def say_judged(found: ArmsJudged) -> str:
    """Return the answer, and what must be known with it, beside the table."""
    from napari_histodistill.distill.scoring.helping import say_verdict

    return " ".join([say_verdict(found.report), *found.notes])
