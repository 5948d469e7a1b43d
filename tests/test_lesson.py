"""The lesson of the demo: zones, strokes, and how right a map is."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.geometry import Mpp
from napari_histodistill.samples.lesson import agreement, four_strokes, zones_of
from napari_histodistill.samples.synthetic import paint_slide
from napari_histodistill.slides.pyramid.grid import TileGrid

SHAPE = 1600, 2200


@pytest.fixture(scope="module")
def truth():
    return paint_slide(*SHAPE)[1]


@pytest.fixture(scope="module")
def zones(truth):
    return zones_of(truth)


def at(zones, place_um):
    y, x = (int(v / zones.um_per_px) for v in place_um)
    return zones.classes[zones.labels[y, x]]


def test_only_stroma_changes_hands(truth, zones):
    changed = truth.labels != zones.labels
    assert set(truth.labels[changed]) == {truth.classes.index("stroma")}
    given = {truth.classes[k] for k in zones.labels[changed]}
    assert given == {"gland", "crowded gland"}
    assert ((truth.labels == 0) == (zones.labels == 0)).all()


def test_each_stroke_stays_in_its_tissue(zones):
    strokes = four_strokes(zones)
    assert [s.tissue for s in strokes] == [
        "stroma", "gland", "crowded gland", "lymphoid tissue"
    ]  # fmt: skip
    for stroke in strokes:
        along = np.linspace(stroke.start, stroke.end, 50)
        assert {at(zones, place) for place in along} == {stroke.tissue}
        assert np.hypot(*np.subtract(stroke.end, stroke.start)) > 30


def test_agreement_is_one_for_the_truth_and_counts_what_is_wrong(zones):
    grid = TileGrid.over(
        SHAPE, Mpp(0.5, 0.5, "a test"), mpp=1.0, tile_px=64, stride_px=64
    )
    rows, columns = grid.shape
    height, width = (int(s * 0.5 / zones.um_per_px) for s in grid.cell_size)
    named = np.full(grid.shape, "", dtype="<U20")
    for r in range(rows):
        for c in range(columns):
            part = zones.labels[
                r * height : (r + 1) * height, c * width : (c + 1) * width
            ]
            named[r, c] = zones.classes[np.bincount(part.ravel()).argmax()]
    named[named == "glass"] = ""
    right = agreement(named, grid, zones)
    assert right.right == right.squares == (named != "").sum()
    assert 0 < right.squares_within < right.squares
    assert "on 100% of" in right.in_words()
    wrong = agreement(np.where(named == "gland", "stroma", named), grid, zones)
    assert right.right - wrong.right == (named == "gland").sum()
    nothing = agreement(np.full_like(named, ""), grid, zones)
    assert nothing.squares == 0
    assert "No square" in nothing.in_words()
