"""The plan of a run: the grid of a slide, the wanted cells, and their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.maps.store import MAX_CELLS, CellStatus
from napari_histodistill.slides.pyramid.grid import TileGrid
from napari_histodistill.slides.tissue.tissue import TissueMask, find_tissue

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    import numpy.typing as npt

    from napari_histodistill.geometry import Region
    from napari_histodistill.slides.pyramid.slide import Slide
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

    Tissue: TypeAlias = Literal["auto"] | TissueMask | npt.NDArray[np.bool_] | None

MAX_UPSAMPLING = 4.0
"""A slide more than this many times coarser than the student's mpp is refused."""

_FINEST_STRIDE_PX = 0.1
"""A stride below a tenth of the student's pixel is a mix-up of units."""

_WIDEST_STRIDE_UM = 1e6
"""A metre, longer than any glass slide."""

# A window of 768 px and half a tile around it: half a second for a small student on two
# cores. With the halo, tokens agree with those of endless windows (cosine of centred
# embeddings: median .9996, 1st percentile .989, Lite0 on H&E); without it, .98 and .68.
_TOKEN_BLOCK_PX = 768


def plan_grid(
    slide: Slide,
    student: Student,
    *,
    stride_um: float | None = None,
    mode: EmbeddingMode = "tiles",
) -> TileGrid:
    """Lay the student's grid over a slide.

    Parameters
    ----------
    slide : Slide
        A colour slide that knows its µm per pixel.
    student : Student
        Gives the grid its tile size and µm per pixel.
    stride_um : float, optional
        Wanted distance between cells in µm, by default one tile. The nearest stride
        of whole pixels (``tiles``) or whole tokens (``tokens``) is taken.
    mode : {"tiles", "tokens"}
        Way in which embeddings will be laid on the grid.

    Returns
    -------
    TileGrid
        Its ``stride_um`` is the stride that was taken.

    Raises
    ------
    MissingMppError
        If the slide does not know its µm per pixel.
    InputError
        If the slide is not a colour image, is far coarser than the student needs, or
        the stride is not usable; or the student has no tokens.

    Examples
    --------
    >>> from napari_histodistill import load_student, open_slide, plan_grid
    >>> from napari_histodistill.samples import ihc_sample
    >>> student = load_student("colon-he", device="cpu:torch")
    >>> with open_slide(ihc_sample()) as slide:
    ...     coarse = plan_grid(slide, student)
    ...     fine = plan_grid(slide, student, stride_um=56)
    >>> coarse.shape, fine.shape, fine.stride_um
    ((2, 2), (5, 5), 56.0)
    """
    check_slide(slide, student)
    check_mode(student, mode)
    spec = student.spec
    wanted = spec.tile_um if stride_um is None else stride_um
    if not 0 < wanted < float("inf"):
        msg = f"stride: {wanted} µm is not a distance; give a positive number."
        raise InputError(msg)
    if wanted < _FINEST_STRIDE_PX * spec.mpp:
        msg = (
            f"stride: {wanted:g} µm is less than a tenth of the student's pixel "
            f"({spec.mpp:g} µm); give a larger one, in µm."
        )
        raise InputError(msg)
    if wanted > _WIDEST_STRIDE_UM:
        msg = f"stride: {wanted:g} µm is larger than any slide; give a smaller one."
        raise InputError(msg)
    step = spec.token_stride_px if mode == "tokens" else None
    grid = TileGrid.over(
        slide.shape,
        slide.require_mpp(),
        mpp=spec.mpp,
        tile_px=spec.tile_px,
        stride_px=_stride_px(wanted / spec.mpp, spec.tile_px, step or 1),
    )
    rows, columns = grid.shape
    if rows * columns > MAX_CELLS:
        msg = (
            f"stride: {grid.stride_um:g} µm would make {rows} × {columns} squares; "
            "give a larger one."
        )
        raise InputError(msg)
    if not grid.tiles_on_slide().any():
        raise _too_wide(slide, grid)
    return grid


