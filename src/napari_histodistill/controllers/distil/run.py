"""A training run in the window: its state in words, its curves, what can be done."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_histodistill.controllers.shared.wording import duration_in_words
from napari_histodistill.distill.pairs.store import is_pairs, read_origins
from napari_histodistill.distill.runs.events import (
    events_of,
    health_in_words,
    warning_of,
)
from napari_histodistill.distill.runs.folder import LOCK, read_run, run_data
from napari_histodistill.distill.runs.process import RunProcess, RunView, look_at
from napari_histodistill.distill.runs.smaller_batch import why_no_smaller
from napari_histodistill.errors import InputError
from napari_histodistill.lock import is_held

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_histodistill.controllers.distil.session import DistilSession
    from napari_histodistill.distill.pairs.provenance import SectionOrigin

    CurvePoints = tuple[tuple[float, float], ...]

NAMED_SECTIONS = 3
"""Sections of a run that are named; of more there is their number."""


def say_run(view: RunView) -> str:
    """Return where a run stands, in one line."""
    steps = events_of(view.events, "step")
    last = steps[-1] if steps else None
    if view.state in {"starting", "running"} and last is None and not view.stopping:
        return "Starting: reading pairs, building networks…"
    if view.state == "gone":
        return view.message
    at = f"step {last['step']} of {last['steps']}" if last else "before the first step"
    if view.stopping:
        return f"Stopping, {at}…"
    if view.state == "running" and last is not None:
        return _say_running(view, at, last["seconds_left"])
    if view.is_paused:
        return f"Paused at {at}."
    if view.state == "finished":
        return f"Finished after {last['steps'] if last else 0} steps."
    if view.state == "stopped" and last is not None:
        return f"Stopped at {at}; the best model so far is kept."
    return view.message


def learns_elsewhere(session: DistilSession) -> str:
    """Return from which sections a run learns, where the H&E is none of them.

    Of a run that was found again, always, with the partners: nobody chose them here.
    """
    here = session.sparse
    if not session.run_of and session.run_from:
        digests = {one.sparse.digest for one in session.run_from}
        other = here is not None and here.info.section not in digests
        words = f"From {_say_origins(session.run_from)}"
        return f"{words}, not from this slide. " if other else f"{words}. "
    names = [x.plan.sparse.name for x in session.run_of]
    known = {x.plan.sparse.info.section for x in session.run_of}
    if here is None or not known or here.info.section in known:
        return ""
    return f"From {', '.join(names)}, not from this slide. "


def origins_of(run: RunProcess) -> tuple[SectionOrigin, ...]:
    """Return where the pairs of a run come from, as far as they say it.

    Raises
    ------
    InputError
        If the run's folder, or what its pairs say, is damaged.
    """
    data = run_data(run.folder)
    found = read_origins(data) if is_pairs(data) else ()
    return tuple(one for one in found if one is not None)


def _say_origins(origins: Sequence[SectionOrigin]) -> str:
    """Return each H&E with its partners, by name; of many, the first few."""
    named = []
    for one in origins[:NAMED_SECTIONS]:
        partners = dict.fromkeys(partner.image.name for partner in one.partners)
        taught = f" with {' and '.join(partners)}" if partners else ""
        named.append(one.sparse.name + taught)
    more = len(origins) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _say_running(view: RunView, at: str, left: float | None) -> str:
    if view.events[-1]["kind"] == "saving":
        return f"Saving the model: {view.events[-1]['message']}."
    soon = f", {duration_in_words(left)} left" if left else ""
    warning = warning_of(view.events)
    return f"Training: {at}{soon}." + (f" {warning}" if warning else "")


@dataclass(frozen=True, slots=True)
class SmallerBatch:
    """An offer to go on with half as many pairs a step.

    Attributes
    ----------
    words : str
        Its meaning, in sentences.
    why_not : str
        Why it cannot be; empty if it can.
    """

    words: str
    why_not: str


@dataclass(frozen=True, slots=True)
class TrainingControls:
    """The actions that a training allows.

    Attributes
    ----------
    goes_on : bool
        Whether to start means to go on with the run that ended early.
    why_no_start : str
        Why it cannot be started; empty if it can.
    works, paused : bool
        Whether a process works on it, and waits.
    may_stop : bool
        Whether there is something to stop: a training, or what leads to one.
    why_no_use : str
        Why its student cannot be used; empty if it can.
    has_run, has_report : bool
        Whether there is a run to ask about, and a report to be read now.
    smaller : SmallerBatch or None
        Where the run may have lacked memory.
    """

    goes_on: bool
    why_no_start: str
    works: bool
    paused: bool
    may_stop: bool
    why_no_use: str
    has_run: bool
    has_report: bool
    smaller: SmallerBatch | None


def controls_of(
    session: DistilSession, view: RunView | None, *, writing: bool, starting: bool
) -> TrainingControls:
    """Return the actions that a training allows.

    Parameters
    ----------
    session : DistilSession
        With the pairs and the run.
    view : RunView or None
        The run as it stands; None before there is one, or while it is being started.
    writing, starting : bool
        Whether its pairs are being written, or its process is being started.
    """
    works, again = view is not None and view.works, goes_on(session)
    why = "A training is running." if works else session.why_no_training
    if writing:
        why = "The pairs are being written."
    if again:
        why = ""
    if starting:
        why = "The training is being started."
    ready = session.student is not None and not works
    return TrainingControls(
        goes_on=again,
        why_no_start=why,
        works=works,
        paused=view is not None and view.is_paused,
        may_stop=writing or starting or works,
        why_no_use="" if ready else "There is no model yet: train one first.",
        has_run=session.run is not None,
        has_report=session.report is not None and not works,
        smaller=_smaller_batch(session.run, view),
    )


def goes_on(session: DistilSession) -> bool:
    """Whether to start means to go on: a run ended early, and no new pairs wait."""
    run = session.run
    return run is not None and run.view().resumable and not session.has_new_pairs


def _smaller_batch(run: RunProcess | None, view: RunView | None) -> SmallerBatch | None:
    if run is None or view is None or not view.may_lack_memory:
        return None
    config, _ = read_run(run.folder)
    batch = config.schedule.batch
    words = (
        f"{batch // 2} pairs a step in place of {batch} need about half the memory. "
        "The result is another model: losses before and after cannot be compared."
    )
    return SmallerBatch(words, why_no_smaller(config))


def run_to_show(runs: Path) -> RunProcess | None:
    """Return the newest run if it still works or could go on; before it, one at work.

    What is newest a clock says, which may have been set back.
    """
    newest = newest_run(runs)
    if newest is None:
        return None
    for folder in _all_runs(runs):
        with suppress(InputError):  # nobody can say: then by the clock, as all others
            if is_held(folder / LOCK):
                return RunProcess(folder)
    view = look_at(newest)
    return RunProcess(newest) if view.works or view.resumable else None


def is_training(runs: Path) -> bool:
    """Whether a process trains one of the runs of a folder."""
    for folder in _all_runs(runs):
        with suppress(InputError):  # nobody can say
            if is_held(folder / LOCK):
                return True
    return False


def share_done(view: RunView) -> float | None:
    """Return which share of its steps a run has taken; None before the first."""
    last = events_of(view.events, "step")[-1:]
    return last[0]["step"] / last[0]["steps"] if last else None


@dataclass(frozen=True, slots=True)
class RunCurves:
    """The curves of a run; points are ``(step, value)``.

    Attributes
    ----------
    steps : int
        How many there will be.
    loss, validation, rank : tuple
        The loss of the steps and of the validation, and the effective rank.
    """

    steps: int
    loss: CurvePoints
    validation: CurvePoints
    rank: CurvePoints


def curves_of(events: Sequence[dict[str, Any]]) -> RunCurves:
    """Return the curves of a run's events."""
    steps = [e for e in events_of(events, "step") if e["total"] is not None]
    judged = events_of(events, "validation")
    ranked = [e for e in steps if e["effective_rank"]]
    return RunCurves(
        steps=max((e["steps"] for e in steps), default=1),
        loss=tuple((e["step"], e["total"]) for e in steps),
        validation=tuple((e["step"], e["total"]) for e in judged),
        rank=tuple((e["step"], e["effective_rank"]) for e in ranked),
    )


def health_of(view: RunView) -> str:
    """Return a warning in plain words if all places become alike to the student."""
    return health_in_words(view.events)


def run_name(at: float | None = None) -> str:
    """Return the name of a run that starts now, and of its student.

    Not the slide's name, which is often a case's: students are passed on.
    """
    return f"model-{time.strftime('%Y%m%d-%H%M%S', time.localtime(at))}"


def free_run(runs: Path) -> str:
    """Return a name for a run that starts now, under which there is none yet."""
    name = first = run_name()
    number = 2
    while (runs / name).exists():  # two in one second, or a clock that was set back
        name, number = f"{first}-{number}", number + 1
    return name


def newest_run(runs: Path) -> Path | None:
    """Return the run folder that something happened in last; None if there is none."""
    return next(iter(_all_runs(runs)), None)


def _all_runs(runs: Path) -> list[Path]:
    """Return all runs, the one that something happened in last first."""
    found = [p.parent for p in runs.glob("*/config.toml")]
    return sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)
