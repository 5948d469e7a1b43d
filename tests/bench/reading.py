"""Reading a slide

A synthetic JPEG pyramid of 8,192 px with 256 px tiles, warm page cache. The limit is
imagecodecs decoding the same compressed tiles, each once, in one thread.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import tifffile

from napari_histodistill.geometry import Region
from napari_histodistill.slides import open_slide
from tests.bench.figures import Figure, seconds, taking_turns

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE, VIEW, VIEWS = 8192, 1024, 12


def _texture() -> np.ndarray:
    from skimage.data import immunohistochemistry

    tile = immunohistochemistry()
    repeats = SIDE // tile.shape[0]
    return np.tile(tile, (repeats, repeats, 1))


def _write(path: Path) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(
            _texture(),
            tile=(256, 256),
            photometric="rgb",
            compression="jpeg",
            compressionargs={"level": 80},
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
        )


def _decode_all(path: Path) -> Callable[[], float]:
    """Return a function that gives megapixels per second of bare decoding."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        tables = page.jpegtables
        data = path.read_bytes()
        parts = [
            data[o : o + n]
            for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)
        ][: (VIEW // 256) ** 2 * VIEWS]

    def rate() -> float:
        # The tiles are stored as YCbCr, which libjpeg turns to RGB while decoding.
        taken = seconds(
            lambda: [imagecodecs.jpeg_decode(p, tables=tables) for p in parts]
        )
        return len(parts) * 256 * 256 / taken / 1e6

    return rate


def _corners() -> np.ndarray:
    return np.random.default_rng(1).integers(0, (SIDE - VIEW) // 256, (VIEWS, 2)) * 256


def _viewports(path: Path) -> float:
    """Megapixels per second of ours; opened anew, so that no decoded tile is kept."""
    with open_slide(path, mpp=0.5) as slide:

        def read() -> None:
            for y, x in _corners():
                slide.read(Region(y=y, x=x, height=VIEW, width=VIEW))

        return VIEWS * VIEW * VIEW / seconds(read) / 1e6


def _openslide(path: Path) -> float:
    import openslide

    with openslide.OpenSlide(str(path)) as handle:

        def read() -> None:
            for y, x in _corners():
                np.asarray(handle.read_region((int(x), int(y)), 0, (VIEW, VIEW)))

        return VIEWS * VIEW * VIEW / seconds(read) / 1e6


def measure() -> list[Figure]:
    """Return the figures of this section."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texture.tif"
        _write(path)
        ours, limit = taking_turns(lambda: _viewports(path), _decode_all(path), 7)
        again, other = taking_turns(
            lambda: _viewports(path), lambda: _openslide(path), 7
        )
        opened = tuple(
            seconds(lambda: open_slide(path, mpp=0.5).close()) for _ in range(7)
        )
    what = "1,024 px viewports at tile borders"
    return [
        Figure(what, ours, "MP/s", "bare decode, one thread", limit),
        Figure(what, again, "MP/s", "OpenSlide", other),
        Figure("open_slide", opened, "s"),
    ]
