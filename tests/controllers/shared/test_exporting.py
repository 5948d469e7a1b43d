"""The export menu: every line writes its file, of what is seen and nothing else."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import zarr
from shapely.geometry import Point, shape

from napari_histodistill.controllers.shared.exporting import (
    EXPORTS,
    Exported,
    ExportKey,
    export_work,
    kind_of,
)
from napari_histodistill.errors import Cancelled, HistodistillError, InputError
from napari_histodistill.running import CancelToken
from napari_histodistill.slides.pyramid.slide import SlideInfo
from tests.controllers.driving import GLAND, GLASS, ask, drive, ran_session
from tests.fakes import colour_student


@pytest.fixture
def session():
    session = ran_session()
    session.add_prompt(*GLAND, like=True)
    ask(session)
    return session


def export(session, key, path, *, hidden=()):
    work = export_work(
        key, path, classes=session.live.snapshot(hidden=hidden), similar=session.similar
    )
    (written,) = drive(work)
    assert written == Exported(path)
    return path


@pytest.mark.parametrize("kind", EXPORTS, ids=lambda kind: kind.key.name)
def test_every_line_of_the_menu_writes_its_file(session, tmp_path, kind):
    path = export(session, kind.key, tmp_path / f"Fall Ü 1{kind.ending}")
    assert path.exists()
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "and nothing beside it"
    assert kind_of(kind.key) is kind
    assert kind.title.endswith("…")
    assert kind.tooltip


def test_the_outlines_name_the_classes_and_lie_on_them(session, tmp_path):
    path = export(session, ExportKey.CLASS_OUTLINES, tmp_path / "a.geojson")
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    names = {f["properties"]["classification"]["name"] for f in features}
    assert names == {"stroma", "gland"}
    corners = np.array(list(_corners(f["geometry"]["coordinates"] for f in features)))
    assert corners.min() >= 0
    assert (corners.max(axis=0) <= (800, 600)).all(), "x, y in pixels of the slide"


def test_what_is_hidden_or_unsure_is_not_exported(session, tmp_path):
    path = export(session, ExportKey.CLASS_OUTLINES, tmp_path / "a.geojson", hidden={0})
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    names = {f["properties"]["classification"]["name"] for f in features}
    assert names == {"gland"}
    session.live.show_at_least(1.1)
    path = export(session, ExportKey.CLASS_OUTLINES, tmp_path / "b.geojson")
    assert json.loads(path.read_text(encoding="utf-8"))["features"] == []


def test_the_table_is_the_legend(session, tmp_path):
    path = export(session, ExportKey.CLASS_AREAS, tmp_path / "a.csv")
    with path.open(encoding="utf-8", newline="") as file:
        written = list(csv.reader(file))
    for row in session.live.rows():
        (line,) = [line for line in written if row.name in line]
        assert str(row.cells) in line
        numbers = [float(x) for x in line if _is_number(x)]
        assert any(x == pytest.approx(row.mm2, rel=1e-3) for x in numbers)


def test_the_image_holds_the_labels(session, tmp_path):
    path = export(session, ExportKey.CLASS_LABELS, tmp_path / "a.ome.zarr")
    found = [
        np.squeeze(array[...]) for array in _arrays(zarr.open_group(path, mode="r"))
    ]
    labels = session.live.labels
    assert any(np.array_equal(image, labels) for image in found)


def test_the_places_are_those_of_the_list(session, tmp_path):
    path = export(session, ExportKey.SIMILAR_PLACES, tmp_path / "a.geojson")
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert len(features) == len(session.similar.ranked)


def test_qupath_counts_from_the_corner_of_what_was_scanned(session, tmp_path):
    def corners(key, origin):
        path = tmp_path / "a.geojson"
        work = export_work(
            key,
            path,
            classes=session.live.snapshot(),
            similar=session.similar,
            slide=SlideInfo(name="a slide", bounds_origin=origin),
        )
        drive(work)
        found = json.loads(path.read_text(encoding="utf-8"))["features"]
        polygons = [f["geometry"]["coordinates"] for f in found]
        return np.array(list(_pairs(polygons)))

    for key in (ExportKey.CLASS_OUTLINES, ExportKey.SIMILAR_PLACES):
        moved = corners(key, None) - corners(key, (30, 20))
        np.testing.assert_allclose(moved, np.broadcast_to((20, 30), moved.shape))


def _pairs(nested):
    """Yield the (x, y) of nested lists."""
    if isinstance(nested[0], list):
        for inner in nested:
            yield from _pairs(inner)
    else:
        yield nested


@pytest.mark.parametrize("kind", EXPORTS, ids=lambda kind: kind.key.name)
def test_nothing_to_export_is_said_before_anything_is_written(tmp_path, kind):
    path = tmp_path / "a"
    with pytest.raises(InputError, match="There is no"):
        export_work(kind.key, path, classes=None, similar=None)
    assert not path.exists()


def test_a_student_without_classes_has_no_class_map(tmp_path):
    live = ran_session(student=colour_student(with_head=False)).live
    with pytest.raises(InputError, match="no class map"):
        export_work(
            ExportKey.CLASS_AREAS,
            tmp_path / "a.csv",
            classes=live.snapshot(),
            similar=None,
        )


def test_a_place_that_cannot_be_written_is_a_sentence(session, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    classes = session.live.snapshot()
    for kind in EXPORTS:
        work = export_work(
            kind.key, blocker / "a", classes=classes, similar=session.similar
        )
        with pytest.raises(HistodistillError, match="file"):
            drive(work)
    assert blocker.read_text() == "in the way"


def test_a_cancelled_export_writes_nothing(session, tmp_path):
    token = CancelToken()
    token.cancel()
    path = tmp_path / "a.csv"
    work = export_work(
        ExportKey.CLASS_AREAS, path, classes=session.live.snapshot(), similar=None
    )
    with pytest.raises(Cancelled):
        list(work(token))
    assert not path.exists()


def test_glass_has_no_outline(session, tmp_path):
    path = export(session, ExportKey.CLASS_OUTLINES, tmp_path / "a.geojson")
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    for place, inside in ((GLASS, set()), (GLAND, {"gland"})):
        point = Point(place[1], place[0])
        over = {
            f["properties"]["classification"]["name"]
            for f in features
            if shape(f["geometry"]).contains(point)
        }
        assert over == inside


def _corners(coordinates):
    for part in coordinates:
        if isinstance(part[0], int | float):
            yield part
        else:
            yield from _corners(part)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _arrays(group):
    for key in group.group_keys():
        yield from _arrays(group[key])
    for key in group.array_keys():
        yield group[key]
