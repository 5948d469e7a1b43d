"""Scores of a classifier, with intervals: pure functions of truth and predictions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.students.spec import CalibrationSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    Labels = npt.NDArray[np.intp]

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """95 % percentile interval of a bootstrap over cases."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class: number of tiles, share of them found, share of predictions right.

    ``recall`` is None for a class without tiles, ``precision`` for one never predicted.
    """

    n: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class FoldScore:
    """One held-out fold; ``strength`` is the C chosen in the other folds."""

    fold: str
    n: int
    accuracy: float
    balanced_accuracy: float
    strength: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a student on labelled tiles.

    Attributes
    ----------
    accuracy : float
        Share of tiles that are right.
    balanced_accuracy : float
        Mean over the classes that have tiles of the share that is right.
    accuracy_interval, balanced_accuracy_interval : Interval
        Bootstrap over cases (over tiles, where cases are not known).
    calibration_error : float
        Expected calibration error in 15 bins (Guo et al. 2017).
    sure_share, sure_right : float
        Share of tiles with a probability of .9 or more, and share of those that are
        right; None where there are none.
    n, cases : int
        Number of tiles; number of cases, 0 where not known.
    classes : tuple of str
        Order of ``confusion`` and ``per_class``.
    confusion : tuple of tuple of int
        Rows are the truth, columns what was predicted.
    per_class : tuple of ClassScore
        In the order of ``classes``.
    protocol : {"head", "probe"}
        The student's own head, or probes fitted out of fold on its frozen embeddings.
    reason : str
        Reason for this protocol, one sentence.
    folds : tuple of FoldScore
        Empty for the protocol "head".
    notes : tuple of str
        Notes for the reader, such as tiles that were resized.
    """

    accuracy: float
    balanced_accuracy: float
    accuracy_interval: Interval
    balanced_accuracy_interval: Interval
    calibration_error: float
    n: int
    cases: int
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassScore, ...]
    protocol: str
    reason: str
    folds: tuple[FoldScore, ...] = ()
    notes: tuple[str, ...] = ()
    sure_share: float = 0.0
    sure_right: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; ``per_class`` goes by class name."""
        plain = asdict(self)
        plain["per_class"] = dict(zip(self.classes, plain["per_class"], strict=True))
        return plain


def accuracies(truth: Labels, predicted: Labels) -> tuple[float, float]:
    """Return accuracy and balanced accuracy."""
    right = truth == predicted
    shares = [right[truth == label].mean() for label in np.unique(truth)]
    return float(right.mean()), float(np.mean(shares))


def intervals_by_case(
    truth: Labels,
    predicted: Labels,
    cases: npt.NDArray[np.generic],
    *,
    seed: int = 0,
) -> tuple[Interval, Interval]:
    """Return the intervals of accuracy and balanced accuracy.

    Cases are drawn with replacement, with all their tiles: tiles of one case resemble
    each other, and an interval over tiles would be too narrow.

    Parameters
    ----------
    truth, predicted : ndarray
        ``(n,)`` int.
    cases : ndarray
        ``(n,)``, the case of each tile.
    seed : int
        Seed of the resampling.
    """
    _, member = np.unique(cases, return_inverse=True)
    member = member.reshape(-1)
    shape = (int(member.max()) + 1, int(truth.max()) + 1)
    total, right = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (member, truth), 1)
    np.add.at(right, (member, truth), truth == predicted)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), RESAMPLES)
    totals, rights = draws @ total, draws @ right
    accuracy = rights.sum(axis=1) / totals.sum(axis=1)
    drawn = totals > 0  # a rare class may be missing from a resample
    recalls = np.divide(rights, totals, out=np.zeros_like(rights), where=drawn)
    balanced = recalls.sum(axis=1) / drawn.sum(axis=1)
    return _interval(accuracy), _interval(balanced)


def confusion_table(
    truth: Labels, predicted: Labels, classes: int
) -> npt.NDArray[np.intp]:
    """Return ``(classes, classes)`` counts, rows the truth."""
    table = np.zeros((classes, classes), np.intp)
    np.add.at(table, (truth, predicted), 1)
    return table


def class_scores(table: npt.NDArray[np.intp]) -> tuple[ClassScore, ...]:
    """Return recall and precision of every class of a confusion table."""
    there, said = table.sum(axis=1), table.sum(axis=0)
    return tuple(
        ClassScore(
            int(there[k]),
            float(table[k, k] / there[k]) if there[k] else None,
            float(table[k, k] / said[k]) if said[k] else None,
        )
        for k in range(len(table))
    )


SURE = 0.9
"""Probability from which a tile counts as sure."""


def calibration_error(
    probabilities: npt.NDArray[np.floating], truth: Labels, *, bins: int = 15
) -> float:
    """Return the expected calibration error: mean |confidence − accuracy| over bins."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def calibration_of(
    probabilities: npt.NDArray[np.floating], truth: Labels, protocol: str
) -> CalibrationSpec:
    """Return what probabilities ``(n, classes)`` meant, n ≥ 1, for a student's spec.

    Parameters
    ----------
    probabilities : ndarray
        Of tiles that the head had not learned from.
    truth : ndarray
        ``(n,)`` int: their classes.
    protocol : str
        How this was measured.
    """
    sure = probabilities.max(axis=1) >= SURE
    right = probabilities.argmax(axis=1) == truth
    return CalibrationSpec(
        error=round(calibration_error(probabilities, truth), 4),
        sure_share=round(float(sure.mean()), 4),
        sure_right=round(float(right[sure].mean()), 4) if sure.any() else None,
        protocol=protocol,
    )


def _interval(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))
