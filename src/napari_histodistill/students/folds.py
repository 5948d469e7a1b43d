"""Folds that never split a group and spread every class as evenly as they can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def group_folds(
    labels: npt.NDArray[np.integer],
    groups: npt.NDArray[np.generic],
    *,
    folds: int,
    seed: int = 0,
) -> npt.NDArray[np.intp]:
    """Deal groups into folds.

    Groups of the rarest class are dealt first, each to the fold that has the fewest
    samples of that class: so the rare classes are in as many folds as they have groups.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int, one class per sample.
    groups : ndarray
        ``(n,)``, what must stay together (a case, a stroke).
    folds : int
        How many; no more than there are groups.
    seed : int
        Order in which groups of a class are dealt.

    Returns
    -------
    ndarray
        ``(n,)`` int, the fold of each sample, ``0 … folds - 1``.
    """
    _, member = np.unique(groups, return_inverse=True)
    member = member.reshape(-1)
    table = np.zeros((member.max() + 1, labels.max() + 1), np.intp)
    np.add.at(table, (member, labels), 1)
    order = np.random.default_rng(seed).permutation(len(table))
    fold_of = np.full(len(table), -1, np.intp)
    dealt = np.zeros((folds, table.shape[1]), np.intp)
    for label in np.argsort((table > 0).sum(axis=0), kind="stable"):
        holders = [g for g in order if fold_of[g] < 0 and table[g, label]]
        for group in sorted(holders, key=lambda g: -int(table[g, label])):
            fold = int(np.lexsort((dealt.sum(axis=1), dealt[:, label]))[0])
            fold_of[group] = fold
            dealt[fold] += table[group]
    return fold_of[member]


def folds_around_every_class(
    labels: npt.NDArray[np.integer],
    groups: npt.NDArray[np.generic],
    *,
    folds: int,
    seed: int = 0,
) -> npt.NDArray[np.intp] | None:
    """Deal groups into folds such that every class has samples outside each fold.

    A group that holds several classes can take the last samples of one with it.

    Parameters
    ----------
    labels, groups, seed
        As for :func:`group_folds`.
    folds : int
        How many at most; fewer are tried where those will not do.

    Returns
    -------
    ndarray or None
        ``(n,)`` int, the fold of each sample; None if not even two folds will do.
    """
    classes = len(np.unique(labels))
    for count in range(folds, 1, -1):
        fold = group_folds(labels, groups, folds=count, seed=seed)
        left = [len(np.unique(labels[fold != k])) for k in np.unique(fold)]
        if len(left) > 1 and min(left) == classes:
            return fold
    return None
