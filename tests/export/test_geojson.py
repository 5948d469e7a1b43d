"""GeoJSON: exact outlines in level-0 pixels, and what QuPath needs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.errors import InputError
from napari_histodistill.export import write_geojson, write_regions_geojson
from napari_histodistill.export.outlines import outline
from napari_histodistill.maps import (
    ClassMap,
    SimilarityMap,
    class_map,
    embed_slide,
    plan_grid,
    rank_regions,
)
from tests.fakes import PURPLE, array_slide, colour_student
from tests.maps.helpers import small_grid

CLASSES = colour_student().spec.classes


def map_of(labels, **grid) -> ClassMap:
    labels = np.asarray(labels, np.uint8)
    rows, columns = labels.shape
    size = {"height": rows * 64, "width": columns * 64} | grid
    return ClassMap(
        labels=labels,
        confidence=np.where(labels, 0.75, 0).astype(np.float32),
        probabilities=np.zeros((rows, columns, 2), np.float32),
        classes=CLASSES,
        grid=small_grid(**size),
    )


@given(
    st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=6, max_size=6),
    st.integers(321, 384),
    st.integers(385, 448),
)
def test_outlines_are_exactly_the_cells(rows, height, width):
    cells = np.array(rows)
    grid = small_grid(height=height, width=width)
    shape = outline(cells, grid)
    area = (cells * grid.areas_mm2()).sum() * 1e6 / 0.25
    assert shape.area == pytest.approx(area)
    assert shapely.is_valid(shape)
    for row in range(6):
        for column in range(7):
            y, x = grid.cell_region(row, column).center
            middle = shapely.Point(min(x, width - 0.4), min(y, height - 0.4))
            assert shape.contains(middle) == cells[row, column]
    if cells.any():
        x0, y0, x1, y1 = shape.bounds
        assert x0 >= 0 <= y0
        assert x1 <= width
        assert y1 <= height


def test_no_point_in_the_middle_of_an_edge_and_holes_stay():
    cells = np.ones((6, 7), bool)
    cells[2:4, 3] = False
    (shape,) = outline(cells, small_grid(height=384, width=448)).geoms
    assert len(shape.exterior.coords) == 5
    assert [len(ring.coords) for ring in shape.interiors] == [5]


def test_what_qupath_reads(tmp_path):
    labels = np.zeros((6, 7))
    labels[1:3, 1:4] = 2
    labels[5, 6] = 2
    path = write_geojson(map_of(labels), tmp_path / "deep" / "map.geojson")
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    (feature,) = document["features"]  # a class that does not occur has no feature
    assert feature["type"] == "Feature"
    properties = feature["properties"]
    assert properties["objectType"] == "annotation"
    assert properties["classification"] == {"name": "gland", "color": [86, 180, 233]}
    assert properties["measurements"]["Area mm^2"] == pytest.approx(7 * 0.032**2)
    assert properties["measurements"]["Mean confidence"] == 0.75
    assert feature["geometry"]["type"] == "MultiPolygon"
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.bounds == (64, 64, 448, 384)


def test_split_gives_a_polygon_for_every_part(tmp_path):
    labels = np.zeros((6, 7))
    labels[1:4, 1:4] = 2
    labels[2, 2] = 0  # a hole
    labels[4, 4] = 2  # touches by a corner only
    labels[0, 6] = 1
    found = map_of(labels)
    features = json.loads(
        write_geojson(found, tmp_path / "m.geojson", split=True).read_text()
    )["features"]
    assert [f["geometry"]["type"] for f in features] == ["Polygon"] * 3
    names = [f["properties"]["classification"]["name"] for f in features]
    assert names == ["stroma", "gland", "gland"]
    measured = [
        {m["name"]: m["value"] for m in f["properties"]["measurements"]}
        for f in features
    ]
    assert [m["Cells"] for m in measured] == [1, 8, 1]
    for f, m in zip(features, measured, strict=True):
        shape = shapely.geometry.shape(f["geometry"])
        assert shapely.is_valid(shape)
        assert shape.area * 0.25e-6 == pytest.approx(m["Area mm^2"])
    assert len(features[1]["geometry"]["coordinates"]) == 2, "the hole stays"
    whole = json.loads(write_geojson(found, tmp_path / "w.geojson").read_text())
    assert [f["geometry"]["type"] for f in whole["features"]] == [
        "Polygon",
        "MultiPolygon",
    ]


def test_the_document_says_what_its_numbers_are(tmp_path):
    found = replace(map_of(np.ones((2, 2))), origin_um=(1000.0, 2000.0))
    document = json.loads(write_geojson(found, tmp_path / "m.geojson").read_text())
    assert document["frame"] == {
        "unit": "pixel of level 0",
        "origin": "upper left corner of the slide",
        "first_pixel_at_um_yx": [1000.0, 2000.0],
        "um_per_pixel_yx": [0.5, 0.5],
    }
    (feature,) = document["features"]
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.bounds == (0, 0, 128, 128), "QuPath counts pixels from the corner"
    cropped = replace(found, bounds_origin=(40, 30))
    document = json.loads(write_geojson(cropped, tmp_path / "c.geojson").read_text())
    assert document["frame"]["origin"].endswith("the scanned part of the slide")


def test_the_square_is_covered_to_within_a_cell(tmp_path):
    image = np.full((1000, 1300, 3), (230, 150, 190), np.uint8)
    image[431:691, 717:977] = PURPLE
    slide, student = array_slide(image, mpp=0.43), colour_student()
    grid = plan_grid(slide, student, stride_um=8)
    for _ in embed_slide(slide, student, tmp_path / "s", grid=grid, tissue=None):
        pass
    path = write_geojson(class_map(tmp_path / "s", student), tmp_path / "m.geojson")
    shapes = {
        f["properties"]["classification"]["name"]: shapely.geometry.shape(f["geometry"])
        for f in json.loads(path.read_text())["features"]
    }
    square, cell = shapely.box(717, 431, 977, 691), max(grid.cell_size)
    assert shapes["gland"].hausdorff_distance(square) <= cell * 2**0.5
    assert shapes["gland"].buffer(cell).contains(square)
    assert square.buffer(cell, join_style="mitre").contains(shapes["gland"])
    both = shapes["gland"].union(shapes["stroma"])
    assert both.equals(shapely.box(0, 0, 1300, 1000))
    assert shapes["gland"].intersection(shapes["stroma"]).area == 0


def test_cells_that_meet_by_a_corner():
    grid = small_grid(height=192, width=192)
    assert len(outline(np.eye(3, dtype=bool), grid).geoms) == 3
    # The hole meets the outside by a corner: a shell and a hole, not one crossed ring.
    (shape,) = outline(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool), grid).geoms
    assert shapely.is_valid(shape)
    assert shape.area == 7 * 64 * 64
    assert len(shape.interiors) == 1


def test_a_speckled_map_has_sound_outlines(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (200, 200))
    path = write_geojson(map_of(labels), tmp_path / "m.geojson")
    for feature in json.loads(path.read_text())["features"]:
        assert shapely.is_valid(shapely.geometry.shape(feature["geometry"]))


def test_ranked_regions(tmp_path):
    values = np.zeros((6, 7), np.float32)
    values[2, 3] = 0.9
    grid = small_grid(height=384, width=448)
    regions = rank_regions(
        SimilarityMap(values=values, grid=grid, at=((5, 5),)), threshold=0.5
    )
    path = write_regions_geojson(regions, tmp_path / "r.geojson")
    (feature,) = json.loads(path.read_text())["features"]
    assert shapely.geometry.shape(feature["geometry"]).bounds == (192, 128, 256, 192)
    assert feature["properties"]["name"] == "#1 (0.90)"
    assert feature["properties"]["measurements"]["Rank"] == 1
    path = write_regions_geojson(regions, tmp_path / "c.geojson", bounds_origin=(8, 2))
    (moved,) = json.loads(path.read_text())["features"]
    assert shapely.geometry.shape(moved["geometry"]).bounds == (190, 120, 254, 184)
    assert moved["properties"] == feature["properties"]


def test_a_cropped_slide_moves_outlines_and_nothing_else(tmp_path):
    found = map_of(np.array([[0, 1, 2], [1, 1, 0], [0, 2, 2]]))
    documents = []
    for origin in (None, (40, 100)):
        path = write_geojson(
            replace(found, bounds_origin=origin), tmp_path / "m.geojson"
        )
        documents.append(json.loads(path.read_text())["features"])
    for here, there in zip(*documents, strict=True):
        assert here["properties"] == there["properties"]
        moved = shapely.affinity.translate(
            shapely.geometry.shape(here["geometry"]), xoff=-100, yoff=-40
        )
        assert shapely.geometry.shape(there["geometry"]).equals_exact(moved)


def test_only_own_files_are_replaced(tmp_path):
    path, found = tmp_path / "m.geojson", map_of(np.ones((6, 7)))
    write_geojson(found, path)
    write_geojson(map_of(np.full((6, 7), 2)), path)
    assert "gland" in path.read_text()
    path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(InputError, match=r"m\.geojson: a file is there that this"):
        write_geojson(found, path)
    with pytest.raises(InputError, match="a folder is there"):
        write_geojson(found, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.geojson"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_geojson(map_of(np.ones((6, 7))), tmp_path / "file" / "m.geojson")
