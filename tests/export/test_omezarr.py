"""OME-Zarr: valid 0.4 metadata that lies on the slide."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import zarr

from napari_histodistill.errors import DiskError, InputError
from napari_histodistill.export import write_class_labels, write_similarity
from napari_histodistill.maps import SimilarityMap
from napari_histodistill.maps.classes import ClassMap
from tests.fakes import colour_student
from tests.maps.helpers import small_grid


@pytest.fixture
def found(rng) -> ClassMap:
    grid = small_grid(height=600, width=1000)
    return ClassMap(
        labels=rng.integers(0, 3, grid.shape).astype(np.uint8),
        confidence=np.ones(grid.shape, np.float32),
        probabilities=np.ones((*grid.shape, 2), np.float32),
        classes=colour_student().spec.classes,
        grid=grid,
    )


def test_labels_with_names_and_colours(tmp_path, found):
    path = write_class_labels(found, tmp_path / "deep" / "c.ome.zarr")
    attributes = json.loads((path / ".zattrs").read_text())
    (scales,) = attributes["multiscales"]
    assert scales["version"] == "0.4"
    assert [(a["name"], a["unit"]) for a in scales["axes"]] == [
        ("y", "micrometer"),
        ("x", "micrometer"),
    ]
    array = zarr.open_array(path / scales["datasets"][0]["path"], mode="r")
    assert array.metadata.zarr_format == 2
    np.testing.assert_array_equal(array[:], found.labels)
    assert (path / "0" / "0" / "0").is_file()  # nested chunks, as 0.4 demands
    label = attributes["image-label"]
    assert label["colors"][2] == {"label-value": 2, "rgba": [86, 180, 233, 255]}
    values = [[e["label-value"] for e in label[k]] for k in ("colors", "properties")]
    assert values == [[0, 1, 2], [0, 1, 2]], "readers that check want the same ones"
    assert label["properties"][2]["name"] == "gland"
    assert label["properties"][2]["cells"] == (found.labels == 2).sum()
    codec = json.loads((path / "0" / ".zarray").read_text())["compressor"]["id"]
    assert codec == "blosc", "ngff-zarr does not read zlib, gzip carries the time"


def test_it_lies_on_the_slide(tmp_path, found):
    path = write_class_labels(found, tmp_path / "c.ome.zarr")
    scales = json.loads((path / ".zattrs").read_text())["multiscales"][0]
    scale, shift = scales["datasets"][0]["coordinateTransformations"]
    world = found.grid.world()
    assert (scale["type"], shift["type"]) == ("scale", "translation")
    assert tuple(scale["scale"]) == world.scale == (32, 32)
    assert tuple(shift["translation"]) == world.translate == (15.75, 15.75)


def test_it_lies_on_a_slide_that_its_file_places(tmp_path, found):
    moved = replace(found, origin_um=(1000.0, 2000.0))
    path = write_class_labels(moved, tmp_path / "c.ome.zarr")
    scales = json.loads((path / ".zattrs").read_text())["multiscales"][0]
    scale, shift = scales["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [32, 32]
    assert shift["translation"] == [1015.75, 2015.75]


def test_similarity(tmp_path, rng):
    grid = small_grid()
    values = rng.uniform(-1, 1, grid.shape).astype(np.float32)
    values[0] = np.nan
    path = write_similarity(
        SimilarityMap(values=values, grid=grid, at=()), tmp_path / "s.ome.zarr"
    )
    array = zarr.open_array(path / "0", mode="r")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array[:], values)
    window = json.loads((path / ".zattrs").read_text())["omero"]["channels"][0][
        "window"
    ]
    assert window["end"] == pytest.approx(np.nanmax(values))


def test_only_own_folders_are_replaced(tmp_path, found):
    path = tmp_path / "c.ome.zarr"
    path.mkdir()
    write_class_labels(found, path)  # an empty folder may be used
    write_class_labels(found, path)
    (path / ".zattrs").write_text("{}")
    with pytest.raises(InputError, match="a folder is there that this export did not"):
        write_class_labels(found, path)
    assert [p.name for p in tmp_path.iterdir()] == ["c.ome.zarr"]


def test_a_failure_leaves_the_old_one(tmp_path, found, monkeypatch):
    path = write_class_labels(found, tmp_path / "c.ome.zarr")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", fail)
    with pytest.raises(DiskError, match="No space left"):
        write_class_labels(found, path)
    assert (path / "0" / "0" / "0").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["c.ome.zarr"]
