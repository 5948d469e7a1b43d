"""What a run measured on held-out pairs, and what its other seeds measured there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_histodistill.distill.runs.events import read_events
from napari_histodistill.distill.runs.kin import other_seeds
from napari_histodistill.errors import HistodistillError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_histodistill.distill.runs.kin import RunKin


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """The best look at a run's held-out pairs.

    Attributes
    ----------
    seed : int
        Seed of the run.
    step : int
        After which it was.
    loss : float
        Lowest loss.
    retrieval, chance : float or None
        Share of held-out tiles whose own partner is the most alike of a batch, and by
        chance; None where that was not measured.
    effective_rank : float or None
        Of the embeddings.
    retrievals : tuple of float
        Of each partner, where there are several.
    """

    seed: int
    step: int
    loss: float
    retrieval: float | None
    chance: float | None
    effective_rank: float | None
    retrievals: tuple[float, ...] = ()


def judged(events: Sequence[dict[str, Any]], *, seed: int = 0) -> JudgedRun | None:
    """Return what a run's events say of its held-out pairs; None if nothing."""
    checks = [e for e in events if e["kind"] == "validation"]
    if not checks:
        return None
    best = min(checks, key=lambda e: e["total"])
    return JudgedRun(
        seed=seed,
        step=best["step"],
        loss=best["total"],
        retrieval=best.get("retrieval"),
        chance=best.get("chance"),
        effective_rank=best["effective_rank"],
        retrievals=tuple(best.get("retrievals", ())),
    )


def judged_seeds(bundle: Path) -> tuple[JudgedRun, ...]:
    """Return the same of the other seeds of a student's recipe, newest first."""
    return judged_runs(other_seeds(bundle))


def judged_runs(runs: Iterable[RunKin]) -> tuple[JudgedRun, ...]:
    """Return the same of several runs; one that measured nothing is left out."""
    found = []
    for one in runs:
        try:
            seen = judged(read_events(one.bundle.parent), seed=one.seed)
        except HistodistillError:
            continue  # its events are damaged: it measured nothing that counts
        if seen is not None:
            found.append(seen)
    return tuple(found)


def say_retrieval(mine: JudgedRun, others: Sequence[JudgedRun]) -> str:
    """Return held-out retrieval beside chance and the other seeds, in one line.

    Retrieval is how often a held-out place finds its own partner among all held-out
    ones. Empty where it was not measured.
    """
    if mine.retrieval is None or mine.chance is None:
        return ""
    words = f"Held-out retrieval {mine.retrieval:.2f} (chance {mine.chance:.2g}"
    seeds = [f"{o.retrieval:.2f}" for o in others if o.retrieval is not None]
    if not seeds:
        return f"{words}; noise not measured)"
    return f"{words}, {'second seed' if len(seeds) == 1 else 'other seeds'} " + (
        ", ".join(seeds) + ")"
    )
