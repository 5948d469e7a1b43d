"""The end of a file's name says what a map becomes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_histodistill import class_map, embed_slide, export_map, similarity_map
from napari_histodistill.errors import InputError
from napari_histodistill.export import (
    write_areas,
    write_class_labels,
    write_geojson,
    write_similarity,
)
from tests.fakes import array_slide, colour_student


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    store = tmp_path_factory.mktemp("maps") / "store.zarr"
    student = colour_student()
    for _ in embed_slide(array_slide(), student, store):
        pass
    return class_map(store, student), similarity_map(store, at=[(300, 240)])


@pytest.mark.parametrize(
    ("suffix", "write"), [(".geojson", write_geojson), (".csv", write_areas)]
)
def test_a_class_map_as_a_file(maps, tmp_path, suffix, write):
    path = export_map(maps[0], tmp_path / f"map{suffix.upper()}")
    plain = write(maps[0], tmp_path / f"plain{suffix}")
    assert path.read_bytes() == plain.read_bytes()
    assert path.stat().st_size > 20


@pytest.mark.parametrize(
    ("which", "write"), [(0, write_class_labels), (1, write_similarity)]
)
def test_both_maps_as_ome_zarr(maps, tmp_path, which, write):
    import zarr

    path = export_map(maps[which], str(tmp_path / "map.zarr"))
    plain = write(maps[which], tmp_path / "plain.zarr")
    found, wanted = zarr.open_group(path, mode="r"), zarr.open_group(plain, mode="r")
    names = sorted(name for name, _ in wanted.members(max_depth=None))
    assert sorted(name for name, _ in found.members(max_depth=None)) == names
    arrays = [name for name in names if isinstance(wanted[name], zarr.Array)]
    assert arrays
    for name in arrays:
        np.testing.assert_array_equal(found[name][:], wanted[name][:])


def test_an_earlier_export_is_replaced_and_a_strangers_file_is_not(maps, tmp_path):
    path = tmp_path / "map.geojson"
    export_map(maps[0], path)
    export_map(maps[0], path)
    assert json.loads(path.read_text("utf-8"))["features"]
    path.write_text("a thesis")
    with pytest.raises(InputError, match="did not write"):
        export_map(maps[0], path)
    assert path.read_text() == "a thesis"


@pytest.mark.parametrize("name", ["map.png", "map", ".csv"])
def test_other_endings_are_refused_with_those_that_there_are(maps, tmp_path, name):
    with pytest.raises(InputError, match=r"\.csv or \.geojson or \.zarr"):
        export_map(maps[0], tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_a_similarity_map_has_no_outlines(maps, tmp_path):
    with pytest.raises(InputError, match=r"a similarity map is written as \.zarr"):
        export_map(maps[1], tmp_path / "map.geojson")
    assert not any(tmp_path.iterdir())
