"""A 100,000 × 100,000 px slide in a file of a few MB, written in seconds.

A scanner's slide of that size is a gigabyte. What costs time in a viewer, however, is
how many tiles the tables list, how large the levels are and how long a tile takes to
decode; not whether two tiles hold the same bytes. So a few squares of painted tissue
are compressed once and the tables of the two finest levels point to their tiles again
and again. The coarser levels are composed and compressed as they are.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

SIDE_PX = 100_000
TILE_PX = 256
MPP = 0.25
DOWNSAMPLES = (1, 4, 16, 32)
"""The levels that scanners of this vendor write."""

SQUARE_PX = 2048
"""Edge of a painted square at level 0: whole tiles at the two finest levels."""

SQUARES = 6
"""Different squares of tissue; one more is glass."""

QUALITY = 80
_SHARED = 2
"""Levels whose tables point to shared tiles."""


@dataclass(frozen=True)
class _Page:
    """One level on its way into the file."""

    side_px: int
    offsets: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint32]


def write_large_slide(path: Path, *, side_px: int = SIDE_PX, seed: int = 7) -> Path:
    """Write the slide (Aperio's layout, JPEG 4:2:0); the same seed, the same bytes."""
    squares = painted_squares(np.random.default_rng(seed))
    layout = _layout(math.ceil(side_px / SQUARE_PX), np.random.default_rng(seed + 1))
    with path.open("wb") as file:
        file.write(b"II*\0\0\0\0\0")
        pages = []
        for k, down in enumerate(DOWNSAMPLES):
            side = side_px // down
            shrunk = [_shrunk(s, SQUARE_PX // down) for s in squares]
            if k < _SHARED:
                pages.append(_shared_level(file, side, shrunk, layout))
            else:
                rows = [np.concatenate([shrunk[i] for i in r], axis=1) for r in layout]
                picture = np.concatenate(rows)[:side, :side]
                pages.append(_own_level(file, picture))
        at = 4
        for k, page in enumerate(pages):
            at = _write_page(file, page, at, _description(pages[0], page, k))
    return path


def tissue_places(*, side_px: int = SIDE_PX, seed: int = 7) -> npt.NDArray[np.float64]:
    """Return the centres ``(n, 2)``, (y, x), of the squares of tissue, level-0 px."""
    layout = _layout(math.ceil(side_px / SQUARE_PX), np.random.default_rng(seed + 1))
    return np.argwhere(layout < SQUARES) * float(SQUARE_PX) + SQUARE_PX / 2


def painted_squares(rng: np.random.Generator) -> list[Pixels]:
    """Return squares of painted tissue and, last, one of glass."""
    from napari_histodistill.samples import synthetic_slide, synthetic_truth
    from napari_histodistill.samples.tissue_painting import GLASS_RGB
    from napari_histodistill.slides import open_slide

    truth = synthetic_truth()
    glass = truth.classes.index("glass")
    found: list[Pixels] = []
    with open_slide(synthetic_slide()) as slide:
        mpp = slide.require_mpp().mean
        side = round(SQUARE_PX * MPP / mpp)
        cells = round(SQUARE_PX * MPP / truth.um_per_px)
        while len(found) < SQUARES:
            row, column = (int(rng.integers(n - cells)) for n in truth.labels.shape)
            if (
                truth.labels[row : row + cells, column : column + cells] == glass
            ).any():
                continue
            y, x = (round(n * truth.um_per_px / mpp) for n in (row, column))
            painted = Image.fromarray(slide.read_pixels(0, y, x, side, side))
            found.append(np.asarray(painted.resize((SQUARE_PX,) * 2)))
    noise = rng.normal(0, 1.5, (SQUARE_PX, SQUARE_PX, 1))
    return [*found, np.clip(GLASS_RGB + noise, 0, 255).astype(np.uint8)]


def _layout(side: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return which square lies where: some pieces of tissue on glass."""
    y, x = np.mgrid[:side, :side] / side
    tissue = np.zeros((side, side), bool)
    for top, left, height, width in (
        (0.30, 0.32, 0.20, 0.24), (0.68, 0.30, 0.16, 0.20), (0.45, 0.76, 0.30, 0.14),
    ):  # fmt: skip
        away = np.hypot((y - top) / height, (x - left) / width)
        tissue |= away + rng.normal(0, 0.06, away.shape) < 1
    # Like lies beside like, as in tissue.
    noise = gaussian_filter(rng.normal(size=tissue.shape), 1.2)
    kind = noise.argsort(axis=None).argsort().reshape(noise.shape) * SQUARES
    return np.where(tissue, kind // noise.size, SQUARES)


def _shrunk(square: Pixels, side: int) -> Pixels:
    if side == len(square):
        return square
    image = Image.fromarray(square).resize((side, side), Image.Resampling.BOX)
    return np.asarray(image)


def _tiles(picture: Pixels) -> Iterator[Pixels]:
    """Yield the tiles of a picture in TIFF's order, its border repeated outwards."""
    beyond = [-n % TILE_PX for n in picture.shape[:2]]
    padded = np.pad(picture, ((0, beyond[0]), (0, beyond[1]), (0, 0)), mode="edge")
    for y in range(0, padded.shape[0], TILE_PX):
        for x in range(0, padded.shape[1], TILE_PX):
            yield np.ascontiguousarray(padded[y : y + TILE_PX, x : x + TILE_PX])


def _append(file: BinaryIO, tile: Pixels) -> tuple[int, int]:
    data = imagecodecs.jpeg8_encode(tile, level=QUALITY, subsampling="420")
    offset = file.tell()
    file.write(data)
    return offset, len(data)


def _own_level(file: BinaryIO, picture: Pixels) -> _Page:
    places = np.array([_append(file, tile) for tile in _tiles(picture)], np.uint32)
    return _Page(len(picture), places[:, 0], places[:, 1])


def _shared_level(
    file: BinaryIO, side: int, squares: list[Pixels], layout: npt.NDArray[np.intp]
) -> _Page:
    """Compress the tiles of every square once; every place of a square lists them."""
    per_square = len(squares[0]) // TILE_PX
    places = np.array([[_append(file, t) for t in _tiles(s)] for s in squares])
    places = places.reshape(len(squares), per_square, per_square, 2)
    columns = math.ceil(side / TILE_PX)
    at = np.arange(columns)
    square, inside = np.divmod(at, per_square)
    listed = places[layout[square[:, None], square], inside[:, None], inside].reshape(
        -1, 2
    )
    return _Page(side, *(listed[:, k].astype(np.uint32) for k in (0, 1)))


def _description(finest: _Page, page: _Page, k: int) -> bytes:
    size = (
        f"{finest.side_px}x{finest.side_px} ({TILE_PX}x{TILE_PX}) JPEG/YCC Q={QUALITY}"
    )
    if k:
        size = f"{size} -> {page.side_px}x{page.side_px}"
    text = f"Aperio Image Library v11.2.1\r\n{size}|AppMag = 40|MPP = {MPP}"
    return text.encode("ascii") + b"\0"


def _write_page(file: BinaryIO, page: _Page, link: int, description: bytes) -> int:
    """Write tables and directory, put its place at ``link``; return the next link."""
    arrays = {
        270: (2, description, len(description)),
        324: (4, page.offsets.tobytes(), len(page.offsets)),
        325: (4, page.counts.tobytes(), len(page.counts)),
        258: (3, struct.pack("<3H", 8, 8, 8), 3),
    }
    tags = {
        256: (4, page.side_px), 257: (4, page.side_px), 259: (3, 7), 262: (3, 6),
        277: (3, 3), 284: (3, 1), 322: (4, TILE_PX), 323: (4, TILE_PX),
    }  # fmt: skip
    entries = {k: struct.pack("<HHII", k, kind, 1, v) for k, (kind, v) in tags.items()}
    entries[530] = struct.pack("<HHIHH", 530, 3, 2, 2, 2)
    for tag, (kind, data, count) in arrays.items():
        file.write(b"\0" * (file.tell() % 2))
        entries[tag] = struct.pack("<HHII", tag, kind, count, file.tell())
        file.write(data)
    file.write(b"\0" * (file.tell() % 2))
    start = file.tell()
    file.write(struct.pack("<H", len(entries)))
    file.write(b"".join(entries[tag] for tag in sorted(entries)))
    following = file.tell()
    file.write(b"\0\0\0\0")
    file.seek(link)
    file.write(struct.pack("<I", start))
    file.seek(0, 2)
    return following