def block_edge(grid: TileGrid, mode: EmbeddingMode, student: Student) -> int:
    """Return a block's edge in cells: about a second of work, a window of fair size."""
    if mode == "tokens":
        return max(1, _TOKEN_BLOCK_PX // grid.stride_px)
    on_cpu = student.device.name.startswith("cpu")
    # Small strides share pixels: more cells from one read.
    return 8 if on_cpu else 16


def check_mode(student: Student, mode: EmbeddingMode) -> None:
    """Refuse a mode that the student does not offer.

    Raises
    ------
    InputError
        If the student has no tokens, or the mode does not exist.
    """
    if mode not in student.modes:
        have = " or ".join(student.modes)
        msg = f"student {student.name} has no mode {mode!r}: use {have}."
        raise InputError(msg)


def check_slide(slide: Slide, student: Student) -> str:
    """Refuse a slide that this student cannot use; return a note for the user, or "".

    Raises
    ------
    MissingMppError
        If the slide does not know its µm per pixel.
    InputError
        If it is not a colour image, or far coarser than the student needs.
    """
    if slide.info.needs_rgb:
        msg = (
            f"{slide.name}: the file does not say whether its three channels are red, "
            "green and blue; if they are, say so with --rgb or in the panel."
        )
        raise InputError(msg)
    if not slide.info.is_rgb or slide.dtype != np.uint8:
        channels = ", ".join(slide.info.channels[:4])
        msg = (
            f"{slide.name}: students see only 8-bit colour images of H&E; this "
            f"slide has {slide.dtype} pixels with the channels {channels}."
        )
        raise InputError(msg)
    coarse, wanted = slide.require_mpp().mean, student.spec.mpp
    if coarse > MAX_UPSAMPLING * wanted * (1 + 1e-6):
        msg = (
            f"{slide.name}: {coarse:.4g} µm per pixel is too coarse for student "
            f"{student.name}, which needs {wanted:.4g}; use a finer scan, or check "
            "the µm/px of the slide."
        )
        raise InputError(msg)
    # Nominally equal scans differ by a few per cent, which is not worth a note.
    if coarse > 1.1 * wanted:
        return (
            f"enlarged {coarse / wanted:.2g} ×: the slide has {coarse:.4g} µm/px, the "
            f"student needs {wanted:.4g}"
        )
    return ""


def check_grid(grid: TileGrid, slide: Slide, student: Student) -> None:
    """Refuse a grid that was laid for another slide or another student.

    Raises
    ------
    InputError
        If sizes or µm per pixel differ.
    """
    spec, mpp = student.spec, slide.require_mpp()
    if (grid.slide_height, grid.slide_width) != slide.shape or (
        grid.slide_mpp.y,
        grid.slide_mpp.x,
    ) != (mpp.y, mpp.x):
        msg = f"{slide.name}: the grid was laid over another slide or another µm/px."
        raise InputError(msg)
    if (grid.tile_px, grid.mpp) != (spec.tile_px, spec.mpp):
        msg = (
            f"the grid has tiles of {grid.tile_px} px at {grid.mpp:g} µm/px, student "
            f"{spec.name} needs {spec.tile_px} px at {spec.mpp:g}."
        )
        raise InputError(msg)


def wanted_cells(
    slide: Slide, grid: TileGrid, tissue: Tissue, region: Region | None
) -> npt.NDArray[np.bool_]:
    """Return the cells to compute, ``(rows, columns)``: tissue inside the region.

    Cells whose tile lies beyond the slide are left out: see :func:`left_out`.

    Raises
    ------
    InputError
        If no cell is left, or a mask does not fit the grid.
    """
    cells = np.ones(grid.shape, bool)
    if region is not None:
        cells[:] = False
        cells[grid.cells_in(region)] = True
        if not cells.any():
            msg = f"{slide.name}: the region {region} lies outside the slide."
            raise InputError(msg)
    if tissue is not None:
        cells &= _tissue_cells(slide, grid, tissue)
    if not cells.any():
        msg = (
            f"{slide.name}: there is no tissue in the region; compute every square "
            "(--all-cells on the command line, 'Every square' in the window), or edit "
            "the tissue layer."
        )
        raise InputError(msg)
    cells &= grid.tiles_on_slide()
    if not cells.any():
        raise _too_wide(slide, grid)
    return cells


def _tissue_cells(
    slide: Slide, grid: TileGrid, tissue: str | TissueMask | npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    if isinstance(tissue, str):
        tissue = find_tissue(slide)
    if isinstance(tissue, TissueMask):
        return tissue.cells(grid)
    mask = np.asarray(tissue)
    if mask.shape != grid.shape or mask.dtype != bool:
        msg = (
            f"tissue: expected a bool array {grid.shape}, one value per cell, got "
            f"{mask.dtype} {mask.shape}; convert a mask of another size with "
            "TissueMask.from_array."
        )
        raise InputError(msg)
    return mask


def left_out(grid: TileGrid) -> str:
    """Return a note on cells of a grid that can never be computed; "" if all can."""
    count = int(np.count_nonzero(~grid.tiles_on_slide()))
    if not count:
        return ""
    return f"squares left out at the border, where a tile would miss the slide: {count}"


def _too_wide(slide: Slide, grid: TileGrid) -> InputError:
    (height, width), mpp = slide.shape, grid.slide_mpp
    return InputError(
        f"{slide.name}: a stride of {grid.stride_um:g} µm is larger than the slide or "
        f"its tissue ({height * mpp.y:.4g} × {width * mpp.x:.4g} µm in all), so no "
        "tile lies on it; give a smaller one."
    )


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """One block of cells, which is read, computed and written at once.

    Attributes
    ----------
    row0, column0 : int
        First cell.
    wanted : ndarray
        ``(h, w)`` bool: cells to compute.
    """

    row0: int
    column0: int
    wanted: npt.NDArray[np.bool_]

    @property
    def block(self) -> tuple[slice, slice]:
        """Rows and columns of the grid."""
        h, w = self.wanted.shape
        return (
            slice(self.row0, self.row0 + h),
            slice(self.column0, self.column0 + w),
        )

    @property
    def cells(self) -> int:
        """Number of cells to compute."""
        return int(self.wanted.sum())


class BlockQueue:
    """Blocks that hold cells to compute, handed out as the user looks around.

    Parameters
    ----------
    grid : TileGrid
        Grid of the cells.
    block : int
        Edge of a block in cells.
    wanted, status : ndarray
        ``(rows, columns)``: the cells that this run asks for, and every cell's status.
    retry_unreadable : bool
        Whether cells that could not be read before are tried again.
    """

    def __init__(
        self,
        grid: TileGrid,
        block: int,
        wanted: npt.NDArray[np.bool_],
        status: npt.NDArray[np.uint8],
        *,
        retry_unreadable: bool = False,
    ) -> None:
        missing = wanted & (status == CellStatus.PENDING)
        if retry_unreadable:
            missing |= wanted & (status == CellStatus.UNREADABLE)
        # A block is computed whole, finished cells included: its numbers then do not
        # depend on what was asked for first.
        needed = wanted | (status == CellStatus.DONE)
        starts = np.argwhere(_any_per_block(missing, block)) * block
        self._block, self._needed = block, needed
        self._starts = starts
        height, width = grid.cell_size
        edge = block * height, block * width
        self._edge = np.array(edge)
        self._corner = starts * np.array([height, width])
        self._waiting = np.ones(len(starts), bool)

    def __len__(self) -> int:
        return int(self._waiting.sum())

    def take(self, focus: Region | None) -> WorkUnit | None:
        """Return the next block or None: in view, centre outwards, then by rows."""
        if not self._waiting.any():
            return None
        waiting = np.flatnonzero(self._waiting)
        choice = int(waiting[0])
        if focus is not None:
            corner = self._corner[waiting]
            start = np.array([focus.y, focus.x])
            end = np.array([focus.bottom, focus.right])
            visible = ((corner < end) & (corner + self._edge > start)).all(axis=1)
            if visible.any():
                away = corner[visible] + self._edge / 2 - np.array(focus.center)
                choice = int(waiting[visible][np.argmin((away**2).sum(axis=1))])
        self._waiting[choice] = False
        row, column = self._starts[choice].tolist()
        whole = slice(row, row + self._block), slice(column, column + self._block)
        return WorkUnit(row, column, self._needed[whole])


def _any_per_block(cells: npt.NDArray[np.bool_], block: int) -> npt.NDArray[np.bool_]:
    """Return for every block of a grid whether one of its cells is set."""
    rows, columns = (range(0, n, block) for n in cells.shape)
    by_row = np.logical_or.reduceat(cells, rows, axis=0)
    found: npt.NDArray[np.bool_] = np.logical_or.reduceat(by_row, columns, axis=1)
    return found


def _stride_px(wanted_px: float, tile_px: int, step: int) -> int:
    """Return the multiple of ``step`` nearest to the wanted one, of the tile's parity.

    Tiles start on whole pixels only if tile and stride are both even or both odd.
    """
    near = max(1, round(wanted_px / step))
    fitting = [
        k * step
        for k in range(max(1, near - 2), near + 3)
        if (k * step - tile_px) % 2 == 0
    ]
    if not fitting:
        msg = (
            f"tokens every {step} px never meet tiles of {tile_px} px on whole pixels; "
            "use the mode 'tiles'."
        )
        raise InputError(msg)
    return min(fitting, key=lambda px: (abs(px - wanted_px), px))
