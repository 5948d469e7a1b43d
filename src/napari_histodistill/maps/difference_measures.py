"""The computation of the measures of :mod:`~napari_histodistill.maps.difference`.

Each goes over the blocks of both stores once or several times and keeps one number for
every compared cell. That module defines what the numbers mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.students.head import Head

    _Floats = npt.NDArray[np.float32]
    Doubles = npt.NDArray[np.float64]
    Blocks = Callable[[], Iterator[tuple[slice, _Floats, _Floats]]]

ANCHORS = 1000
"""Number of places that are ranked for every cell."""

NEAREST = 0.05
"""Share of the ranked places that count as near."""

RIDGE = 0.01
"""Penalty of the regression, as a share of the total variance of A's embeddings."""

NOISE_MARGIN = 1.5
"""How many times a difference must exceed that of two seeds to be more than noise. Two
seeds show how large noise is, not how much it varies from one pair of seeds to the
next: on one slide, 4 % beside 3 % came of nothing but another pair."""

LEAST_FIGURE = 0.005
"""A difference that is shown as 0.00 is none, however little two seeds differ."""

# Fixed, so that the same two stores always give the same map.
_SEED = 20230310
# Cosines closer than this are ties: rounding must not decide between them.
_TIE = 1e-5


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """The same figure between two students that differ in nothing but their seed.

    Attributes
    ----------
    figure : float
        As :attr:`.DifferenceMap.figure` of those two.
    cells : int
        Places that they were compared at.
    strongest : float
        As :attr:`.DifferenceMap.strongest`; NaN but for ``news``.
    """

    figure: float
    cells: int
    strongest: float = math.nan

    def covers(self, figure: float) -> bool:
        """Whether a figure is no larger than two seeds may well give."""
        return figure <= max(LEAST_FIGURE, NOISE_MARGIN * self.figure)


class Classes:
    """Total variation distance of class probabilities.

    Parameters
    ----------
    count : int
        Number of compared cells.
    blocks : callable
        Starts a pass over the blocks: positions, A's embeddings, B's embeddings.
    a, b : Head
        Heads of the two students.
    order : sequence of int
        For every class of A, its index among B's classes.
    """

    passes = 1

    def __init__(
        self, count: int, blocks: Blocks, a: Head, b: Head, order: Sequence[int]
    ) -> None:
        self.found = np.zeros(count, np.float32)
        self._blocks, self._heads, self._order = blocks, (a, b), list(order)

    def run(self) -> Iterator[int]:
        """Compute, and yield the number of cells after each block."""
        a, b = self._heads
        for where, one, other in self._blocks():
            apart = a.probabilities(one) - b.probabilities(other)[:, self._order]
            self.found[where] = np.abs(apart).sum(axis=1) / 2
            yield len(one)


class Neighbours:
    """Share of the nearest places that two students do not have in common.

    Attributes
    ----------
    anchors, nearest : int
        Number of places that are ranked, and of those that count as near.
    """

    passes = 2

    def __init__(self, count: int, blocks: Blocks) -> None:
        self.found = np.zeros(count, np.float32)
        self._blocks = blocks
        self.anchors = min(count, ANCHORS)
        self.nearest = max(1, round(self.anchors * NEAREST))
        drawn = np.random.default_rng(_SEED).choice(count, self.anchors, replace=False)
        self._drawn = np.sort(drawn)

    def run(self) -> Iterator[int]:
        """Compute, and yield the number of cells after each block."""
        drawn, means = self._drawn, _Means()
        kept: tuple[list[_Floats], list[_Floats]] = [], []
        for where, one, other in self._blocks():
            means.add(one, other)
            mine = drawn[(drawn >= where.start) & (drawn < where.stop)] - where.start
            kept[0].append(one[mine])
            kept[1].append(other[mine])
            yield len(one)
        mean_a, mean_b = means.values()
        anchors_a = unit_rows(np.concatenate(kept[0]), mean_a).T
        anchors_b = unit_rows(np.concatenate(kept[1]), mean_b).T
        for where, one, other in self._blocks():
            cells = np.arange(where.start, where.stop)
            itself = drawn[np.newaxis, :] == cells[:, np.newaxis]
            a = _near(unit_rows(one, mean_a) @ anchors_a, itself, self.nearest)
            b = _near(unit_rows(other, mean_b) @ anchors_b, itself, self.nearest)
            most = np.maximum(a.sum(axis=1), b.sum(axis=1))
            self.found[where] = 1 - (a & b).sum(axis=1) / most
            yield len(one)


