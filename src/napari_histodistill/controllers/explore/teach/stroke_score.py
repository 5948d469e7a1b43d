"""How right a taught probe is: tried on regions of strokes that it was not fitted to.

Squares of one stroke look alike, and the tiles of neighbouring squares share pixels, so
a square is no witness for its neighbour. What is held out is a whole *region*: squares
of one class whose tiles touch or overlap, chained. Regions that lie farther apart may
still be alike, as all of one slide is: the score says nothing of another slide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.students.folds import folds_around_every_class
from napari_histodistill.students.probe import fit_temperature, held_out_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_histodistill.slides import TileGrid
    from napari_histodistill.students.spec import ClassSpec

    Ints = npt.NDArray[np.intp]

ENOUGH = 3
"""Regions of each class below which no score is given."""

MOST_FOLDS = 10
"""Up to here, every region is held out alone."""

_Z = 1.96


@dataclass(frozen=True, slots=True)
class StrokeRegion:
    """Strokes of one class that lie together, and what they look like held out.

    Attributes
    ----------
    painted, looks_like : str
        The class painted, and the one that most of its squares were given when the
        region was held out.
    cells : int
        Its squares.
    share : float
        Share of the squares that were given :attr:`looks_like`.
    right : float
        Share that were given the class painted.
    y, x : float
        Centre of one of its squares, level-0 pixels.
    """

    painted: str
    looks_like: str
    cells: int
    share: float
    right: float
    y: float
    x: float

    @property
    def contradicts(self) -> bool:
        """Whether most of it looks like another class by all other strokes."""
        return self.looks_like != self.painted and self.share > 0.5

    def in_words(self) -> str:
        """Return what it is and what it looks like, for a list."""
        return f"{self.painted} looks like {self.looks_like}"


@dataclass(frozen=True, slots=True)
class StrokeScore:
    """A probe's score on held-out regions of strokes, with its interval.

    Attributes
    ----------
    counts : tuple of (str, int)
        Regions of each class.
    share, low, high : float or None
        Balanced accuracy and its interval of 95 %; None where a class has fewer than
        :data:`ENOUGH` regions.
    regions : tuple of StrokeRegion
        Those that were held out; none where there are too few.
    temperature : float
        Under which the held-out labels are most likely; 1 where none were held out.
    """

    counts: tuple[tuple[str, int], ...]
    share: float | None = None
    low: float | None = None
    high: float | None = None
    regions: tuple[StrokeRegion, ...] = ()
    temperature: float = 1.0

    @property
    def contradictions(self) -> tuple[StrokeRegion, ...]:
        """Regions that look like another class, the largest first."""
        odd = [region for region in self.regions if region.contradicts]
        return tuple(sorted(odd, key=lambda region: -region.cells))

    def in_words(self) -> str:
        """Return the score with its interval, or that there are too few strokes."""
        if self.share is None or self.low is None or self.high is None:
            return f"too few strokes to say ({self._missing()})"
        # To five per cent, outwards: finer steps would say more than is known.
        low, high = math.floor(self.low * 20) * 5, math.ceil(self.high * 20) * 5
        about = round(self.share * 20) * 5
        return f"about {about} % right on strokes held out ({low} to {high} %)"

    def details(self) -> str:
        """Return how it was measured, for a tooltip or a card."""
        places = ", ".join(f"{name} {count}" for name, count in self.counts)
        if self.share is None:
            return (
                f"Separate places painted: {places}. A score needs {ENOUGH} of each "
                "class, so far apart that their tiles do not touch."
            )
        return (
            f"Separate places painted: {places}. Each was left out of the fit in turn "
            "and compared with what was painted there; classes count alike. The range "
            "holds 95 % of what so few places would show by chance, each counted once "
            "however large. It is of this slide only."
        )

    def _missing(self) -> str:
        needs = [(name, ENOUGH - n) for name, n in self.counts if n < ENOUGH]
        return "paint " + " and ".join(
            f"{name} in {more} more separate place{'s' * (more > 1)}"
            for name, more in needs
        )


def regions_of(cells: Ints, labels: Ints, grid: TileGrid) -> Ints:
    """Return which region each painted cell belongs to.

    Parameters
    ----------
    cells, labels : ndarray of int
        ``(n,)``: flat index into the grid, and class.
    grid : TileGrid
        Says how far tiles reach.

    Returns
    -------
    ndarray of int
        ``(n,)``, from 0 without gaps. Cells of one class belong together if their
        tiles touch or overlap, or are chained by such cells.
    """
    from scipy.ndimage import maximum_filter
    from skimage.measure import label

    found = np.zeros(len(cells), np.intp)
    reach = max(1, math.ceil(grid.tile_px / grid.stride_px))
    row, column = np.divmod(cells, grid.shape[1])
    for kind in np.unique(labels):
        mine = labels == kind
        y, x = row[mine] - row[mine].min(), column[mine] - column[mine].min()
        there = np.zeros((y.max() + 1, x.max() + 1), np.uint8)
        there[y, x] = 1
        # Windows of ``reach`` cells touch if, and only if, their cells are that near.
        spread = maximum_filter(np.pad(there, reach), size=reach)
        pieces = label(spread, connectivity=2)
        found[mine] = pieces[y + reach, x + reach] + found.max()
    return np.unique(found, return_inverse=True)[1].reshape(-1)


def score_strokes(
    embeddings: npt.NDArray[np.floating],
    cells: Ints,
    labels: Ints,
    grid: TileGrid,
    classes: tuple[ClassSpec, ...],
    *,
    between: Callable[[], object] = lambda: None,
) -> StrokeScore:
    """Hold out regions of strokes in turn and compare.

    The share is the mean over classes of the mean over a class's regions of the share
    of squares that were right. Its interval is Wilson's (1927, *J. Am. Stat. Assoc.*
    22:209) with an effective count in place of the squares: every region counts as one
    draw, however large, which is Kish's design effect (1965, *Survey Sampling*) for
    squares of a region that are all alike; of ``k`` classes with ``n_i`` regions, the
    mean over classes is worth ``k² / Σ 1/n_i`` draws. A bootstrap over so few regions
    would call a score certain where all of them were right.

    Parameters
    ----------
    embeddings : ndarray
        ``(n, dim)`` of the painted cells.
    cells, labels : ndarray of int
        ``(n,)``: flat index into the grid, and class, ``0 … k - 1``.
    grid : TileGrid
        Grid of the cells.
    classes : tuple of ClassSpec
        The ``k`` classes.
    between : callable
        Called before every fit; it may raise to end the work.
    """
    region = regions_of(cells, labels, grid)
    kind = np.array([labels[region == r][0] for r in range(region.max() + 1)])
    counts = np.bincount(kind, minlength=len(classes))
    named = tuple((c.name, int(n)) for c, n in zip(classes, counts, strict=True))
    if counts.min() < 2:
        return StrokeScore(named)
    fold: Ints | None = region
    if len(kind) > MOST_FOLDS:
        fold = folds_around_every_class(labels, region, folds=MOST_FOLDS)
    if fold is None:
        return StrokeScore(named)
    logits = held_out_logits(embeddings, labels, fold, between=between)
    temperature = fit_temperature(logits, labels)
    if counts.min() < ENOUGH:
        return StrokeScore(named, temperature=temperature)
    found = tuple(
        _region(
            cells[region == r], logits[region == r].argmax(axis=1), k, grid, classes
        )
        for r, k in enumerate(kind.tolist())
    )
    right = np.array([r.right for r in found])
    share = float(np.mean([right[kind == k].mean() for k in range(len(classes))]))
    low, high = wilson(share, len(classes) ** 2 / float((1 / counts).sum()))
    return StrokeScore(named, share, low, high, found, temperature)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return Wilson's interval of 95 % for a share seen in ``count`` draws.

    Examples
    --------
    >>> [round(bound, 3) for bound in wilson(0.9, 10)]
    [0.596, 0.982]
    """
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    spread = math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    half = _Z * spread / (1 + _Z**2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def _region(
    cells: Ints,
    found: Ints,
    painted: int,
    grid: TileGrid,
    classes: tuple[ClassSpec, ...],
) -> StrokeRegion:
    votes = np.bincount(found, minlength=len(classes))
    most = int(votes.argmax())
    rows, columns = np.divmod(cells, grid.shape[1])
    away = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    middle = int(away.argmin())
    center = grid.cell_region(int(rows[middle]), int(columns[middle])).center
    return StrokeRegion(
        painted=classes[painted].name,
        looks_like=classes[most].name,
        cells=len(cells),
        share=float(votes[most] / len(cells)),
        right=float(votes[painted] / len(cells)),
        y=center[0],
        x=center[1],
    )
