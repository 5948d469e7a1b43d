"""Checks of every step of a run, for what the user must know."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

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
    from napari_histodistill.distill.training.trainer import (
        StepResult,
        ValidationResult,
    )

    Tensor = torch.Tensor

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
        self._fault = _FirstFault()
        self._bad = 0

    def follow(self, result: StepResult, done: int, saved: int) -> None:
        """Look at a step's loss: on a CPU now, elsewhere when :meth:`check` is called.

        Raises
        ------
        ComputeError
            If the loss is not a finite number.
        """
        self._fault.note(result, done)
        if result.values.device.type == "cpu":
            self.check(saved)

    def check(self, saved: int) -> None:
        """Raise ComputeError if a loss was not a finite number; waits for the device.

        Parameters
        ----------
        saved : int
            Step of the last checkpoint.
        """
        found = self._fault.read()
        if found is not None:
            done, terms = found
            words = ", ".join(f"{k} {v:g}" for k, v in terms.items())
            msg = (
                f"the loss is no longer a number at step {done} ({words}): lower "
                f"schedule.lr or use precision float32; the checkpoint of step {saved} "
                "is intact."
            )
            raise ComputeError(msg)

    def report(self, result: StepResult, done: int, saved: int) -> TrainingReport:
        """Return a step's report; raise ComputeError if the embeddings collapsed."""
        schedule = self._config.schedule
        total, terms = result.named(result.values.tolist())
        std, rank, dim = _health(result)
        self._check_collapse(collapsed(std, rank, dim), done, saved)
        pace = self._pace(done)
        return TrainingReport(
            "step",
            done,
            schedule.steps,
            total=total,
            terms=terms,
            learning_rate=learning_rate(schedule, done - 1),
            feature_std=std,
            effective_rank=rank,
            pairs_per_second=None if pace is None else pace * schedule.batch,
            seconds_left=None if not pace else (schedule.steps - done) / pace,
        )

    def validation(self, result: ValidationResult, done: int) -> TrainingReport:
        """Return a validation's report."""
        std, rank, _dim = _health(result)
        return TrainingReport(
            "validation",
            done,
            self._config.schedule.steps,
            total=result.total,
            terms=result.terms,
            feature_std=std,
            effective_rank=rank,
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


class _FirstFault:
    """The first step whose loss was no finite number, kept where losses are."""

    def __init__(self) -> None:
        self._kept: Tensor | None = None
        self._names: tuple[str, ...] = ()

    def note(self, result: StepResult, done: int) -> None:
        """Take a step in; nothing is read from the device."""
        here = torch.cat([result.values.new_full((1,), done), result.values])
        if self._kept is None:
            self._kept, self._names = torch.zeros_like(here), result.names
        is_first = (self._kept[0] == 0) & ~torch.isfinite(here[1])
        self._kept = torch.where(is_first, here, self._kept)

    def read(self) -> tuple[int, dict[str, float]] | None:
        """Return that step and the parts of its loss; None if all were finite.

        What was noted is forgotten: to ask again is to wait for nothing.
        """
        if self._kept is None:
            return None
        done, _total, *terms = self._kept.tolist()
        self._kept = None
        named = dict(zip(self._names, terms, strict=True))
        return (int(done), named) if done else None


def _health(result: StepResult | ValidationResult) -> tuple[float, float, int]:
    """Return spread, rank and width of the embeddings."""
    embeddings = result.embeddings.cpu()  # once for both
    spread, rank = feature_std(embeddings), effective_rank(embeddings)
    return spread, rank, embeddings.shape[1]


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
