"""The export menu: every line writes its file, of what is seen and nothing else."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from shapely.geometry import Point, shape

from napari_histodistill import __version__
from napari_histodistill.controllers.explore.exports import prepared_export
from napari_histodistill.controllers.shared.exporting import (
    EXPORTS,
    FIGURE,
    Exported,
    ExportKey,
    Ingredient,
    Proposal,
    export_work,
    folder_to_open,
    kind_of,
    proposed_path,
)
from napari_histodistill.errors import Cancelled, HistodistillError, InputError
from napari_histodistill.running import CancelToken
from napari_histodistill.slides.pyramid.slide import SlideInfo
from tests.controllers.driving import GLAND, GLASS, ask, drive, ran_session
from tests.controllers.explore.test_judging import HALVES, judge, session_on
from tests.fakes import colour_student
from tests.weaves import TILE


@pytest.fixture
def session():
    session = ran_session()
    session.add_prompt(*GLAND, like=True)
    ask(session)
    return session


def export(session, key, path, *, hidden=()):
    (written,) = drive(prepared_export(session, key, hidden)(path))
    assert written == Exported(path)
    return path


@pytest.mark.parametrize("kind", [*EXPORTS, FIGURE], ids=lambda kind: kind.key.name)
def test_every_line_of_the_menu_writes_its_file(session, tmp_path, kind):
    path = export(session, kind.key, tmp_path / f"Fall Ü 1{kind.ending}")
    assert path.exists()
    beside = {f"{path.name}.json"} if kind.key is ExportKey.SQUARES else set()
    assert {p.name for p in tmp_path.iterdir()} == {path.name, *beside}
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


def test_a_filter_that_hides_everything_is_named_before_anything_is_written(session):
    every_line = [k for k in (*EXPORTS, FIGURE) if k.needs is Ingredient.CLASSES]
    for kind in every_line:
        prepared_export(session, kind.key, ())
    both = {0, 1}
    for kind in every_line:
        if kind.key is ExportKey.SQUARES:
            prepared_export(session, kind.key, both)  # lists what is hidden, too
            continue
        with pytest.raises(InputError, match=r"\(gland, stroma\) are hidden"):
            prepared_export(session, kind.key, both)
    session.live.show_at_least(0.9999999)
    too_much = r"at least 100 % sure \(the surest is 99\.\d %\); lower that"
    with pytest.raises(InputError, match=too_much):
        prepared_export(session, ExportKey.CLASS_OUTLINES, ())


def test_every_format_carries_where_the_map_comes_from(session, tmp_path):
    session.live.show_at_least(0.6)
    path = export(session, ExportKey.CLASS_OUTLINES, tmp_path / "a.geojson", hidden={0})
    said = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    student, slide = session.student, session.slide
    assert said == {
        "program": "napari-histodistill",
        "version": __version__,
        "written": said["written"],
        "slide": slide.name,
        "slide_digest": slide.info.digest,
        "model": student.name,
        "model_title": student.spec.title,
        "model_digest": student.digest,
        "stain_normalised": False,
        "mode": "tiles",
        "step_um": session.detail.stride_um,
        "um_per_px": slide.usable_mpp.mean,
        "um_per_px_source": slide.usable_mpp.source,
        "classes_from": "model",
        "min_confidence": 0.6,
        "hidden_classes": ["stroma"],
        "unlike_left_out": False,
        "verdict": "",
    }
    time.strptime(said["written"], "%Y-%m-%d")
    image = export(session, ExportKey.CLASS_LABELS, tmp_path / "a.zarr", hidden={0})
    assert zarr.open_group(image, mode="r").attrs["provenance"] == said
    table = export(session, ExportKey.SQUARES, tmp_path / "b.csv", hidden={0})
    assert json.loads(Path(f"{table}.json").read_text(encoding="utf-8")) == said
    areas = export(session, ExportKey.CLASS_AREAS, tmp_path / "a.csv", hidden={0})
    with areas.open(encoding="utf-8", newline="") as file:
        (first, *_) = csv.DictReader(file)
    for name in ("slide", "model_digest", "mode", "um_per_px_source", "written"):
        assert first[name] == str(said[name])
    assert first["hidden_classes"] == "stroma"
    places = export(session, ExportKey.SIMILAR_PLACES, tmp_path / "p.geojson")
    searched = json.loads(places.read_text(encoding="utf-8"))["provenance"]
    assert searched["model_digest"] == student.digest
    assert searched["like_at"] == [list(GLAND)]
    assert "hidden_classes" not in searched, "a search does not go by classes"


def test_the_table_of_squares_lists_each_with_its_place(session, tmp_path):
    live = session.live
    live.show_at_least(0.9)
    path = export(session, ExportKey.SQUARES, tmp_path / "a.csv", hidden={0})
    found = pd.read_csv(path)
    assert len(found) == live.cells_done
    assert list(found)[:6] == ["x", "y", "x_um", "y_um", "class", "probability"]
    mpp = session.slide.usable_mpp
    for line in found.sample(20, random_state=1).itertuples():
        row, column = live.grid.cell_at(line.y, line.x)
        ys, xs = live.grid.centers()
        y, x = ys[row], xs[column]
        assert (line.y, line.x) == pytest.approx((y, x), abs=0.05)
        assert line.y_um == pytest.approx((y - 0.5) * mpp.y, abs=0.01)
        chances = line.p_stroma, line.p_gland
        assert chances == pytest.approx(live.probabilities_at(row, column), abs=1e-4)
        is_gland = live.shown[row, column] == 2
        assert line[5] == "gland" if is_gland else np.isnan(line[5])
        heat = session.similar.similarity.values[row, column]
        assert line.similarity == pytest.approx(heat, abs=1e-4)
    assert found["like"].isna().all(), "nothing was compared"
    again = export(session, ExportKey.SQUARES, tmp_path / "a.csv")
    assert len(pd.read_csv(again)) == live.cells_done, "an earlier one is replaced"


def test_the_table_says_which_squares_are_like_the_training(tmp_path):
    """Half the slide is woven as in the training, half is not; a few are compared."""
    session = session_on(HALVES)
    judge(session)
    trust = session.trust
    left_out = np.zeros(len(trust.cells), bool)
    left_out[::3] = True
    fewer = dataclasses.replace(
        trust,
        cells=trust.cells[~left_out],
        unlike=trust.unlike[~left_out],
    )
    session.take_judged(dataclasses.replace(session.map_trust.judged, trust=fewer))
    path = export(session, ExportKey.SQUARES, tmp_path / "a.csv")
    found = pd.read_csv(path)
    said = {
        session.live.grid.cell_at(line.y, line.x): line.like
        for line in found.itertuples()
        if not np.isnan(line.like)
    }
    assert len(said) == (~left_out).sum() < len(found)
    right = {
        (row, column): float(not unlike)
        for (row, column), unlike in zip(
            trust.cells[~left_out].tolist(), trust.unlike[~left_out], strict=True
        )
    }
    assert said == right
    # By its place: the left half is as in the training, the right half is not.
    middle = session.slide.shape[1] / 2
    far = found[(found.x - middle).abs() > 2 * TILE].dropna(subset=["like"])
    assert ((far.x < middle) == (far.like == 1)).mean() > 0.9
    assert set(far.like) == {0.0, 1.0}


def test_a_strangers_file_beside_the_table_is_left_alone(session, tmp_path):
    mine = tmp_path / "a.csv.json"
    mine.write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"a\.csv\.json: a file is there"):
        export(session, ExportKey.SQUARES, tmp_path / "a.csv")
    assert [p.name for p in tmp_path.iterdir()] == [mine.name]


# --- where to -----------------------------------------------------------------------


def test_a_file_is_proposed_beside_the_slide_and_named_as_it(tmp_path):
    slide = tmp_path / "Fall Ü 1.svs"
    assert proposed_path(slide, slide.name, ".geojson") == Proposal(
        tmp_path / "Fall Ü 1.geojson"
    )
    inside = tmp_path / "plate.zarr" / "A" / "1"
    inside.mkdir(parents=True)
    assert proposed_path(inside, "1", ".csv").path == tmp_path / "1.csv"


def test_where_the_slides_folder_cannot_be_another_is_proposed_and_said(tmp_path):
    gone = tmp_path / "gone" / "a.svs"
    last = tmp_path / "last"
    last.mkdir()
    found = proposed_path(gone, "a.svs", ".csv", last)
    assert found.path == last / "a.csv"
    assert found.note == (
        f"{gone.parent} cannot be written to: the last folder is proposed."
    )
    nowhere = proposed_path(None, "https://x/a:b.svs?token=1", ".csv", gone.parent)
    assert nowhere.path.parent == Path.home()
    assert nowhere.path.name == "https___x_a_b.csv"
    assert "no folder of this computer" in nowhere.note


def test_only_a_folder_is_opened_and_never_one_that_would_be_started(tmp_path):
    folder = tmp_path / "odd #1 ü %20;rm"
    folder.mkdir()
    assert folder_to_open(folder / "a.geojson") == folder
    evil = tmp_path / "Evil.app" / "Contents"
    evil.mkdir(parents=True)
    assert folder_to_open(evil / "a.csv") == tmp_path
    assert folder_to_open(tmp_path / "gone" / "a.csv") is None
    assert folder_to_open(tmp_path / "a.ome.zarr") == tmp_path, "not into the Zarr"


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
