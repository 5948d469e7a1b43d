"""The student that is kept: one variant trained on everything, with honest figures.

What its card says was measured out of fold, on students that had not seen the tiles; so
were the temperature of its head and what its probabilities mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from safetensors.torch import load_file
from scipy.special import softmax

from napari_histodistill.distill.runs.folder import STUDENT, start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.scoring.scores import calibration_of
from napari_histodistill.errors import ComputeError
from napari_histodistill.students.bundle import (
    TENSORS_FILE,
    load_student,
    save_student,
)
from napari_histodistill.students.head import Head
from napari_histodistill.students.probe import fit_temperature
from napari_histodistill.students.spec import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_histodistill.distill.experiments.comparison import Table, TableRow
    from napari_histodistill.distill.experiments.config import ExperimentConfig
    from napari_histodistill.distill.runs.events import TrainingReport
    from napari_histodistill.distill.scoring.held_out import RunScore
    from napari_histodistill.running import CancelToken

FINAL = "final"


def train_final(
    config: ExperimentConfig,
    out: Path,
    data: Path,
    *,
    device: str,
    threads: int,
    cancel: CancelToken,
) -> Iterator[TrainingReport]:
    """Train the final variant on all tiles, in ``out/final``; see :func:`train`."""
    table = config.experiment
    recipe = config.run(table.final, None, table.seeds[0], steps=table.final_steps)
    run = start_run(recipe, out / FINAL, data)
    yield from train(run, device=device, threads=threads, cancel=cancel)


def describe_final(
    config: ExperimentConfig, out: Path, table: Table, scores: Sequence[RunScore]
) -> Path:
    """Give the final student the figures and the temperature of its variant's folds.

    Parameters
    ----------
    config : ExperimentConfig
        Recipe, which names the variant.
    out : Path
        Folder of the experiment; ``out/final`` was trained.
    table : Table
        Results of the experiment.
    scores : sequence of RunScore
        Scores of all runs.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    ComputeError
        If folds of the variant are missing: there are no honest figures then.
    """
    name = config.experiment.final
    row = next(row for row in table.rows if row.variant == name)
    if row.metrics is None:
        msg = f"{name}: {', '.join(row.missing)}: without them it cannot be judged."
        raise ComputeError(msg)
    folder = out / FINAL / STUDENT
    student = load_student(folder, device="cpu", precision="float32")
    own = [s for s in scores if s.variant == name and s.logits]
    head, calibration = student.head, student.spec.calibration
    if head is not None and own:
        logits = np.array([z for s in own for z in s.logits], np.float32)
        truth = np.array([t for s in own for t in s.truth], np.intp)
        head = Head(head.weight, head.bias, fit_temperature(logits, truth))
        calibration = calibration_of(
            softmax(logits / head.temperature, axis=1),
            truth,
            f"{len(truth)} tiles judged by students that had not seen their cases; the "
            "temperature was fitted to the same",
        )
    tensors = load_file(folder / TENSORS_FILE)
    encoder = {
        name.removeprefix("encoder."): values
        for name, values in tensors.items()
        if name.startswith("encoder.")
    }
    changed = {"metrics": metrics_of(row, config), "calibration": calibration}
    return save_student(
        folder,
        student.spec.model_copy(update=changed),
        head=head,
        encoder_state=encoder,
        trust=student.trust,
    )


def metrics_of(row: TableRow, config: ExperimentConfig) -> tuple[Metric, ...]:
    """Return a variant's figures for the card: out of fold, with intervals."""
    assert row.metrics is not None
    how = (
        f"students trained alike on the other folds, {len(config.experiment.folds)} "
        f"folds by case, {sum(map(sum, row.confusion))} tiles; 95 % over cases"
    )
    return tuple(
        Metric(
            name=name,
            value=round(found.value, 4),
            low=round(found.low, 4),
            high=round(found.high, 4),
            protocol=how,
        )
        for name, found in row.metrics.items()
    )
