"""The verdict on a slide: like what the student learned from, or unlike.

A few hundred squares, spread over the tissue, are read again and shown to the stage
encoder (``students/trust.py``), which costs about ten seconds of one CPU core. The same
squares are read whether the map is made of tiles or of tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import DiskError, StoreError
from napari_histodistill.maps.block_embedding import tile_corner
from napari_histodistill.maps.block_reading import PixelWindow, read_window
from napari_histodistill.maps.store import CellStatus, EmbeddingStore
from napari_histodistill.running import CancelToken
from napari_histodistill.slides.tissue.looks import (
    Look,
    inks_of,
    look_of,
    stained_share,
)
from napari_histodistill.slides.tissue.tissue import find_tissue
from napari_histodistill.students.trust import (
    ENOUGH,
    NO_REFERENCE,
    TAUGHT,
    Oddity,
    PenLeftOut,
    SeenSquares,
    SlideTrust,
    Verdict,
    judge,
    unjudged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Slide
    from napari_histodistill.students.references.fitting import TrustReference
    from napari_histodistill.students.student import Student

    Cells = npt.NDArray[np.bool_]
    Pixels = npt.NDArray[np.uint8]
    Places = npt.NDArray[np.intp]

SQUARES = 300
"""Squares that a verdict is taken from by default."""

_METHOD = 2
"""Counted up when the same squares would be judged otherwise."""
_BATCH = 8
_HALF_STAINED, _SOME_STAINED = 0.5, 0.1
_LOOKED_AT = 4
"""Squares that are read for one that counts, at most: the others show glass."""
_LOOK_BYTES = 2**28


def judge_slide(  # noqa: PLR0913 - what a caller names, named here
    slide: Slide,
    student: Student,
    cells: Cells,
    grid: TileGrid,
    *,
    squares: int | None = SQUARES,
    seed: int = 0,
    cancel: CancelToken | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SlideTrust:
    """Judge whether a slide is like what a student learned from.

    Parameters
    ----------
    slide : Slide
        Open, with µm per pixel.
    student : Student
        Its ``trust`` is what the slide is compared with.
    cells : ndarray of bool
        ``(rows, columns)``: squares that were computed.
    grid : TileGrid
        The grid they lie on.
    squares : int or None
        Squares of tissue to judge, spread over the slide; None judges every computed
        square, at about a thirtieth of a second of one CPU core each.
    seed : int
        Which squares are taken.
    cancel : CancelToken, optional
        Checked before every eight squares.
    progress : callable, optional
        Called with the squares read and those to read at most.

    Raises
    ------
    Cancelled
        If ``cancel`` asked for it.
    SlideError
        If the slide cannot be read at all any more.
    BundleError
        If the package with the stage encoder's weights is missing.
    ComputeError
        If the encoder fails.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_histodistill import load_student, open_slide, plan_grid
    >>> from napari_histodistill.maps.trust import judge_slide
    >>> from napari_histodistill.samples import ihc_sample
    >>> student = load_student("colon-he", device="cpu:torch")
    >>> with open_slide(ihc_sample()) as slide:
    ...     grid = plan_grid(slide, student)
    ...     found = judge_slide(slide, student, np.ones(grid.shape, bool), grid)
    >>> found.verdict.value, found.oddities[0].value
    ('unlike', 'brown')
    """
    reference = student.trust
    if reference is None:
        return unjudged(why_no_reference(student))
    looker = _Looker(slide, student, reference, grid, cancel or CancelToken())
    alone = _apart(cells, grid, seed)
    # Few squares may be called like only if the slide has no others.
    around = _around(slide, cells, grid) if len(alone) < ENOUGH else _Around()
    if squares is None:
        return looker.judge_all(cells, alone, progress, around)
    return looker.judge_some(alone, squares, progress, around)


def why_no_reference(student: Student) -> str:
    """Return, in a sentence, why slides cannot be judged for a student without one."""
    training = student.spec.training
    return TAUGHT if training is not None and training.strokes else NO_REFERENCE


@dataclass(frozen=True, slots=True)
class _Pens:
    """Blocks in the colour of a pen, in so many squares that are no empty glass."""

    squares: int = 0
    inks: tuple[tuple[str, float], ...] = ()

    @classmethod
    def on(cls, tiles: Pixels, shares: npt.NDArray[np.float64]) -> _Pens:
        some = tiles[shares >= _SOME_STAINED]
        return cls(len(some), inks_of(some)) if len(some) else cls()

    @classmethod
    def together(cls, parts: Iterable[_Pens]) -> _Pens:
        """Return them pooled, squares weighing alike."""
        known = [part for part in parts if part.squares]
        total = sum(part.squares for part in known)
        sums: dict[str, float] = {}
        for part in known:
            for name, share in part.inks:
                sums[name] = sums.get(name, 0) + share * part.squares / total
        return cls(total, tuple(sums.items()))

    def look(self, tissue: Pixels | None) -> Look | None:
        """Return how the squares look: the pens of all, the rest of the tissue."""
        if tissue is not None:
            return replace(look_of(tissue), inks=self.inks)
        if not self.squares:
            return None
        return Look(brown=0.0, dark=0.0, inks=self.inks, sharpness=0.0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A batch: which of the places could be read, and what was seen there."""

    places: Places
    tiles: Pixels
    logs: npt.NDArray[np.float64]
    stained: npt.NDArray[np.bool_]
    pens: _Pens

    def of_tissue(self, most: int) -> _Seen:
        """Return what shows tissue, with so many of its tiles; pens stay those of all.

        A line of a pen on glass fills no square.
        """
        keep = self.stained
        tiles = self.tiles[keep][:most]
        return replace(
            self,
            places=self.places[keep],
            tiles=tiles,
            logs=self.logs[keep],
            stained=self.stained[keep],
        )


