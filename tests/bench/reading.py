"""Reading a slide

A JPEG TIFF of 8,192 px (real stained texture, quality 80, colour at half resolution),
warm page cache, every reader opened anew each round. Megapixels asked for per second of
the wall clock. The limit is imagecodecs decoding the same compressed tiles, each once,
into memory that is used again, with the same number of threads.
`python -m tests.bench.reading` (from the repository's root) measures this section alone
and takes some minutes; what it compares with comes with the extra `bench`.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import tifffile

from napari_histodistill.geometry import Region
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.slides.tiff.source import TiffSource
from tests.bench import readers
from tests.bench.figures import HEADER, Figure, in_turns, seconds

if TYPE_CHECKING:
    from tests.bench.readers import Window

SIDE, ROUNDS = 8192, 5
GOALS = {
    "bare decode of the same tiles, each once": "goal 0.8",
    "OpenSlide": "goal 3",
    "tiffslide": "",
    "cuCIM on the CPU": "goal 1",
    "fastslide": "goal 1",
    "dask over tifffile's zarr store": "goal 8",
}


def texture(side: int = SIDE) -> np.ndarray:
    """Return stained tissue, repeated."""
    from skimage.data import immunohistochemistry

    tile = immunohistochemistry()
    repeats = side // tile.shape[0]
    return np.tile(tile, (repeats, repeats, 1))


def write(path: Path, image: np.ndarray, *, tile_px: int, ratios: tuple = (1,)) -> None:
    """Write a JPEG pyramid whose level 0 has 0.25 µm per pixel."""
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for k, ratio in enumerate(ratios):
            height, width = image.shape[0] // ratio, image.shape[1] // ratio
            parts = image.reshape(height, ratio, width, ratio, 3)
            tif.write(
                parts.mean((1, 3)).round().astype(np.uint8) if k else image,
                tile=(tile_px, tile_px),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                subfiletype=int(k > 0),
                resolution=(40000 / ratio, 40000 / ratio),
                resolutionunit="CENTIMETER",
            )


def cases() -> dict[str, list[Window]]:
    """Return what is read: name and windows."""
    rng = np.random.default_rng(1)

    def anywhere(count: int, px: int) -> list[Window]:
        corners = rng.integers(0, SIDE - px, (count, 2)).tolist()
        return [(y, x, px, px) for y, x in corners]

    def in_rows(height: int, width: int, px: int) -> list[Window]:
        return [
            (y, x, px, px)
            for y in range(0, height - px + 1, px)
            for x in range(0, width - px + 1, px)
        ]

    return {
        "random 1,024 px viewports": anywhere(16, 1024),
        "a whole level in 1,024 px blocks": in_rows(SIDE, SIDE, 1024),
        "224 px tiles in rows": in_rows(1120, SIDE, 224),
        "random 224 px tiles": anywhere(100, 224),
    }


def compare(path: Path, tile_px: int, threads: int, rounds: int) -> list[Figure]:
    """Return our figures on one file beside those of every other reader."""
    others, absent = readers.installed()
    figures = []
    for name, windows in cases().items():
        megapixels = sum(h * w for _, _, h, w in windows) / 1e6
        actions = {
            reader: partial(_rate, read, path, windows, threads, megapixels)
            for reader, read in {"ours": readers.ours, **others}.items()
        }
        runs = in_turns(actions, rounds)
        words = "thread" if threads == 1 else "threads"
        what = f"{name}, {tile_px} px JPEG tiles, {threads} {words}"
        figures += [
            Figure(what, runs["ours"], "MP/s", other, runs[other], GOALS[other])
            for other in others
        ]
        figures += [
            Figure(what, runs["ours"], "MP/s", note=f"{other}: not installed")
            for other in absent
        ]
    return figures


def shrunk(path: Path, mpp: float, rounds: int) -> tuple[tuple[float, ...], ...]:
    """Return megapixels per second (of the result) with and without shrinking."""
    windows = [
        Region(y=y + 0.5, x=x + 0.5, height=2048, width=2048)
        for y in range(0, SIDE - 2048, 2048)
        for x in range(0, SIDE - 2048, 2048)
    ]
    px = round(2048 * 0.25 / mpp)

    def rate(shrinks) -> float:
        with (
            open_slide(path) as slide,
            mock.patch.object(TiffSource, "shrinks", shrinks),
        ):
            taken = seconds(
                lambda: [read_resampled(slide, w, height=px, width=px) for w in windows]
            )
        return len(windows) * px * px / taken / 1e6

    runs = in_turns(
        {
            "shrunk": partial(rate, TiffSource.shrinks),
            "whole": partial(rate, lambda self, level: ()),
        },
        rounds,
    )
    return runs["shrunk"], runs["whole"]


def _rate(read, path, windows, threads, megapixels) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's
        return megapixels / read(path, windows, threads)


def measure(rounds: int = ROUNDS) -> list[Figure]:
    """Return the figures of this section."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        image = texture()
        for tile_px in (256, 512):
            path = Path(folder) / f"tiles-{tile_px}.tif"
            write(path, image, tile_px=tile_px)
            for threads in (1, 2):
                figures += compare(path, tile_px, threads, rounds)
        for ratios, mpp in (
            ((1, 4, 16), 0.5),
            ((1, 4, 16), 1.0),
            ((1,), 0.5),
            ((1,), 1.0),
        ):
            path = Path(folder) / f"levels-{len(ratios)}.tif"
            if not path.exists():
                write(path, image, tile_px=256, ratios=ratios)
            levels = " and ".join(f"{0.25 * r:g}" for r in ratios)
            what = f"resampled to {mpp:g} µm/px from levels of {levels} µm/px"
            ours, whole = shrunk(path, mpp, rounds)
            figures.append(Figure(what, ours, "MP/s", "decoded whole", whole))
        opened = tuple(seconds(lambda: open_slide(path).close()) for _ in range(7))
    return [*figures, Figure("open_slide", opened, "s")]


if __name__ == "__main__":
    print(HEADER)
    for figure in measure(*map(int, sys.argv[1:2])):
        print(figure.row(), flush=True)
