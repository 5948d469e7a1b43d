"""Checks of every step of a run, for what the user must know."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from napari_histodistill.distill.runs.events import TrainingReport
from napari_histodistill.distill.training.health import (
    collapsed,
    effective_rank,
    feature_std,
)
from napari_histodistill.distill.training.optimiser import learning_rate
from napari_histodistill.errors import ComputeError

if TYPE_CHECKING:
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.training.trainer import StepResult

PATIENCE = 3
"""Reports in a row that must show a collapse before the run ends."""


class Watch:
    """Turns steps into reports, and faults in them into errors.

    Parameters
    ----------
    config : DistillConfig
        Recipe of the run.
    """

    def __init__(self, config: DistillConfig) -> None:
        self._config = config
        self._since = time.monotonic()
        self._counted: int | None = None
        self._bad = 0

    def check_finite(self, result: StepResult, done: int, saved: int) -> None:
        """Raise ComputeError if the loss is not a finite number."""
        if not math.isfinite(result.total):
            terms = ", ".join(f"{k} {v:g}" for k, v in result.terms.items())
            msg = (
                f"the loss is no longer a number at step {done} ({terms}): lower "
                f"schedule.lr or use precision float32; the checkpoint of step {saved} "
                "is intact."
            )
            raise ComputeError(msg)

    def report(self, result: StepResult, done: int, saved: int) -> TrainingReport:
        """Return a step's report; raise ComputeError if the embeddings collapsed."""
        schedule = self._config.schedule
        std = feature_std(result.embeddings)
        rank = effective_rank(result.embeddings)
        self._check_collapse(
            collapsed(std, rank, result.embeddings.shape[1]), done, saved
        )
        pace = self._pace(done)
        return TrainingReport(
            "step",
            done,
            schedule.steps,
            total=result.total,
            terms=result.terms,
            learning_rate=learning_rate(schedule, done - 1),
            feature_std=std,
            effective_rank=rank,
            pairs_per_second=None if pace is None else pace * schedule.batch,
            seconds_left=None if not pace else (schedule.steps - done) / pace,
        )

    def validation(self, result: StepResult, done: int) -> TrainingReport:
        """Return a validation's report."""
        return TrainingReport(
            "validation",
            done,
            self._config.schedule.steps,
            total=result.total,
            terms=result.terms,
            feature_std=feature_std(result.embeddings),
            effective_rank=effective_rank(result.embeddings),
            retrieval=result.retrieval,
            chance=None if result.retrieval is None else 1 / result.batch,
            retrievals=result.retrievals,
        )

    def _check_collapse(self, what: str, done: int, saved: int) -> None:
        self._bad = self._bad + 1 if what else 0
        warm = self._config.schedule.warmup_share * self._config.schedule.steps
        if self._bad >= PATIENCE and done > warm and self._config.arm != "supervised":
            msg = (
                f"{what} at step {done}: the student no longer tells tiles apart; "
                f"{advice(self._config)}; the checkpoint of step {saved} is intact."
            )
            raise ComputeError(msg)

    def _pace(self, done: int) -> float | None:
        """Return steps per second since the last report; None for the first."""
        now = time.monotonic()
        counted, since = self._counted, self._since
        self._counted, self._since = done, now
        return None if counted is None else (done - counted) / max(now - since, 1e-9)


def advice(config: DistillConfig) -> str:
    """Return what helps against a collapse, with what a recipe has."""
    if config.objective.fixed:
        return (
            "lower schedule.lr, or look at the partner: where it says nothing of a "
            "tile, the mean is all that can be predicted"
        )
    if config.objective.kind == "vicreg":
        return "raise schedule.batch or objective.variance, or lower schedule.lr"
    return "raise schedule.batch, or lower schedule.lr"