class News:
    """Strongest direction in what A does not predict of B.

    Attributes
    ----------
    unexplained, strongest : float
        Share of B's variance that is left over, and the direction's share of that.
    """

    passes = 3

    def __init__(self, count: int, blocks: Blocks) -> None:
        self.found = np.zeros(count, np.float32)
        self._blocks = blocks
        self.unexplained = self.strongest = 0.0

    def run(self) -> Iterator[int]:
        """Compute, and yield the number of cells after each block."""
        means = _Means()
        for _, one, other in self._blocks():
            means.add(one, other)
            yield len(one)
        mean_a, mean_b = means.values()
        moments = _Moments(len(mean_a), len(mean_b))
        for _, one, other in self._blocks():
            moments.add(unit_rows(one, mean_a), unit_rows(other, mean_b))
            yield len(one)
        weights, direction = moments.solve()
        self.unexplained, self.strongest = moments.unexplained, moments.strongest
        for where, one, other in self._blocks():
            left = unit_rows(other, mean_b) - unit_rows(one, mean_a) @ weights
            self.found[where] = left @ direction
            yield len(one)
        self._standardise()

    def _standardise(self) -> None:
        found = self.found.astype(np.float64) - self.found.mean(dtype=np.float64)
        spread = float(found.std())
        # A principal direction has no sign of its own: the rarer end becomes positive.
        turned = -1.0 if float((found**3).sum()) < 0 else 1.0
        self.found[:] = found * (turned / spread if spread > 1e-6 else 0.0)


class _Means:
    """Mean embeddings of both students, added up block by block."""

    def __init__(self) -> None:
        self._sums: list[Doubles] = []
        self._count = 0

    def add(self, one: _Floats, other: _Floats) -> None:
        """Add one block of each student."""
        sums = [half.sum(axis=0, dtype=np.float64) for half in (one, other)]
        self._sums = [
            a + b for a, b in zip(self._sums or (0.0, 0.0), sums, strict=True)
        ]
        self._count += len(one)

    def values(self) -> tuple[_Floats, _Floats]:
        """Return the two means."""
        one, other = ((s / self._count).astype(np.float32) for s in self._sums)
        return one, other


class _Moments:
    """Sums and products of two sets of rows, all that ridge regression needs."""

    def __init__(self, a: int, b: int) -> None:
        self._count = 0
        self._sums = np.zeros(a), np.zeros(b)
        self._aa, self._ab, self._bb = (
            np.zeros((a, a)), np.zeros((a, b)), np.zeros((b, b)),
        )  # fmt: skip
        self.unexplained = self.strongest = 0.0

    def add(self, one: _Floats, other: _Floats) -> None:
        """Add one block of each student."""
        self._count += len(one)
        for total, rows in zip(self._sums, (one, other), strict=True):
            total += rows.sum(axis=0, dtype=np.float64)
        self._aa += one.T @ one
        self._ab += one.T @ other
        self._bb += other.T @ other

    def solve(self) -> tuple[_Floats, _Floats]:
        """Return the regression's weights ``(a, b)`` and the direction ``(b,)``."""
        n, (sa, sb) = self._count, self._sums
        aa = self._aa / n - np.outer(sa, sa) / n**2
        ab = self._ab / n - np.outer(sa, sb) / n**2
        bb = self._bb / n - np.outer(sb, sb) / n**2
        ridge = RIDGE * max(float(np.trace(aa)), 1e-12)
        weights = np.linalg.solve(aa + ridge * np.eye(len(aa)), ab)
        left = bb - ab.T @ weights - weights.T @ ab + weights.T @ aa @ weights
        values, vectors = np.linalg.eigh((left + left.T) / 2)
        rest = max(float(np.trace(left)), 0.0)
        self.unexplained = rest / max(float(np.trace(bb)), 1e-12)
        self.strongest = float(values[-1]) / max(rest, 1e-12)
        return weights.astype(np.float32), vectors[:, -1].astype(np.float32)


def unit_rows(rows: _Floats, mean: _Floats) -> _Floats:
    """Return centred rows of unit length; zero rows stay zero."""
    centred = rows - mean
    lengths = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    unit: _Floats = centred / np.maximum(lengths, 1e-12)[:, np.newaxis]
    return unit


def _near(
    similarity: _Floats, itself: npt.NDArray[np.bool_], nearest: int
) -> npt.NDArray[np.bool_]:
    """Return which anchors are among the nearest of each cell, ties included."""
    similarity[itself] = -np.inf
    last = similarity.shape[1] - nearest
    limit = np.partition(similarity, last, axis=1)[:, last, np.newaxis]
    near: npt.NDArray[np.bool_] = (similarity >= limit - _TIE) & ~itself
    return near
