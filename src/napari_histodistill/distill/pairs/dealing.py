"""Controls that deal partners anew: each is still used once, and none stays at home.

How far a partner is dealt decides what a student can still learn from it: another case
leaves nothing, the same section leaves its stain and its composition, and a
neighbourhood leaves the place too, so that the tile's own measurement is all that is
missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import TileFolderError

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.intp]

_ROUNDING = 1e-6
_STAYS = 1e6
"""Cost of a partner that stays with its tile; that of one that moves is below 2."""


def dealt_to_other_cases(
    cases: npt.NDArray[np.generic], random: np.random.Generator
) -> Ints:
    """Return the row whose partner each row gets: of another case, each row once.

    Parameters
    ----------
    cases : ndarray
        ``(n,)``, the case of each row.
    random : Generator
        Equal states deal equally.

    Raises
    ------
    TileFolderError
        If one case holds more than half of the rows.
    """
    _, member = np.unique(cases, return_inverse=True)
    counts = np.bincount(member)
    total = len(member)
    if 2 * counts.max() > total:
        msg = (
            "partner = 'shuffled': one case holds more than half of the pairs, so "
            "partners cannot be dealt to other cases: add cases."
        )
        raise TileFolderError(msg)
    # Rows case by case, cases in random order: a shift by the largest case's size
    # always leaves the case. Shuffled within cases, it is as random as that allows.
    key = random.permutation(len(counts))[member]
    order = np.lexsort((random.random(total), key))
    giver = np.roll(order, -int(counts.max()))
    drawn = np.empty(total, np.intp)
    drawn[order] = giver
    return drawn


def dealt_within_cases(
    cases: npt.NDArray[np.generic], random: np.random.Generator
) -> Ints:
    """Return the row whose partner each row gets: another one of its case, each once.

    The only row of a case keeps its own.

    Parameters
    ----------
    cases, random
        As for :func:`dealt_to_other_cases`.

    Raises
    ------
    TileFolderError
        If no case has two rows.
    """
    drawn = np.arange(len(cases))
    for case in np.unique(cases):
        rows = random.permutation(np.flatnonzero(cases == case))
        drawn[rows] = np.roll(rows, 1)  # a circle: nobody gets their own back
    if (drawn == np.arange(len(cases))).all():
        msg = (
            "partner = 'shuffled_within_case': every case has a single pair, so "
            "partners cannot be dealt within cases: use 'shuffled'."
        )
        raise TileFolderError(msg)
    return drawn


def dealt_nearby(
    cases: npt.NDArray[np.generic],
    positions: npt.NDArray[np.float64] | None,
    nearby: float,
    random: np.random.Generator,
) -> Ints:
    """Return the row whose partner each row gets: that of a neighbour, each row once.

    Parameters
    ----------
    cases : ndarray
        ``(n,)``, the section of each row; those of two are never neighbours.
    positions : ndarray or None
        ``(n, 2)``, in one unit per section.
    nearby : float
        Radius of the neighbourhood in steps: one step is the section's median distance
        from a tile to the nearest other one.
    random : Generator
        Equal states deal equally.

    Raises
    ------
    TileFolderError
        If nothing says where the tiles lie, or a tile finds nobody to deal with.
    """
    if positions is None:
        msg = (
            "partner = 'shuffled_nearby': nothing says where the tiles lie: name a "
            "pattern in data.positions."
        )
        raise TileFolderError(msg)
    drawn = np.arange(len(cases))
    for case in np.unique(cases):
        rows = np.flatnonzero(cases == case)
        drawn[rows] = rows[_exchanged(positions[rows], nearby, random)]
    alone = int((drawn == np.arange(len(cases))).sum())
    if alone:
        msg = (
            f"dense.nearby: {alone:,} of {len(cases):,} tiles find no other one within "
            f"{nearby:g} steps to deal partners with: make it larger."
        )
        raise TileFolderError(msg)
    return drawn


def _exchanged(
    positions: npt.NDArray[np.float64], nearby: float, random: np.random.Generator
) -> Ints:
    """Deal within one section so that as few as possible keep their own."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching
    from scipy.spatial import cKDTree

    count = len(positions)
    if count < 2:
        return np.arange(count)
    tree = cKDTree(positions)
    step = float(np.median(tree.query(positions, k=2)[0][:, 1]))
    pairs = tree.query_pairs(nearby * step * (1 + _ROUNDING), output_type="ndarray")
    # Sorted, so that the costs drawn for them do not depend on how the tree was built.
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    own = np.arange(count)
    takes = np.concatenate([pairs[:, 0], pairs[:, 1], own])
    gives = np.concatenate([pairs[:, 1], pairs[:, 0], own])
    costs = 1 + random.random(len(takes))
    costs[-count:] = _STAYS
    graph = coo_array((costs, (takes, gives)), shape=(count, count)).tocsr()
    taking, giving = min_weight_full_bipartite_matching(graph)
    drawn = np.empty(count, np.intp)
    drawn[taking] = giving
    return drawn
