"""The best regions of a map: where to look first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.grid import TileGrid

SPREAD_TILES = 4.0
"""Two results of one connected region lie at least this many tiles apart."""


class Scored(Protocol):
    """A number for every cell: a similarity map, or a difference map."""

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """``(rows, columns)``, NaN where there is none."""

    @property
    def grid(self) -> TileGrid:
        """Grid of the cells."""

    @property
    def at(self) -> tuple[tuple[float, float], ...]:
        """Places that were clicked, level-0 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedRegion:
    """One place worth looking at.

    Attributes
    ----------
    rank : int
        1 is the most similar (or different).
    score : float
        Value of its best cell.
    y, x : float
        Centre of its best cell, level-0 pixels, on the slide.
    region : Region
        Bounding box, level-0 pixels, on the slide.
    cells : int
        Number of cells.
    area_mm2 : float
        Area on the slide.
    is_query : bool
        Whether one of the positive clicks lies in it.
    """

    rank: int
    score: float
    y: float
    x: float
    region: Region
    cells: int
    area_mm2: float
    is_query: bool


def suggest_threshold(similarity: Scored) -> float:
    """Return a threshold that shows the clearly similar tissue.

    Otsu's method splits the cells into similar and not; the threshold is half way
    between the means of both (between well separated groups, Otsu's own threshold may
    lie anywhere in the gap). It is raised to the 90th percentile where that is higher,
    but never above the 99.5th: at least the very best cells stay.
    """
    return threshold_of(_finite(similarity))


def threshold_of(values: npt.NDArray[np.float32]) -> float:
    """Return the threshold of :func:`suggest_threshold` for finite values."""
    from skimage.filters import threshold_otsu

    if values.min() == values.max():
        return float(values[0])
    similar = values > threshold_otsu(values)
    middle = (values[similar].mean() + values[~similar].mean()) / 2
    high, top = np.quantile(values, (0.9, 0.995))
    return float(min(max(middle, high), top))


def rank_regions(
    similarity: Scored, *, threshold: float | None = None, limit: int = 20
) -> tuple[RankedRegion, ...]:
    """Return the regions at or above a threshold, best first.

    Cells at or above the threshold that touch (also by a corner) form a region. A large
    region is split between its best cells, kept :data:`SPREAD_TILES` tiles apart (non-
    maximum suppression), so that the list leads to different places.

    Parameters
    ----------
    similarity : SimilarityMap or DifferenceMap
        From a query, or of two students.
    threshold : float or None
        From which value on; :func:`suggest_threshold`'s by default.
    limit : int
        The most regions to return.

    Returns
    -------
    tuple of RankedRegion
        Places and boxes in level-0 pixels, areas in mm².

    Raises
    ------
    InputError
        If the threshold is not a number, the limit is not positive, or a threshold
        is to be found on a map without a value.

    Examples
    --------
    >>> from napari_histodistill import embed_slide, load_student, open_slide, plan_grid
    >>> from napari_histodistill import rank_regions, similarity_map
    >>> from napari_histodistill.samples import ihc_sample
    >>> student = load_student("colon-he", device="cpu:torch")
    >>> with open_slide(ihc_sample()) as slide:
    ...     grid = plan_grid(slide, student, stride_um=112)
    ...     *_, last = embed_slide(slide, student, "fine.zarr", grid=grid)
    >>> best, *others = rank_regions(similarity_map("fine.zarr", at=[(100, 100)]))
    >>> best.rank, best.is_query, round(best.score, 3)
    (1, True, 1.0)
    """
    from skimage.measure import label

    if threshold is None:
        threshold = suggest_threshold(similarity)
    if not np.isfinite(threshold) or limit < 1:
        msg = f"Ranking needs a number and a positive limit, not {threshold}, {limit}."
        raise InputError(msg)
    values, grid = similarity.values, similarity.grid
    above = np.nan_to_num(values, nan=-np.inf) >= threshold
    components = label(above, connectivity=2)
    rows, columns = np.nonzero(above)
    peaks = _peaks(values, components, grid, rows, columns, limit)
    owner = _owners(components, peaks, rows, columns)
    clicked = {grid.cell_at(y, x) for y, x in similarity.at}
    areas = grid.areas_mm2()
    found = []
    for k, (row, column) in enumerate(peaks):
        mine = rows[owner == k], columns[owner == k]
        y, x = _center(grid, row, column)
        found.append(
            RankedRegion(
                rank=k + 1,
                score=float(values[row, column]),
                y=y,
                x=x,
                region=_bounds(grid, *mine),
                cells=len(mine[0]),
                area_mm2=float(areas[mine].sum()),
                is_query=not clicked.isdisjoint(
                    zip(*(m.tolist() for m in mine), strict=True)
                ),
            )
        )
    return tuple(found)


