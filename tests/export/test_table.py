"""Tables that add up."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from napari_histodistill.errors import InputError
from napari_histodistill.export import write_areas, write_regions
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.maps import RankedRegion
from napari_histodistill.maps.classes import ClassMap
from napari_histodistill.maps.provenance import MapRecord, Provenance
from napari_histodistill.students.spec import ClassSpec
from napari_histodistill.students.trust import Oddity, SlideTrust, Verdict
from tests.fakes import colour_student
from tests.maps.helpers import small_grid


def _map(labels) -> ClassMap:
    labels = np.asarray(labels, np.uint8)
    return ClassMap(
        labels=labels,
        confidence=np.ones(labels.shape, np.float32),
        probabilities=np.ones((*labels.shape, 2), np.float32),
        classes=colour_student().spec.classes,
        grid=small_grid(height=labels.shape[0] * 64, width=labels.shape[1] * 64),
    )


def rows(path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_areas(tmp_path):
    path = write_areas(_map([[1, 1, 2, 0], [1, 0, 0, 0]]), tmp_path / "a.csv")
    stroma, gland = rows(path)
    assert stroma == {
        "class": "stroma",
        "cells": "3",
        "mm2": "0.003072",
        "percent": "75.00",
        "judged": "0",
        "unlike": "0",
        "all_mm2": "0.003072",
        "like_mm2": "",
        "verdict": "",
    }
    assert gland["percent"] == "25.00"


def test_areas_say_what_is_unlike_and_replace_an_older_table(tmp_path):
    found = _map([[1, 1, 2, 0], [1, 0, 0, 0]])
    places = np.argwhere(found.labels > 0).astype(np.int32)
    trust = SlideTrust(
        verdict=Verdict.UNLIKE,
        squares=4,
        unlike_share=0.25,
        oddities=(Oddity.TISSUE,),
        reasons=("Odd.",),
        cells=places,
        unlike=np.array([True, False, False, False]),
        every=True,
    )
    path = tmp_path / "a.csv"
    path.write_text("class,cells,mm2,percent\n", "utf-8")
    stroma, gland = rows(write_areas(replace(found, trust=trust), path))
    assert (stroma["judged"], stroma["unlike"], stroma["verdict"]) == (
        "3",
        "1",
        "unlike",
    )
    assert (stroma["mm2"], stroma["like_mm2"]) == ("0.003072", "0.002048")
    assert (gland["unlike"], gland["like_mm2"]) == ("0", gland["mm2"])
    like = rows(write_areas(replace(found, trust=trust).like_only(), path))[0]
    assert (like["mm2"], like["all_mm2"]) == ("0.002048", "0.003072")


def test_nothing_classified(tmp_path):
    path = write_areas(_map(np.zeros((2, 2))), tmp_path / "a.csv")
    assert [r["percent"] for r in rows(path)] == ["0.00", "0.00"]


def test_regions(tmp_path):
    region = RankedRegion(
        rank=1,
        score=0.8765,
        y=96.0,
        x=160.5,
        region=Region(y=64, x=128, height=64, width=65),
        cells=1,
        area_mm2=0.001024,
        is_query=True,
    )
    (row,) = rows(write_regions([region], tmp_path / "r.csv"))
    assert row == {
        "rank": "1",
        "similarity": "0.8765",
        "y": "96.0",
        "x": "160.5",
        "box_y": "64.0",
        "box_x": "128.0",
        "box_height": "64.0",
        "box_width": "65.0",
        "cells": "1",
        "mm2": "0.001024",
        "is_query": "1",
    }


def test_places_in_the_world_of_the_slides_file(tmp_path):
    region = RankedRegion(
        rank=1, score=0.9, y=96.0, x=160.5,
        region=Region(y=64, x=128, height=64, width=65),
        cells=1, area_mm2=0.001, is_query=False,
    )  # fmt: skip
    path = write_regions([region], tmp_path / "r.csv")
    mpp = Mpp(0.5, 0.25, "a test")
    write_regions([region], path, slide_mpp=mpp, origin_um=(1000.0, 2000.0))
    (row,) = rows(path)
    # Pixel 0 is centred at the origin, so its edge lies half a pixel before it.
    assert float(row["world_y_um"]) == 1000 + 95.5 * 0.5
    assert float(row["world_x_um"]) == 2000 + 160 * 0.25
    assert (row["y"], row["x"]) == ("96.0", "160.5"), "pixels stay pixels"
    write_regions([region], path)  # either kind is ours to replace


def test_only_own_tables_are_replaced(tmp_path):
    found = _map([[1]])
    write_areas(found, tmp_path / "a.csv")
    write_areas(found, tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("patient,age\n")
    with pytest.raises(InputError, match="that this export did not write"):
        write_areas(found, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "patient,age\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " ", "'", '"'])
def test_no_class_can_be_called_like_a_formula(start):
    """A spreadsheet computes what begins so; only names of classes get into tables."""
    with pytest.raises(ValidationError):
        ClassSpec(name=f"{start}HYPERLINK(1)", color="#112233")


def test_of_texts_only_names_of_classes_and_verdicts_are_in_tables(tmp_path):
    areas = rows(write_areas(_map([[1, 2]]), tmp_path / "areas.csv"))
    region = RankedRegion(
        rank=1, score=-0.5, y=1.0, x=2.0, region=Region(y=0, x=0, height=4, width=4),
        cells=1, area_mm2=0.1, is_query=False,
    )  # fmt: skip
    regions = rows(write_regions([region], tmp_path / "r.csv", slide_mpp=Mpp(1, 1, "")))
    for row in (*areas, *regions):
        for key, value in row.items():
            if key not in {"class", "verdict"} and value:
                assert math.isfinite(float(value)), key


def test_names_of_slides_and_models_are_no_formulas(tmp_path):
    made_by = Provenance(
        slide_digest="5" * 64,
        slide_name="=HYPERLINK(1)\u202e.svs",
        slide_path="/somewhere/private",
        student_digest="7" * 64,
        student_name="tiny",
        mode="tiles",
        precision="float32",
    )
    record = MapRecord(made_by=made_by, title="@mine", hidden=("stroma", "gland"))
    found = replace(_map([[1, 2]]), record=record)
    path = write_areas(found, tmp_path / "areas.csv")
    (first, _) = rows(path)
    assert first["slide"] == "'=HYPERLINK(1)\ufffd.svs"
    assert first["model_title"] == "'@mine"
    assert first["hidden_classes"] == "stroma; gland"
    assert "private" not in path.read_text("utf-8"), "no folder is passed on"
    write_areas(_map([[1, 2]]), path)
    assert "slide" not in rows(path)[0], "an earlier table is replaced"