class _Looker:
    """Reads squares of one slide and measures them."""

    def __init__(
        self,
        slide: Slide,
        student: Student,
        reference: TrustReference,
        grid: TileGrid,
        cancel: CancelToken,
    ) -> None:
        from napari_histodistill.students.backends.stages import StageEncoder

        self._slide, self._student, self._grid = slide, student, grid
        self._reference, self._cancel = reference, cancel
        self._encoder = StageEncoder(
            reference.source, edge_px=reference.edge_px, device=student.device.name
        )
        self._for_looks = max(1, _LOOK_BYTES // (3 * grid.tile_px**2))

    def judge_some(
        self,
        alone: Places,
        squares: int,
        progress: Callable[[int, int], None] | None,
        around: _Around,
    ) -> SlideTrust:
        """Judge squares of tissue in this order until there are enough."""
        most = min(len(alone), _LOOKED_AT * squares)
        found: list[_Seen] = []
        count = read = 0
        while read < most and count < squares:
            step = min(_BATCH, squares - count, most - read)
            seen_here = self._look(alone[read : read + step])
            batch = seen_here.of_tissue(max(0, self._for_looks - count))
            read += step
            found.append(batch)
            count += len(batch.places)
            if progress:
                progress(read, most if count < squares else read)
        places = [np.empty((0, 2), np.intp), *(one.places for one in found)]
        seen = SeenSquares(
            cells=np.concatenate(places).astype(np.int32),
            logs=np.concatenate([np.empty(0), *(one.logs for one in found)]),
            speak=np.ones(count, np.bool_),
            whole=around.whole and read == len(alone),
            pen=around.pen,
        )
        tiles = [tile for one in found for tile in one.tiles]
        return self._judged(seen, tiles, _Pens.together(one.pens for one in found))

    def judge_all(
        self,
        cells: Cells,
        alone: Places,
        progress: Callable[[int, int], None] | None,
        around: _Around,
    ) -> SlideTrust:
        """Judge every square; those that hardly overlap speak for the slide."""
        order = np.argwhere(cells)
        lonely = np.zeros(cells.shape, np.bool_)
        lonely[tuple(alone.T)] = True
        few = min(SQUARES, self._for_looks)
        for_looks = {tuple(place) for place in alone[:few].tolist()}
        places = [np.empty((0, 2), np.intp)]
        logs, speak = [np.empty(0)], [np.empty(0, np.bool_)]
        tiles: list[Pixels] = []
        pens: list[_Pens] = []
        for start in range(0, len(order), _BATCH):
            seen = self._look(order[start : start + _BATCH])
            pens.append(seen.pens)
            places.append(seen.places)
            logs.append(seen.logs)
            speak.append(seen.stained & lonely[tuple(seen.places.T)])
            tiles += [
                tile
                for tile, place, counts in zip(
                    seen.tiles, seen.places.tolist(), speak[-1], strict=True
                )
                if counts and tuple(place) in for_looks
            ]
            if progress:
                progress(min(start + _BATCH, len(order)), len(order))
        every = SeenSquares(
            cells=np.concatenate(places).astype(np.int32),
            logs=np.concatenate(logs),
            speak=np.concatenate(speak),
            whole=around.whole,
            every=True,
            pen=around.pen,
        )
        return self._judged(every, tiles, _Pens.together(pens))

    def _judged(
        self, seen: SeenSquares, tiles: list[Pixels], pens: _Pens
    ) -> SlideTrust:
        order = np.lexsort((seen.cells[:, 1], seen.cells[:, 0]))
        seen = replace(
            seen,
            cells=seen.cells[order],
            logs=seen.logs[order],
            speak=seen.speak[order],
        )
        look = pens.look(np.array(tiles[: self._for_looks]) if tiles else None)
        coarse = self._grid.slide_mpp.mean / self._grid.mpp
        return judge(self._reference, seen, look, coarse=coarse)

    def _look(self, places: Places) -> _Seen:
        self._cancel.check()
        read = [(place, self._tile(*place)) for place in places.tolist()]
        kept = [(place, tile) for place, tile in read if tile is not None]
        px = self._grid.tile_px
        tiles = np.array([tile for _, tile in kept], np.uint8).reshape(-1, px, px, 3)
        found = np.array([place for place, _ in kept], np.intp).reshape(-1, 2)
        if not len(tiles):
            return _Seen(found, tiles, np.empty(0), np.empty(0, np.bool_), _Pens())
        stains = self._student.stains
        shown = tiles if stains is None else stains.apply(tiles)
        logs = self._reference.log_distances(self._encoder(shown))
        shares = stained_share(tiles)
        return _Seen(
            found, tiles, logs, shares >= _HALF_STAINED, _Pens.on(tiles, shares)
        )

    def _tile(self, row: int, column: int) -> Pixels | None:
        """Return a square's tile; None if a part of it cannot be read."""
        y, x = tile_corner(self._grid, row, column)
        px = self._grid.tile_px
        window = PixelWindow(y, x, px, px)
        raster = read_window(self._slide, self._grid, window, threading.Event())
        damaged = raster.bad is not None and bool(raster.bad.any())
        return None if damaged else raster.pixels


@dataclass(frozen=True, slots=True)
class _Around:
    """What else is on the slide: whether no other tissue is, and pen left out."""

    whole: bool = False
    pen: PenLeftOut | None = None


def _around(slide: Slide, cells: Cells, grid: TileGrid) -> _Around:
    found = find_tissue(slide)
    on_slide = grid.tiles_on_slide()
    whole = not bool((found.cells(grid) & on_slide & ~cells).any())
    if not found.pen_fraction or not (on_slide & ~cells).any():
        return _Around(whole)
    mpp = grid.slide_mpp
    mm2 = slide.shape[0] * mpp.y * slide.shape[1] * mpp.x / 1e6
    pen = found.pen_fraction
    share = pen / (pen + found.fraction)
    return _Around(whole, PenLeftOut(mm2=pen * mm2, share=share))


def _apart(cells: Cells, grid: TileGrid, seed: int) -> Places:
    """Return cells ``(k, 2)`` whose tiles hardly overlap, any first few spread out.

    One of each block of cells that is as wide as a tile, the most central; along a
    curve that fills the plane, in the order of bits reversed.
    """
    places = np.argwhere(cells)
    if not len(places):
        return places
    side = max(1, round(grid.tile_px / grid.stride_px))
    block, inside = places // side, places % side
    away = np.abs(2 * inside - (side - 1)).sum(axis=1)
    order = np.lexsort((away, block[:, 1], block[:, 0]))
    _, first = np.unique(block[order], axis=0, return_index=True)
    alone = places[order][first]
    along = alone[np.argsort(_curve(alone // side))]
    bits = max(1, int(len(along) - 1).bit_length())
    turned = _reversed(np.arange(len(along)), bits)
    shift = int(np.random.default_rng(seed).integers(2**bits))
    return along[np.argsort(turned ^ shift)]


def _curve(places: Places) -> npt.NDArray[np.int64]:
    """Return each place's position on Morton's curve."""
    found = np.zeros(len(places), np.int64)
    for k in range(31):
        found |= ((places[:, 0] >> k) & 1) << (2 * k + 1)
        found |= ((places[:, 1] >> k) & 1) << (2 * k)
    return found


def _reversed(numbers: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    found = np.zeros_like(numbers)
    for k in range(bits):
        found |= ((numbers >> k) & 1) << (bits - 1 - k)
    return found


def slide_trust(  # noqa: PLR0913 - what a caller names, named here
    path: Path | str,
    slide: Slide,
    student: Student,
    *,
    cells: Cells | None = None,
    every: bool = False,
    cancel: CancelToken | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SlideTrust:
    """Return the verdict that a store keeps, or judge the slide and keep it.

    Parameters
    ----------
    path : Path or str
        A store of this slide by this student.
    slide : Slide
        The slide, open.
    student : Student
        The student that filled the store.
    cells : ndarray of bool, optional
        ``(rows, columns)``: only these, as if the store held no others.
    every : bool
        Whether to judge every computed square, not a sample.
    cancel, progress
        As for :func:`judge_slide`.

    Raises
    ------
    HistodistillError
        As :func:`judge_slide`; :class:`StoreError` if the store is damaged.
    """
    with EmbeddingStore.open(path) as store:
        done = store.status == CellStatus.DONE
        done = done if cells is None else done & cells
        kept = kept_trust(store, student, done, every=every)
        grid = store.grid
    if kept is not None:
        return kept
    squares = None if every else SQUARES
    found = judge_slide(
        slide, student, done, grid, squares=squares, cancel=cancel, progress=progress
    )
    keep_trust(path, student, done, found)
    return found


# --- kept in the store --------------------------------------------------------------


def kept_trust(
    store: EmbeddingStore, student: Student, cells: Cells, *, every: bool = False
) -> SlideTrust | None:
    """Return the verdict that a store keeps of these cells; None if it keeps none.

    Parameters
    ----------
    store : EmbeddingStore
        Of the slide.
    student : Student
        The student that was judged for.
    cells : ndarray of bool
        ``(rows, columns)``: computed squares. With others, the verdict is another.
    every : bool
        Whether only a verdict of every square will do.
    """
    try:
        kept: Any = json.loads(store.verdict() or "{}")
        if kept.get("key") != _key(student, cells) or (every and not kept["every"]):
            return None
        judged, unlike = (_unpacked(kept[n], cells.shape) for n in ("cells", "unlike"))
        if (judged & ~cells).any():
            return None
        places = np.argwhere(judged)
        share = kept["unlike_share"]
        return SlideTrust(
            verdict=Verdict(kept["verdict"]),
            squares=len(places),
            unlike_share=None if share is None else float(share),
            oddities=tuple(map(Oddity, kept["oddities"])),
            reasons=tuple(map(str, kept["reasons"])),
            cells=places.astype(np.int32),
            unlike=unlike[judged],
            every=bool(kept["every"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # damaged: judged again


def keep_trust(
    store: Path | str, student: Student, cells: Cells, trust: SlideTrust
) -> bool:
    """Keep a verdict in a store; see :func:`kept_trust`. Return whether it was kept.

    A store that may only be read, or that another process writes to, keeps nothing: the
    verdict is found again when it is needed.
    """
    judged = np.zeros(cells.shape, np.bool_)
    unlike = np.zeros(cells.shape, np.bool_)
    judged[tuple(trust.cells.T)] = True
    unlike[tuple(trust.cells[trust.unlike].T)] = True
    content = {
        "key": _key(student, cells),
        "verdict": trust.verdict.value,
        "unlike_share": trust.unlike_share,
        "oddities": [oddity.value for oddity in trust.oddities],
        "reasons": list(trust.reasons),
        "every": trust.every,
        "cells": _packed(judged),
        "unlike": _packed(unlike),
    }
    text = json.dumps(content, ensure_ascii=False) + "\n"
    try:
        with EmbeddingStore.open(store, writable=True) as opened:
            opened.keep_verdict(text)
    except (StoreError, DiskError):
        return False
    return True


def _key(student: Student, cells: Cells) -> str:
    found = hashlib.sha256(f"{_METHOD} {student.digest} {cells.shape}".encode())
    found.update(np.packbits(cells).tobytes())
    return found.hexdigest()


def _packed(cells: Cells) -> str:
    return base64.b64encode(np.packbits(cells).tobytes()).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> Cells:
    size = int(np.prod(shape))
    bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(bits) != -(-size // 8):
        msg = "of another size"
        raise ValueError(msg)
    found: Cells = np.unpackbits(bits, count=size).astype(np.bool_).reshape(shape)
    return found
