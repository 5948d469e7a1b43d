"""A student's classes from a Labels layer: sampled by region, fitted, and scored.

A class is scored on regions that its probe never saw: neighbouring cells look alike,
and a split by cell would flatter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.pairs.plan import REGIONS
from napari_histodistill.distill.scoring.scores import accuracies, intervals_by_case
from napari_histodistill.errors import InputError
from napari_histodistill.slides.pyramid.grid import TileGrid
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.students.folds import folds_around_every_class
from napari_histodistill.students.probe import fit_probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.scoring.scores import Interval
    from napari_histodistill.slides import Slide
    from napari_histodistill.students.head import Head
    from napari_histodistill.students.spec import ClassSpec
    from napari_histodistill.students.student import Student

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.intp]

FEWEST_CELLS = 20
FEWEST_REGIONS = 3
"""Fewest regions of a class: with two, a fold would be judged by what one taught."""

FOLDS = 5
MOST_CELLS = 2000
PURE = 0.6
"""Share of a tile that must be of one class."""

_LATTICE = 8
_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class LabelledArea:
    """A Labels layer in the form that this module needs.

    Attributes
    ----------
    name : str
        Name of the layer.
    values : ndarray
        ``(h, w)`` integers; 0 is background.
    matrix : ndarray
        ``(3, 3)``: (y, x, 1) µm in the slide's world to pixels of ``values``, by their
        centres.
    classes : dict of int to ClassSpec
        The class of each value; several values may share one.
    """

    name: str
    values: npt.NDArray[np.integer]
    matrix: npt.NDArray[np.float64]
    classes: dict[int, ClassSpec]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCells:
    """Cells of a slide that are of one class.

    Attributes
    ----------
    grid : TileGrid
        Grid of the cells.
    cells : ndarray
        ``(n, 2)`` row and column.
    labels : ndarray
        ``(n,)``, indices into ``classes``.
    regions : ndarray
        ``(n,)`` int, the region of each cell, which stays on one side of a split.
    classes : tuple of ClassSpec
        Classes with enough cells.
    left_out : tuple of str
        Names of classes with too few.
    """

    grid: TileGrid
    cells: Ints
    labels: Ints
    regions: Ints
    classes: tuple[ClassSpec, ...]
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True, slots=True, eq=False)
class LabelProbe:
    """A fitted head, and its score on held-out regions.

    Attributes
    ----------
    head : Head
        Fitted to all cells.
    balanced : float
        Balanced accuracy: recall, averaged over classes, out of fold.
    interval : Interval
        95 %, over regions.
    cells, regions, folds : int
        Numbers of each.
    """

    head: Head
    balanced: float
    interval: Interval
    cells: int
    regions: int
    folds: int


def find_cells(
    slide: Slide, area: LabelledArea, *, mpp: float, tile_px: int, seed: int = 0
) -> LabelledCells:
    """Find the cells of a slide that a layer labels, and deal them into regions.

    Parameters
    ----------
    slide : Slide
        Slide with µm per pixel.
    area : LabelledArea
        The layer.
    mpp, tile_px : float, int
        Pixel size and tile edge of the student. Cells are as large as its tiles, so
        that no tile reaches into another region.
    seed : int
        Seed of the draw where there are more than :data:`MOST_CELLS`.

    Raises
    ------
    InputError
        In a sentence: no overlap, or too few cells or regions of all but one class.
    """
    slide_mpp = slide.require_mpp()
    grid = TileGrid.over(
        slide.shape, slide_mpp, mpp=mpp, tile_px=tile_px, stride_px=tile_px
    )
    names = {spec.name: spec for spec in area.classes.values()}
    specs = tuple(names.values())
    cells, labels = _labelled(grid, area, specs)
    if not len(cells):
        msg = (
            f"{area.name} labels no tile of {tile_px * mpp:.0f} µm of {slide.name} "
            "with one class: it must lie on the slide, and have larger areas."
        )
        raise InputError(msg)
    rows, columns = (cells - cells.min(axis=0)).T
    # Regions as large as those of pairs: most cells have no neighbour in another one.
    side = math.ceil((1 + max(int(rows.max()), int(columns.max()))) / REGIONS)
    regions = rows // side * (1 + int(columns.max()) // side) + columns // side
    kept = [k for k in range(len(specs)) if _is_enough(labels, regions, k)]
    if len(kept) < 2:
        raise InputError(_too_few(area, specs, labels, regions))
    chosen = _drawn(np.flatnonzero(np.isin(labels, kept)), labels, seed)
    return LabelledCells(
        grid,
        cells[chosen],
        np.searchsorted(kept, labels[chosen]),
        regions[chosen],
        tuple(specs[k] for k in kept),
        tuple(s.name for k, s in enumerate(specs) if k not in kept),
    )


def embed_cells(
    student: Student, slide: Slide, found: LabelledCells
) -> Iterator[Floats]:
    """Yield the embeddings of labelled cells, a batch at a time, in their order."""
    px = student.spec.tile_px
    for start in range(0, len(found), _BATCH):
        tiles = [
            read_resampled(
                slide, found.grid.tile_region(row, column), height=px, width=px
            )
            for row, column in found.cells[start : start + _BATCH].tolist()
        ]
        yield student.embed(np.stack(tiles))


def fit_and_score(embeddings: Floats, found: LabelledCells) -> LabelProbe:
    """Fit a probe to all cells, and score probes like it on held-out regions.

    Parameters
    ----------
    embeddings : ndarray
        ``(n, dim)`` of the cells.
    found : LabelledCells
        Labels and regions of the cells.

    Raises
    ------
    InputError
        If no split by region leaves every class on both sides.
    """
    labels, regions = found.labels, found.regions
    fewest = min(len(np.unique(regions[labels == k])) for k in np.unique(labels))
    fold = folds_around_every_class(labels, regions, folds=min(FOLDS, fewest))
    if fold is None:
        msg = (
            "the labelled classes lie together in too few regions to judge by: label "
            "each of them in more places."
        )
        raise InputError(msg)
    predicted = np.zeros(len(labels), np.intp)
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        fit = fit_probe(embeddings[train], labels[train], groups=regions[train])
        predicted[test] = fit.head.probabilities(embeddings[test]).argmax(axis=1)
    _, balanced = accuracies(labels, predicted)
    _, interval = intervals_by_case(labels, predicted, regions)
    head = fit_probe(embeddings, labels, groups=regions).head
    counted = len(np.unique(regions))
    folds = len(np.unique(fold))
    return LabelProbe(head, balanced, interval, len(labels), counted, folds)


def _labelled(
    grid: TileGrid, area: LabelledArea, specs: Sequence[ClassSpec]
) -> tuple[Ints, Ints]:
    """Return cells ``(n, 2)`` that are of one class, and which."""
    y, x = grid.centers()
    mpp, edge = grid.slide_mpp, grid.tile_um
    world = np.stack(
        np.meshgrid((y - 0.5) * mpp.y, (x - 0.5) * mpp.x, indexing="ij"), axis=-1
    )
    offsets = (np.arange(_LATTICE) + 0.5) / _LATTICE * edge - edge / 2
    spread = np.stack(np.meshgrid(offsets, offsets, indexing="ij"), axis=-1)
    places = world[:, :, None] + spread.reshape(1, 1, -1, 2)
    pixels = np.rint(places @ area.matrix[:2, :2].T + area.matrix[:2, 2]).astype(int)
    shape = np.array(area.values.shape)
    inside = ((pixels >= 0) & (pixels < shape)).all(axis=-1)
    at = np.clip(pixels, 0, shape - 1)
    values = np.where(inside, area.values[at[..., 0], at[..., 1]], 0)
    shares = np.stack(
        [
            np.isin(values, [v for v, s in area.classes.items() if s.name == spec.name])
            .mean(axis=-1)
            for spec in specs
        ],
        axis=-1,
    )  # fmt: skip
    best = shares.argmax(axis=-1)
    cells = np.argwhere(shares.max(axis=-1) >= PURE)
    return cells, best[cells[:, 0], cells[:, 1]]


def _is_enough(labels: Ints, regions: Ints, label: int) -> bool:
    mine = labels == label
    enough = len(np.unique(regions[mine])) >= FEWEST_REGIONS
    return bool(mine.sum() >= FEWEST_CELLS and enough)


def _too_few(
    area: LabelledArea, specs: Sequence[ClassSpec], labels: Ints, regions: Ints
) -> str:
    counted = "; ".join(
        f"{spec.name} {int((labels == k).sum())} in "
        f"{len(np.unique(regions[labels == k]))} regions"
        for k, spec in enumerate(specs[:8])
    )
    return (
        f"{area.name} labels too little to fit and to test classes: at least two are "
        f"needed with {FEWEST_CELLS} tiles in {FEWEST_REGIONS} regions each, and there "
        f"are: {counted}."
    )


def _drawn(rows: Ints, labels: Ints, seed: int) -> Ints:
    """Return at most :data:`MOST_CELLS` rows, rare classes whole as far as they go."""
    if len(rows) <= MOST_CELLS:
        return rows
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    # Every class's first cell comes before any class's second, and so on.
    turn = np.zeros(len(order), np.intp)
    for label in np.unique(labels[order]):
        mine = labels[order] == label
        turn[mine] = np.arange(mine.sum())
    return np.sort(order[np.argsort(turn, kind="stable")[:MOST_CELLS]])
