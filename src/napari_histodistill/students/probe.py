"""The probe: logistic regression on frozen embeddings, as strong as the data allow.

Strength and temperature are chosen within the data that is passed, on folds that keep
groups together. So code that scores a probe must pass training data only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.students.folds import folds_around_every_class
from napari_histodistill.students.head import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.intp]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisations (scikit-learn's C) to try on standardised features."""

DEFAULT_STRENGTH = 1e-2
"""Used when there are too few samples to choose."""

INNER_FOLDS = 4


@dataclass(frozen=True, slots=True)
class ProbeFit:
    """A fitted probe.

    Attributes
    ----------
    head : Head
        Works on raw embeddings: the standardisation is folded into its weights.
    strength : float
        The chosen C; a larger one follows the samples more closely.
    score : float or None
        Balanced accuracy on held-out folds of the given data; None if a class has a
        single sample (or group), so that nothing could be held out.
    counts : tuple of int
        Samples per class.
    """

    head: Head
    strength: float
    score: float | None
    counts: tuple[int, ...]


def fit_probe(
    embeddings: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    *,
    groups: npt.NDArray[np.generic] | None = None,
    seed: int = 0,
) -> ProbeFit:
    """Fit a probe and calibrate it.

    Classes have equal weight, however many samples they have. The strength is the one
    with the best balanced accuracy on inner folds; the temperature (Guo et al. 2017) is
    the one under which the held-out labels of those folds are most likely.

    Parameters
    ----------
    embeddings : ndarray
        ``(n, dim)`` float.
    labels : ndarray
        ``(n,)`` int, ``0 … k - 1``; at least two classes, and no number left out.
    groups : ndarray or None
        ``(n,)``; samples of one group (a case, a stroke) never lie on both sides of an
        inner fold.
    seed : int
        Seed of the folds.

    Returns
    -------
    ProbeFit
        The head, and how it was chosen.

    Raises
    ------
    InputError
        If there are fewer than two classes, one has no samples, or the numbers do not
        fit together or are not finite.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    x, y = _checked(embeddings, labels, groups)
    who = np.arange(len(y)) if groups is None else np.asarray(groups)
    # One BLAS thread: the products are small, and on a busy machine threads waiting for
    # each other made 21 fits take 47 s instead of 3.
    with threadpool_limits(1, user_api="blas"):
        return _choose_and_fit(x, y, who, seed)


def fit_head(
    embeddings: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    *,
    start: Head | None = None,
) -> Head:
    """Fit a probe of :data:`DEFAULT_STRENGTH` without choosing or calibrating anything.

    Takes a hundredth of a second for a few hundred samples, where :func:`fit_probe`
    fits twenty-one times: for probes that are fitted again after every stroke.

    Parameters
    ----------
    embeddings, labels
        As for :func:`fit_probe`.
    start : Head or None
        A head of the same classes to start from; the answer is the same within the
        tolerance of the fit, and comes sooner.

    Raises
    ------
    InputError
        As :func:`fit_probe` does.
    """
    from threadpoolctl import threadpool_limits

    x, y = _checked(embeddings, labels, None)
    with threadpool_limits(1, user_api="blas"):
        weight, bias = _fit(_standardise(x), y, DEFAULT_STRENGTH, start)
    return Head(weight, bias)


def held_out_logits(
    embeddings: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    fold: npt.NDArray[np.intp],
    *,
    between: Callable[[], object] = lambda: None,
) -> Floats:
    """Return the logits of each sample by a :func:`fit_head` that never saw its fold.

    Parameters
    ----------
    embeddings, labels
        As for :func:`fit_probe`.
    fold : ndarray
        ``(n,)`` int; every class must have samples outside each fold.
    between : callable
        Called before every fit; it may raise to end the work.

    Returns
    -------
    ndarray
        ``(n, classes)`` float32.
    """
    from threadpoolctl import threadpool_limits

    x, y = _checked(embeddings, labels, fold)
    with threadpool_limits(1, user_api="blas"):
        return _held_out_logits(x, y, fold, DEFAULT_STRENGTH, between)


def _choose_and_fit(
    x: Floats, y: Labels, who: npt.NDArray[np.generic], seed: int
) -> ProbeFit:
    strength, score, temperature = DEFAULT_STRENGTH, None, 1.0
    folds = min(INNER_FOLDS, _fewest_groups(y, who))
    fold = folds_around_every_class(y, who, folds=folds, seed=seed)
    if fold is not None:
        held_out = {c: _held_out_logits(x, y, fold, c) for c in STRENGTHS}
        scores = {c: _balanced(y, z.argmax(axis=1)) for c, z in held_out.items()}
        # Of equally good strengths, the weakest: it relies less on the samples.
        strength = max(STRENGTHS, key=lambda c: (scores[c], -c))
        score = scores[strength]
        temperature = fit_temperature(held_out[strength], y)
    weight, bias = _fit(_standardise(x), y, strength)
    head = Head(weight, bias, temperature)
    return ProbeFit(head, strength, score, tuple(np.bincount(y).tolist()))


def _checked(
    embeddings: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    groups: npt.NDArray[np.generic] | None,
) -> tuple[Floats, Labels]:
    x, y = np.asarray(embeddings, np.float32), np.asarray(labels, np.intp)
    who = y.shape if groups is None else groups.shape
    if x.ndim != 2 or not y.shape == who == (len(x),):
        msg = (
            f"a probe needs (n, dim) embeddings and as many labels and groups, got "
            f"{x.shape}, {y.shape} and {who}."
        )
        raise InputError(msg)
    if not np.isfinite(x).all():
        msg = "a probe needs finite embeddings: leave out cells without one."
        raise InputError(msg)
    if len(np.unique(y)) < 2:
        msg = "a probe needs samples of at least two classes: paint or label another."
        raise InputError(msg)
    if y.min() < 0 or not np.bincount(y).all():
        msg = f"class {_first_gap(y)} has no samples: label some, or leave it out."
        raise InputError(msg)
    return x, y


def _first_gap(y: Labels) -> int:
    return int(y.min()) if y.min() < 0 else int(np.argmin(np.bincount(y)))


def _fewest_groups(y: Labels, who: npt.NDArray[np.generic]) -> int:
    """Return the number of groups of the class with the fewest."""
    return min(len(np.unique(who[y == label])) for label in np.unique(y))


_Standard = tuple["Floats", "Floats", "Floats"]


def _standardise(x: Floats) -> _Standard:
    """Return standardised features, mean and scale; constant features become 0."""
    mean, std = x.mean(axis=0), x.std(axis=0)
    scale = np.where(std > 1e-6, std, np.inf).astype(np.float32)
    return (x - mean) / scale, mean, scale


def _fit(
    standard: _Standard, y: Labels, strength: float, start: Head | None = None
) -> tuple[Floats, Floats]:
    """Return weight ``(classes, dim)`` and bias for raw embeddings."""
    from sklearn.linear_model import LogisticRegression

    features, mean, scale = standard
    # With a tolerance of 1e-3, predictions no longer change when the fit stops.
    model: Any = LogisticRegression(
        C=strength,
        class_weight="balanced",
        max_iter=2000,
        tol=1e-3,
        warm_start=start is not None,
    )
    if start is not None:
        model.coef_, model.intercept_ = _on_standardised(start, mean, scale)
    model.fit(features, y)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two classes: scikit-learn only stores the difference
        weight = np.concatenate([-weight, weight]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    weight = weight / scale
    bias = bias - weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def _on_standardised(
    head: Head, mean: Floats, scale: Floats
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return a head as scikit-learn's coefficients on standardised features."""
    weight, bias = head.weight.astype(np.float64), head.bias.astype(np.float64)
    if len(weight) == 2:  # scikit-learn only stores the difference
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    bias = bias + weight @ mean
    return weight * np.where(np.isfinite(scale), scale, 0), bias