def nearest_places(
    similarity: Scored, *, count: int = 6, apart_tiles: float = 1.0
) -> tuple[RankedRegion, ...]:
    """Return the most similar places themselves, best first, as single cells.

    They lie at least ``apart_tiles`` tiles from the clicked places and from each other,
    so that each of them shows other tissue.

    Parameters
    ----------
    similarity : SimilarityMap
        From a query.
    count : int
        The most regions to return.
    apart_tiles : float
        Least distance, in tile widths.
    """
    values, grid = similarity.values, similarity.grid
    rows, columns = np.nonzero(np.isfinite(values))
    order = np.argsort(-values[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    reach = apart_tiles * grid.tile_px / grid.stride_px
    free = np.ones(len(rows), bool)
    for row, column in (grid.cell_at(y, x) for y, x in similarity.at):
        free &= (rows - row) ** 2 + (columns - column) ** 2 >= reach**2
    areas = grid.areas_mm2()
    found: list[RankedRegion] = []
    while len(found) < count and free.any():
        k = int(np.argmax(free))
        row, column = int(rows[k]), int(columns[k])
        y, x = _center(grid, row, column)
        found.append(
            RankedRegion(
                rank=len(found) + 1,
                score=float(values[row, column]),
                y=y,
                x=x,
                region=_on_slide(grid, grid.cell_region(row, column)),
                cells=1,
                area_mm2=float(areas[row, column]),
                is_query=False,
            )
        )
        free &= (rows - row) ** 2 + (columns - column) ** 2 >= max(reach**2, 1)
    return tuple(found)


def frame_around(grid: TileGrid, place: RankedRegion) -> Region:
    """Return the square (level-0 px) to show of a ranked place: one tile, kept inside.

    A tile is what the student compared, so it is what a person should judge.
    """
    fy, fx = grid.px_per_student_px
    height = min(grid.tile_px * fy, grid.slide_height)
    width = min(grid.tile_px * fx, grid.slide_width)
    y = min(max(0.0, place.y - height / 2), grid.slide_height - height)
    x = min(max(0.0, place.x - width / 2), grid.slide_width - width)
    return Region(y=y, x=x, height=height, width=width)


def _peaks(
    values: npt.NDArray[np.float32],
    components: npt.NDArray[np.integer],
    grid: TileGrid,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    limit: int,
) -> list[tuple[int, int]]:
    """Return the best cells, best first, none close to a better one of its region."""
    spread = SPREAD_TILES * grid.tile_px / grid.stride_px
    # Ties in row order: the list must not change from run to run.
    order = np.argsort(-values[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    of = components[rows, columns]
    free = np.ones(len(rows), bool)
    peaks: list[tuple[int, int]] = []
    while len(peaks) < limit and free.any():
        k = int(np.argmax(free))
        peaks.append((int(rows[k]), int(columns[k])))
        near = (rows - rows[k]) ** 2 + (columns - columns[k]) ** 2 < spread**2
        free &= ~(near & (of == of[k]))
        free[k] = False
    return peaks


def _owners(
    components: npt.NDArray[np.integer],
    peaks: list[tuple[int, int]],
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
) -> npt.NDArray[np.intp]:
    """Return for each cell the nearest peak of its own region, or −1."""
    of = components[rows, columns]
    best = np.full(len(rows), np.inf)
    owner = np.full(len(rows), -1)
    for k, (row, column) in enumerate(peaks):
        away = (rows - row) ** 2 + (columns - column) ** 2
        closer = (of == components[row, column]) & (away < best)
        best[closer], owner[closer] = away[closer], k
    return owner


def _center(grid: TileGrid, row: int, column: int) -> tuple[float, float]:
    cell = _on_slide(grid, grid.cell_region(row, column))
    return cell.center


def _bounds(
    grid: TileGrid, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> Region:
    height, width = grid.cell_size
    r0, c0 = int(rows.min()), int(columns.min())
    box = Region(
        y=r0 * height,
        x=c0 * width,
        height=(int(rows.max()) + 1 - r0) * height,
        width=(int(columns.max()) + 1 - c0) * width,
    )
    return _on_slide(grid, box)


def _on_slide(grid: TileGrid, region: Region) -> Region:
    slide = Region(y=0, x=0, height=grid.slide_height, width=grid.slide_width)
    return region.intersection(slide) or region


def _finite(similarity: Scored) -> npt.NDArray[np.float32]:
    values = similarity.values[np.isfinite(similarity.values)]
    if not values.size:
        msg = "The map is empty: no square has a value."
        raise InputError(msg)
    return values
