"""What a confusion table says, for many tables at once, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Counts = npt.NDArray[np.float64]

RESAMPLES = 2000
METRICS = ("balanced accuracy", "accuracy", "grouped balanced accuracy")
AUROC = "AUROC"
"""Of two classes, or the mean over classes of each against the rest."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure: mean over seeds, interval over cases, spread over seeds."""

    value: float
    low: float
    high: float
    smallest: float
    largest: float


def recall_of(name: str) -> str:
    """Return the name of a class's recall as a metric."""
    return f"recall of {name}"


def accuracy(tables: Counts) -> Counts:
    """Return the share that is right of tables ``(n, classes, classes)``, ``(n,)``."""
    right: Counts = np.trace(tables, axis1=1, axis2=2) / tables.sum(axis=(1, 2))
    return right


def recalls(tables: Counts) -> Counts:
    """Return ``(n, classes)``: the share of each class that was found, NaN of none."""
    there = tables.sum(axis=2)
    right = np.diagonal(tables, axis1=1, axis2=2)
    found: Counts = np.divide(
        right, there, out=np.full_like(there, np.nan), where=there > 0
    )
    return found


def balanced(tables: Counts) -> Counts:
    """Return the mean recall of the classes that occur, ``(n,)``."""
    mean: Counts = np.nanmean(recalls(tables), axis=1)
    return mean


def grouped(tables: Counts, groups: Sequence[int]) -> Counts:
    """Return tables of coarser classes: ``groups`` has the group of every class."""
    member = np.eye(max(groups) + 1)[list(groups)]
    found: Counts = np.einsum("nij,ig,jh->ngh", tables, member, member)
    return found


def estimate(per_seed: Sequence[Counts]) -> Estimate:
    """Summarise arrays whose first number is the value, the others resamples.

    Resamples in which a figure is not defined (NaN) do not count.
    """
    together = np.mean(per_seed, axis=0)
    low, high = np.nanpercentile(together[1:], [2.5, 97.5])
    values = [float(one[0]) for one in per_seed]
    return Estimate(
        float(together[0]), float(low), float(high), min(values), max(values)
    )


def in_figures(found: Estimate, *, sign: bool = False) -> str:
    """Return ``".532 (.485 to .574)"``."""

    def short(value: float) -> str:
        text = f"{value:+.3f}" if sign else f"{value:.3f}"
        return text.replace("0.", ".", 1)

    return f"{short(found.value)} ({short(found.low)} to {short(found.high)})"