def _held_out_logits(
    x: Floats,
    y: Labels,
    fold: npt.NDArray[np.intp],
    strength: float,
    between: Callable[[], object] = lambda: None,
) -> Floats:
    """Return ``(n, classes)``: each sample's logits from a fit that never saw it."""
    logits = np.zeros((len(y), y.max() + 1), np.float32)
    for train, test in _splits(fold):
        between()
        weight, bias = _fit(_standardise(x[train]), y[train], strength)
        logits[test] = x[test] @ weight.T + bias
    return logits


def _splits(
    fold: npt.NDArray[np.intp],
) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    for k in np.unique(fold):
        yield fold != k, fold == k


def _balanced(y: Labels, predicted: Labels) -> float:
    """Return the balanced accuracy: the mean over classes of the share found."""
    right = np.bincount(y, weights=predicted == y)
    return float((right / np.bincount(y)).mean())


def fit_temperature(logits: Floats, y: Labels) -> float:
    """Return the temperature that makes held-out labels most likely (Guo et al. 2017).

    Parameters
    ----------
    logits : ndarray
        ``(n, classes)`` float, of samples that the probe was not fitted to.
    y : ndarray
        ``(n,)`` int, their classes.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    def surprise(log_temperature: float) -> float:
        z = logits.astype(np.float64) / np.exp(log_temperature)
        found: float = (logsumexp(z, axis=1) - z[np.arange(len(y)), y]).mean()
        return found

    # Held-out folds of a few samples can be all right or all wrong; the bounds keep the
    # temperature sensible then.
    best = minimize_scalar(surprise, bounds=(np.log(0.1), np.log(10)), method="bounded")
    return float(np.exp(best.x))
