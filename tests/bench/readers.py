"""The same windows of one TIFF through ours, the limit, and other readers.

Every reader is a function of a file, windows ``(y, x, height, width)`` and a number of
threads, and returns the seconds that reading all windows took, opening not included. It
is opened anew each time, so that nothing decoded is left from the round before; the
file itself stays in the page cache.
"""

from __future__ import annotations

import importlib.util
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import tifffile

from napari_histodistill.slides import open_slide
from napari_histodistill.slides.codecs.decoding import decoding_threads
from tests.bench.figures import seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Window = tuple[int, int, int, int]
Reader = "Callable[[Path, list[Window], int], float]"


CACHE_BYTES = 96 * 1024**2
SMALL_PX = 512
"""Smaller windows are a student's tiles, larger ones what the viewer asks for."""


def ours(path: Path, windows: list[Window], threads: int) -> float:
    """Time reads as they come: the viewer's one by one, a student's from threads.

    Large windows are decoded by several threads within a read; small ones have a
    calling thread each, as in a run.
    """
    callers = threads if max(windows[0][2:]) < SMALL_PX else 1
    with open_slide(path) as slide, decoding_threads(threads):

        def read(window: Window) -> None:
            slide.read_pixels(0, *window)  # nobody keeps what was read

        return _by_callers(read, windows, callers)


def limit(path: Path, windows: list[Window], threads: int) -> float:
    """Decode the compressed tiles that the windows touch, each once, and no more.

    From memory into one array per thread that is used again and again: nothing is read,
    allocated, cut or put together.
    """
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        tables, edge = page.jpegtables, page.tilewidth
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        columns = -(-page.imagewidth // edge)
    touched = {
        row * columns + column
        for y, x, height, width in windows
        for row in range(y // edge, (y + height - 1) // edge + 1)
        for column in range(x // edge, (x + width - 1) // edge + 1)
    }
    data = path.read_bytes()
    parts = [data[o : o + n] for o, n in (places[k] for k in sorted(touched))]
    mine = threading.local()

    def decode(part: bytes) -> None:
        if not hasattr(mine, "out"):
            mine.out = np.empty((edge, edge, 3), np.uint8)
        imagecodecs.jpeg8_decode(part, tables=tables, out=mine.out)

    return _by_callers(decode, parts, threads)


def openslide(path: Path, windows: list[Window], threads: int) -> float:
    """Time OpenSlide's read_region, turned into RGB arrays."""
    from openslide import OpenSlide

    with closing(OpenSlide(str(path))) as slide:

        def read(window: Window) -> None:
            y, x, height, width = window
            region = slide.read_region((x, y), 0, (width, height))
            np.asarray(region.convert("RGB"))

        return _by_callers(read, windows, threads)


def tiffslide(path: Path, windows: list[Window], threads: int) -> float:
    """Time tiffslide's read_region as arrays."""
    from tiffslide import TiffSlide

    with closing(TiffSlide(str(path))) as slide:

        def read(window: Window) -> None:
            y, x, height, width = window
            slide.read_region((x, y), 0, (width, height), as_array=True)

        return _by_callers(read, windows, threads)


def cucim(path: Path, windows: list[Window], threads: int) -> float:
    """Time cuCIM's reader on the CPU."""
    from cucim import CuImage

    slide = CuImage(str(path))

    def read(window: Window) -> None:
        y, x, height, width = window
        np.asarray(slide.read_region((x, y), (width, height), 0))

    return _by_callers(read, windows, threads)


def fastslide(path: Path, windows: list[Window], threads: int) -> float:
    """Time fastslide's read_region, with a cache of tiles as large as ours."""
    from fastslide import FastSlide

    with closing(FastSlide.from_file_path(str(path), cache=CACHE_BYTES)) as slide:

        def read(window: Window) -> None:
            y, x, height, width = window
            slide.read_region((x, y), 0, (width, height)).numpy()

        return _by_callers(read, windows, threads)


def dask_over_zarr(path: Path, windows: list[Window], threads: int) -> float:
    """Time dask over tifffile's zarr store, one task per compressed tile."""
    import dask.array as da
    import zarr

    with closing(tifffile.imread(path, aszarr=True, level=0)) as store:
        array: Any = da.from_zarr(zarr.open(store, mode="r"))

        def read() -> None:
            for y, x, height, width in windows:
                part = array[y : y + height, x : x + width]
                part.compute(scheduler="threads", num_workers=threads)

        return seconds(read)


OTHERS = {
    "bare decode of the same tiles, each once": (limit, "imagecodecs"),
    "OpenSlide": (openslide, "openslide"),
    "tiffslide": (tiffslide, "tiffslide"),
    "cuCIM on the CPU": (cucim, "cucim"),
    "fastslide": (fastslide, "fastslide"),
    "dask over tifffile's zarr store": (dask_over_zarr, "dask"),
}


def installed() -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the other readers that can be used here, and the names of the rest."""
    there = {
        name: reader
        for name, (reader, package) in OTHERS.items()
        if importlib.util.find_spec(package) is not None
    }
    return there, tuple(name for name in OTHERS if name not in there)


def _by_callers(work: Callable[[Any], None], items: list[Any], threads: int) -> float:
    """Time ``work`` on all items, from as many threads, each with a run of them.

    Neighbours stay with one thread, as in a run of a student: two that take turns would
    wait for each other's compressed tiles.
    """
    if threads == 1:
        return seconds(lambda: [work(item) for item in items])
    ends = [len(items) * k // threads for k in range(threads + 1)]
    runs = [items[a:b] for a, b in itertools.pairwise(ends)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: None, range(threads)))
        return seconds(lambda: list(pool.map(lambda run: [*map(work, run)], runs)))
