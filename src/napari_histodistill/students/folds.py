"""Cross-validation folds that never split a group and spread classes evenly."""

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
    """Distribute groups over folds.

    Groups of the rarest class go first, each to the fold with the fewest samples of
    that class, so that rare classes are in as many folds as possible.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int, one class per sample.
    groups : ndarray
        ``(n,)``; samples of one group (a case, a stroke) stay together.
    folds : int
        Number of folds; no more than there are groups.
    seed : int
        Decides the order of the groups of a class.

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
    """Distribute groups so that every class has samples outside each fold.

    :func:`group_folds` alone does not ensure that: a group of several classes may take
    the last samples of one of them along.

    Parameters
    ----------
    labels, groups, seed
        As for :func:`group_folds`.
    folds : int
        Largest number of folds; fewer are tried if that is impossible.

    Returns
    -------
    ndarray or None
        ``(n,)`` int, the fold of each sample; None if not even two folds are possible.
    """
    classes = len(np.unique(labels))
    for count in range(folds, 1, -1):
        fold = group_folds(labels, groups, folds=count, seed=seed)
        left = [len(np.unique(labels[fold != k])) for k in np.unique(fold)]
        if len(left) > 1 and min(left) == classes:
            return fold
    return None
