"""Memory while a slide is embedded

Peak resident memory of a process that embeds every cell of a JPEG pyramid (0.25 µm/px,
levels 1, 4, 16) with a student that only averages colours, above what the process held
before the run: tiles, and tokens every 32 µm with embeddings of 6 numbers. The
baseline is the smallest slide. `python tests/bench/measure.py memory`
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from imagecodecs import jpeg_encode

from tests.bench.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDES = (25_000, 50_000, 100_000)
TILE_PX = 512


def measure() -> list[Figure]:
    """Return the figures of this section."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        slides = [constant_pyramid(Path(folder), side) for side in SIDES]
        for mode in ("tiles", "tokens"):
            found = [_peak(path, mode) for path in slides]
            figures += [
                Figure(
                    f"{mode}, {side:,} × {side:,} px",
                    (peak["mb"],),
                    "MB",
                    f"{SIDES[0]:,} px",
                    (found[0]["mb"],),
                    f"{peak['cells']:,} cells in {peak['seconds']:.0f} s",
                )
                for side, peak in zip(SIDES, found, strict=True)
            ]
    return figures


def constant_pyramid(folder: Path, side: int) -> Path:
    """Write a pyramid whose tiles are all the same few bytes: made in a moment."""
    rng = np.random.default_rng(0)
    pixels = np.full((TILE_PX, TILE_PX, 3), (190, 120, 170), np.uint8)
    pixels += rng.integers(0, 40, pixels.shape, dtype=np.uint8)
    tile = jpeg_encode(pixels, level=80)
    path = folder / f"{side}.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for k, factor in enumerate((1, 4, 16)):
            edge = side // factor
            tif.write(
                _repeated(tile, (-(-edge // TILE_PX)) ** 2),
                shape=(edge, edge, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=1 if k else 0,
                metadata=None,
            )
    return path


def _repeated(tile: bytes, times: int) -> Iterator[bytes]:
    for _ in range(times):
        yield tile


def _peak(path: Path, mode: str) -> dict[str, float]:
    found = subprocess.run(
        [sys.executable, "-m", "tests.bench.memory", str(path), mode],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


def _embed(path: str, mode: str) -> dict[str, float]:
    """Embed one slide in this process and report its peak memory."""
    import resource
    import time

    from napari_histodistill.maps import embed_slide, plan_grid
    from napari_histodistill.slides import open_slide
    from tests.fakes import colour_student

    student = colour_student(tile_px=224, mpp=1.0)

    def peak_mb() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with open_slide(path, mpp=0.25) as slide, tempfile.TemporaryDirectory() as folder:
        grid = plan_grid(
            slide, student, stride_um=224 if mode == "tiles" else 32, mode=mode
        )
        before, start = peak_mb(), time.perf_counter()
        store = Path(folder) / "s"
        for report in embed_slide(
            slide, student, store, grid=grid, mode=mode, tissue=None
        ):
            cells = report.done
        spent = time.perf_counter() - start
    return {"mb": peak_mb() - before, "cells": cells, "seconds": spent}


if __name__ == "__main__":
    print(json.dumps(_embed(*sys.argv[1:3])))
