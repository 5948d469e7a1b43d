"""The slide and the student that steps of ``gpu.py`` measure with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_histodistill.samples.synthetic import paint_slide
from napari_histodistill.slides.tissue.writing import JPEG_QUALITY, write_pyramid
from napari_histodistill.students.spec import StudentSpec, WeightsSpec
from napari_histodistill.students.student import Student
from tests.bench.gpu_steps import CARD, MEAN, NETWORKS, STD, backend
from tests.bench.gpu_steps import tiles as stock_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLIDE_MPP = 0.5
PATCH_PX = 1024
TIMES = 34
"""Mirrored patches so often each way: 100 blocks of 16 × 16 tiles at 2 ×."""


def painted(folder: Path, *, dry: bool, times: int = TIMES) -> Path:
    """Return a slide of painted tissue, written once for all steps.

    ``folder`` is the step's own; what steps share lies in the folder above it.
    """
    times = 1 if dry else times
    path = folder.parent / f"painted-{times}.ome.tif"
    if not path.exists():
        patch, _ = paint_slide(*([256 if dry else PATCH_PX] * 2))
        # Mirrored, so that its copies meet without a seam.
        four = np.concatenate([patch, patch[:, ::-1]], axis=1)
        four = np.concatenate([four, four[::-1]], axis=0)
        part = folder / path.name
        write_repeated(part, four, times, tile_px=64 if dry else 256)
        part.replace(path)
    return path


def write_repeated(path: Path, patch: np.ndarray, times: int, *, tile_px: int) -> None:
    """Write a slide of copies of a patch, whose JPEG tiles are made once.

    Its levels are 1 and 4: half the resolution is not there, and has to be resampled,
    as with the slides of most scanners.
    """
    small = write_pyramid(
        path.with_name(f"one-{path.name}"), patch, mpp=SLIDE_MPP, tile_px=tile_px
    )
    with tifffile.TiffFile(small) as file:
        pages: list[Any] = [level.pages[0] for level in file.series[0].levels[:3:2]]
        levels = [(page.shape, _segments(file, page)) for page in pages]
    small.unlink()
    options: dict[str, Any] = {
        "tile": (tile_px, tile_px),
        "dtype": np.uint8,
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": JPEG_QUALITY},
        "subsampling": (1, 1),
    }
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": SLIDE_MPP,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": SLIDE_MPP,
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as tif:
        for k, ((height, width, _), segments) in enumerate(levels):
            first: dict[str, Any] = {"subifds": 1, "metadata": metadata}
            tif.write(
                _copies(segments, times),
                shape=(height * times, width * times, 3),
                **(first if k == 0 else {"subfiletype": 1}),
                **options,
            )


def _segments(file: tifffile.TiffFile, page: Any) -> list[list[bytes]]:
    """Return a page's compressed tiles, by row."""
    height, width, _ = page.shape
    assert height % page.tilelength == width % page.tilewidth == 0, page.shape
    found = []
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.filehandle.seek(offset)
        found.append(file.filehandle.read(count))
    columns = width // page.tilewidth
    return [found[k : k + columns] for k in range(0, len(found), columns)]


def _copies(segments: list[list[bytes]], times: int) -> Iterator[bytes]:
    for _ in range(times):
        for row in segments:
            for _ in range(times):
                yield from row


def student_at(mpp: float, precision: str, *, dry: bool) -> Student:
    """Return a student that sees that resolution; dry, a tiny one on the CPU."""
    device = "cpu" if dry else CARD
    made = backend(device, "float32" if dry else precision, dry=dry)
    edge = 32 if dry else 224
    dim = int(made.embed(stock_of(1, edge)).shape[1])
    spec = StudentSpec(
        name="measured",
        title="A student with fixed weights",
        backbone="test_efficientnet" if dry else NETWORKS["Lite0"][0],
        tile_px=edge,
        mpp=mpp,
        mean=MEAN,
        std=STD,
        embedding_dim=dim,
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
    )
    return Student(spec, made, digest="ab" * 16)
