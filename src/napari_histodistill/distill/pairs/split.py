"""The split of pairs: which are held out, and which would show held-out tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.pairs.batches import SPLIT, stream, torch_seed
from napari_histodistill.students.folds import group_folds

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.intp]

_TOUCHING = 1e-6
"""Tiles that overlap by a smaller share of their edge only touch."""


@dataclass(frozen=True, slots=True, eq=False)
class PairPlaces:
    """Where the sparse tiles of pairs lie.

    Attributes
    ----------
    sections : ndarray
        ``(n,)``, the section of each pair; those of two sections never overlap.
    centres_um : ndarray
        ``(n, 2)`` float64, (y, x) in the world of its section.
    edge_um : float
        Edge of every tile.
    """

    sections: npt.NDArray[np.generic]
    centres_um: npt.NDArray[np.float64]
    edge_um: float

    def take(self, rows: Ints) -> PairPlaces:
        """Return the places of these rows, in their order."""
        return PairPlaces(self.sections[rows], self.centres_um[rows], self.edge_um)


def folds_for(share: float) -> int:
    """Return how many folds make one of them about this share."""
    return max(2, round(1 / share))


def held_out_rows(
    cases: npt.NDArray[np.generic],
    *,
    share: float,
    seed: int,
    labels: Ints | None = None,
) -> Ints:
    """Return the rows that are held out: whole cases, about a share of the pairs.

    Parameters
    ----------
    cases : ndarray
        ``(n,)``, the case or region of each pair.
    share : float
        Share to hold out, above 0 and at most a half.
    seed : int
        Of the recipe.
    labels : ndarray, optional
        ``(n,)`` int; classes are spread over both sides, and one that would be held
        out whole is trained on instead.
    """
    strata = np.zeros(len(cases), np.intp) if labels is None else labels
    fold = group_folds(
        strata, cases, folds=folds_for(share), seed=torch_seed(seed, SPLIT) % 2**32
    )
    held = fold == 0
    for label in np.unique(strata):
        if (strata[held] == label).sum() == (strata == label).sum():
            # Else the whole class would be held out: it is learned, and not judged.
            held &= ~np.isin(cases, cases[strata == label])
    return np.flatnonzero(held)


def labelled_rows(labels: Ints, rows: Ints, share: float, seed: int) -> Ints:
    """Return the rows whose labels may be used: a share of every class, one at least.

    Probes and trainings that are given the same rows, share and seed get the same.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int, of all rows.
    rows : ndarray
        Rows to choose from.
    share : float
        Above 0, at most 1.
    seed : int
        Of the run.
    """
    if share == 1:
        return rows
    random = stream(seed, round(share * 1e6))
    chosen = []
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        count = max(1, round(share * len(own)))
        chosen.append(random.choice(own, count, replace=False))
    return np.sort(np.concatenate(chosen))


def reaching_across(places: PairPlaces, held_out: Ints) -> Ints:
    """Return the rows that are not held out, and whose tiles show held-out tissue.

    Around spots, which lie anywhere, tiles overlap: one in a region trained on may
    reach into a region that is held out. Sections held out whole lose none.

    Parameters
    ----------
    places : PairPlaces
        Of all pairs.
    held_out : ndarray
        Rows that are held out.
    """
    from scipy.spatial import cKDTree

    others = np.setdiff1d(np.arange(len(places.centres_um)), held_out)
    across = np.zeros(len(others), bool)
    for section in np.unique(places.sections[held_out]):
        theirs = held_out[places.sections[held_out] == section]
        mine = places.sections[others] == section
        if mine.any():
            # Squares of one size overlap where their centres are nearer than an edge.
            distance, _ = cKDTree(places.centres_um[theirs]).query(
                places.centres_um[others[mine]], p=np.inf
            )
            across[mine] = distance < places.edge_um * (1 - _TOUCHING)
    rows: Ints = others[across]
    return rows
