"""Annotations of QuPath become strokes, and strokes annotations of QuPath."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_histodistill.errors import InputError
from napari_histodistill.export import annotations
from napari_histodistill.export.annotations import read_annotations
from napari_histodistill.export.geojson import write_strokes_geojson
from napari_histodistill.students.spec import ClassSpec

SLIDE = (600, 800)
KINDS = (
    ClassSpec(name="tumour", color="#c80000"),
    ClassSpec(name="stroma", color="#96c896"),
)


def box(y0, x0, y1, x1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def feature(rings, name="Tumor", kind="Polygon", **classification):
    known = {"name": name, "color": [200, 0, 0], **classification} if name else None
    properties = {"objectType": "annotation"}
    if known:
        properties["classification"] = known
    return {
        "type": "Feature",
        "id": "b1f9",
        "geometry": {"type": kind, "coordinates": rings},
        "properties": properties,
    }


def written(tmp_path, content, name="annotations.geojson"):
    path = tmp_path / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path, *features, **more):
    content = {"type": "FeatureCollection", "features": list(features)}
    return read_annotations(written(tmp_path, content), SLIDE, **more)


def strokes_of(path, shape=(150, 200), **more):
    return read_annotations(path, SLIDE, **more).painted(shape, SLIDE)


# --- reading --------------------------------------------------------------------------


def test_a_polygon_becomes_a_stroke_of_its_class(tmp_path):
    found = read(tmp_path, feature([box(40, 80, 80, 160)]))
    assert [(c.name, c.color) for c in found.classes] == [("Tumor", "#c80000")]
    assert not found.notes
    labels = found.painted((150, 200), SLIDE)
    assert labels[10:20, 20:40].all()
    assert labels.sum() == 200


@pytest.mark.parametrize("pack", [list, lambda f: f[0]])
def test_a_bare_list_or_one_feature_is_read_too(tmp_path, pack):
    path = written(tmp_path, pack([feature([box(40, 80, 80, 160)])]))
    assert strokes_of(path).sum() == 200


def test_holes_parts_and_small_shapes_over_large_ones(tmp_path):
    with_hole = [box(0, 0, 400, 400), box(100, 100, 200, 200)]
    parts = [[box(400, 0, 440, 40)], [box(400, 400, 440, 440)]]
    found = read(
        tmp_path,
        feature([box(20, 20, 60, 60)], "Gland"),
        feature(with_hole),
        feature(parts, "Gland", "MultiPolygon"),
    )
    assert [c.name for c in found.classes] == ["Gland", "Tumor"]
    labels = found.painted((150, 200), SLIDE)
    assert (labels[5:15, 5:15] == 1).all()
    assert (labels[26:49, 26:49] == 0).all()
    assert labels[20, 50] == 2
    assert labels[105, 5] == labels[105, 105] == 1


def test_a_shape_between_pixels_is_one_pixel(tmp_path):
    found = read(tmp_path, feature([box(41, 81, 41.5, 81.5)]))
    labels = found.painted((150, 200), SLIDE)
    assert np.argwhere(labels).tolist() == [[10, 20]]


@pytest.mark.parametrize(
    ("classification", "color"),
    [
        ({"color": [1, 2, 255]}, "#0102ff"),
        ({"color": None, "colorRGB": -3670016}, "#c80000"),
        ({"color": "red"}, "#999999"),
        ({"color": [1, 2]}, "#999999"),
    ],
)
def test_new_and_old_colours(tmp_path, classification, color):
    found = read(tmp_path, feature([box(40, 80, 80, 160)], **classification))
    assert found.classes[0].color == color


def test_names_that_a_class_cannot_have_are_bent_and_stay_apart(tmp_path):
    shape = [box(40, 80, 80, 160)]
    names = ["Tumor: CD3", "Tumor/ CD3", "Drüse", "日本", "x" * 200, "Tumor: CD3"]
    found = read(tmp_path, *(feature(shape, name) for name in names))
    assert [c.name for c in found.classes] == [
        "Tumor- CD3", "Tumor- CD3 2", "Dr-se", "class", "x" * 56,
    ]  # fmt: skip
    assert [k for k, _ in found.polygons] == [0, 1, 2, 3, 4, 0]


def test_derived_classes_have_a_list_of_names(tmp_path):
    found = read(
        tmp_path, feature([box(4, 8, 80, 160)], name=""),
        {**feature([box(4, 8, 80, 160)]), "properties": {
            "classification": {"names": ["Immune", "CD3"], "color": [1, 2, 3]}}},
    )  # fmt: skip
    assert [c.name for c in found.classes] == ["Immune- CD3"]


def test_what_is_left_out_is_counted_and_said(tmp_path):
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    found = read(
        tmp_path,
        feature([box(40, 80, 80, 160)]),
        feature([box(40, 80, 80, 160)], name=""),
        point,
        {"type": "Feature", "geometry": None},
        feature([box(4000, 8000, 4100, 8100)]),
    )
    assert found.notes == (
        "Left out: 1 shape without a class.",
        "Left out: 2 shapes of another kind (points, lines, nothing).",
        "Left out: 1 shape outside the slide.",
    )
    assert len(found.polygons) == 1


def test_positions_count_from_the_corner_of_what_was_scanned(tmp_path):
    path = written(tmp_path, feature([box(40, 80, 80, 160)]))
    labels = strokes_of(path, bounds_origin=(100, 200))
    assert labels[35:45, 70:90].all()
    assert labels.sum() == 200


# --- bad files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("PK\x03\x04", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ({"type": "Topology"}, "not GeoJSON with features"),
        ({"type": "FeatureCollection"}, "not GeoJSON with features"),
        ("3", "not GeoJSON with features"),
        ([], "It holds no features"),
        ([3], "feature 1 is not a GeoJSON feature"),
        ([feature([box(0, 0, 9, 9)], "")], "1 shape without a class"),
        ([feature(3)], "feature 1 has coordinates that are not a list"),
        ([feature([3])], "feature 1 has coordinates that are not a list"),
        ([feature([[[1]] * 5])], "a corner that is not two numbers"),
        ([feature([[["a", "b"]] * 5])], "a corner that is not two numbers"),
        ([feature([[[1e999, 2]] * 5])], "a corner that is not two numbers"),
        ([feature([box(0, 0, 9, 9)]), feature([[None]])], "feature 2 has a corner"),
        ([feature([box(9000, 0, 9009, 9)])], "1 shape outside the slide"),
        ([feature([]), feature([[]]), feature([[[1, 2]]])], "holds no polygon"),
    ],
)
def test_a_bad_file_is_one_clear_sentence(tmp_path, content, words):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=r"annotations\.geojson: ") as caught:
        read_annotations(path, SLIDE)
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder(tmp_path):
    for path in (tmp_path / "none.geojson", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_annotations(path, SLIDE)


@pytest.mark.parametrize(
    ("name", "most", "words"),
    [
        ("MAX_BYTES", 100, "larger than 0 MiB"),
        ("MAX_POLYGONS", 2, "more than 2 polygons"),
        ("MAX_POINTS", 12, "more than 12 corners"),
    ],
)
def test_sizes_are_limited(tmp_path, monkeypatch, name, most, words):
    monkeypatch.setattr(annotations, name, most)
    with pytest.raises(InputError, match=words):
        read(tmp_path, *[feature([box(0, 0, 9, 9)])] * 3)


# --- there and back -------------------------------------------------------------------


@given(
    labels=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 11)),
                  elements=st.integers(0, 2)),
    origin=st.sampled_from([None, (17, 33)]),
)  # fmt: skip
def test_strokes_come_back_as_they_were(tmp_path_factory, labels, origin):
    path = tmp_path_factory.mktemp("strokes") / "strokes.geojson"
    if not labels.any():
        with pytest.raises(InputError, match="Nothing is painted"):
            write_strokes_geojson(labels, KINDS, SLIDE, path)
        return
    write_strokes_geojson(labels, KINDS, SLIDE, path, bounds_origin=origin)
    found = read_annotations(path, SLIDE, bounds_origin=origin)
    again = found.painted(labels.shape, SLIDE)
    names = {c.name: k + 1 for k, c in enumerate(KINDS)}
    back = np.zeros_like(again)
    for k, spec in enumerate(found.classes):
        back[again == k + 1] = names[spec.name]
        assert spec in KINDS
    np.testing.assert_array_equal(back, labels)


def test_what_is_written_is_what_qupath_reads(tmp_path):
    labels = np.zeros((150, 200), np.uint8)
    labels[10:20, 20:40], labels[40:50, 60:70] = 1, 7
    path = write_strokes_geojson(
        labels, KINDS, SLIDE, tmp_path / "s.geojson", bounds_origin=(4, 8)
    )
    content = json.loads(path.read_text("utf-8"))
    (only,) = content["features"]
    assert content["type"] == "FeatureCollection"
    assert only["geometry"]["type"] == "Polygon"
    assert only["properties"]["objectType"] == "annotation"
    assert only["properties"]["classification"] == {
        "name": "tumour",
        "color": [200, 0, 0],
    }
    (ring,) = only["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert sorted({x for x, _ in ring}) == [72, 152]
    assert sorted({y for _, y in ring}) == [36, 76]
    write_strokes_geojson(labels, KINDS, SLIDE, path)  # our own may be replaced
    other = written(tmp_path, {"type": "FeatureCollection"}, "theirs.geojson")
    with pytest.raises(InputError, match="did not write"):
        write_strokes_geojson(labels, KINDS, SLIDE, other)
