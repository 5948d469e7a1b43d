"""Stored pairs that lie: refused by :func:`read_pairs` before they fill the memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from napari_histodistill.distill.pairs.store import read_pairs
from napari_histodistill.errors import SlideError, StoreError
from napari_histodistill.slides import open_slide
from tests.slides.formats.test_omezarr import write as write_slide

if TYPE_CHECKING:
    from pathlib import Path

META = {
    "format_version": 1,
    "kind": "pairs",
    "regions": ["a"],
    "mpp": 0.5,
    "tile_px": 8,
    "source": "a test",
    "partners": [],
}


def write(path: Path, *, meta: Any = META, **shapes: tuple[int, ...]) -> Path:
    """Write pairs of zeros, with some arrays of another shape."""
    group = zarr.create_group(path, attributes={"histodistill": meta}, zarr_format=3)
    for name, shape, kind in (
        ("sparse", (4, 8, 8, 3), "uint8"),
        ("region", (4,), "int32"),
        ("confidence", (4,), "float32"),
        ("position_um", (4, 2), "float64"),
    ):
        found = shapes.get(name, shape)
        chunks = tuple(min(n, 64) for n in found)
        array = group.create_array(name, shape=found, chunks=chunks, dtype=kind)
        if name not in shapes:
            array[:] = np.zeros(found, kind)
    return path


def test_good_pairs_are_read(tmp_path):
    assert len(read_pairs(write(tmp_path / "pairs.zarr"))) == 4


ROWS = 2**40
LIES: dict[str, dict[str, Any]] = {
    "2^40 pairs": {
        "sparse": (ROWS, 8, 8, 3),
        "region": (ROWS,),
        "confidence": (ROWS,),
        "position_um": (ROWS, 2),
    },
    "pictures of 2^40 px": {"sparse": (4, 2**20, 2**20, 3)},
    "arrays of different lengths": {"region": (7,)},
    "positions of 2^20 numbers": {"position_um": (4, 2**20)},
    "regions of two numbers": {"region": (4, 2)},
    "a newer version": {"meta": META | {"format_version": 99}},
    "no regions": {"meta": META | {"regions": []}},
    "partners that are not there": {"meta": META | {"partners": [{"name": "x"}]}},
    "words": {"meta": "pairs"},
}


@pytest.mark.parametrize("lie", LIES)
def test_pairs_that_lie(lie, tmp_path):
    path = write(tmp_path / "pairs.zarr", **LIES[lie])
    with pytest.raises(StoreError, match=r"pairs\.zarr.*(damaged|newer)"):
        read_pairs(path)


def test_pictures_in_chunks_of_one_pixel(tmp_path):
    path = write(tmp_path / "pairs.zarr", sparse=(4, 128, 128, 3))
    entry = path / "sparse" / "zarr.json"
    said = json.loads(entry.read_text())
    said["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1, 1, 1]
    entry.write_text(json.dumps(said))
    with pytest.raises(StoreError, match=r"196,608 chunks of 1 values"):
        read_pairs(path)


def test_a_slide_in_chunks_of_one_pixel(tmp_path):
    path = tmp_path / "slide.zarr"
    write_slide(LocalStore(path), [np.zeros((3, 512, 512), np.uint8)])
    entry = path / "0" / "zarr.json"
    said = json.loads(entry.read_text())
    said["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1, 1]
    entry.write_text(json.dumps(said))
    with pytest.raises(SlideError, match=r"786,432 chunks of 1 values"):
        open_slide(path)


def test_json_without_end(tmp_path):
    path = write(tmp_path / "pairs.zarr")
    (path / "zarr.json").write_text("[" * 10**5)
    with pytest.raises(StoreError, match="damaged"):
        read_pairs(path)
    (path / "zarr.json").write_text(json.dumps({"zarr_format": 2}))
    with pytest.raises(StoreError, match="damaged"):
        read_pairs(path)
