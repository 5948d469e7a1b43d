"""Checkpoints to continue a run from: safetensors, written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_histodistill.errors import ComputeError, InputError
from napari_histodistill.files import written_beside

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    StateDict = dict[str, torch.Tensor]

LAST, BEST = "last.safetensors", "best.safetensors"
_FIELD = "checkpoint"
_DAMAGE = (
    OSError, SafetensorError, LookupError, TypeError, ValueError, RecursionError,
    MemoryError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """Position of a checkpoint in its run.

    Attributes
    ----------
    step : int
        Optimiser steps taken so far.
    recipe : str
        Digest of the configuration, hex.
    pairs : str
        Digest of the pairs, hex.
    best_step : int
        Step of the best checkpoint so far.
    best_score : float or None
        Its validation loss; None where no pairs are held out for validation.
    """

    step: int
    recipe: str
    pairs: str
    best_step: int
    best_score: float | None


def write_checkpoint(path: Path, tensors: StateDict, mark: Mark) -> None:
    """Write a checkpoint; an interruption leaves the earlier one as it was.

    Raises
    ------
    ComputeError
        If it cannot be written (a full disk); the earlier one is intact.
    """
    values = {slot: getattr(mark, slot) for slot in Mark.__slots__}
    try:
        path.parent.mkdir(exist_ok=True)
        whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with written_beside(path) as beside:
            save_file(whole, beside, metadata={_FIELD: json.dumps(values)})
            with beside.open("rb") as file:
                os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        msg = (
            f"{path} cannot be written ({error}): free space and continue the run; the "
            "last good checkpoint is intact."
        )
        raise ComputeError(msg) from error


def _mark(values: dict[str, Any]) -> Mark:
    mark = Mark(**values)
    whole = all(type(n) is int and n >= 0 for n in (mark.step, mark.best_step))
    if not whole or not isinstance(mark.best_score, int | float | None):
        msg = "its position is not given in numbers"
        raise ValueError(msg)
    return mark


def read_checkpoint(path: Path) -> tuple[StateDict, Mark]:
    """Read a checkpoint onto the CPU.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            mark = _mark(json.loads((file.metadata() or {})[_FIELD]))
            return {k: file.get_tensor(k) for k in file.keys()}, mark  # noqa: SIM118 - no mapping
    except _DAMAGE as error:
        msg = (
            f"{path} cannot be read ({error}): it is damaged; remove it and start the "
            "run again."
        )
        raise InputError(msg) from error
