"""Overlays lie on the tissue they speak of, whatever was done to the slide layer.

A napari layer draws element ``i`` at ``affine @ (i · scale + translate)``; a slide
layer may besides be sheared and turned by hand, which overlays take up as their affine.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.geometry import Mpp
from napari_histodistill.layers import overlays
from napari_histodistill.layers.overlay_placement import moved_by
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.slides.pyramid.grid import TileGrid
from napari_histodistill.slides.tissue.tissue import TissueMask
from napari_histodistill.students.spec import ClassSpec
from tests.fakes import array_slide

CLASSES = (
    ClassSpec(name="stroma", color="#e69f00"),
    ClassSpec(name="gland", color="#56b4e9"),
)
HERE = np.eye(3)


def world(kwargs, index):
    """Return where napari draws an element of an overlay."""
    plain = np.array(index) * kwargs["scale"] + kwargs.get("translate", (0, 0))
    return (kwargs["affine"] @ [*plain, 1])[:2]


def small_grid():
    return TileGrid.over(
        (600, 800), Mpp(0.5, 0.5, "a test"), mpp=1.0, tile_px=32, stride_px=16
    )


factors = st.floats(0.1, 8)
shifts = st.floats(-5000, 5000)


@st.composite
def slide_transforms(draw):
    """Scale, shear, turn and shift, mirrored or not; never flattened."""
    angle, shear = draw(st.floats(-np.pi, np.pi)), draw(st.floats(-1, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.diag([draw(factors), draw(factors) * draw(st.sampled_from([1, -1]))])
    matrix = np.eye(3)
    matrix[:2, :2] = turn @ np.array([[1, shear], [0, 1]]) @ scale
    matrix[:2, 2] = draw(shifts), draw(shifts)
    return matrix


@st.composite
def grids(draw):
    stride, half = draw(st.integers(1, 64)), draw(st.integers(0, 80))
    return TileGrid.over(
        (draw(st.integers(1, 3000)), draw(st.integers(1, 3000))),
        Mpp(draw(st.floats(0.1, 3)), draw(st.floats(0.1, 3)), "a test"),
        mpp=draw(st.floats(0.2, 4)),
        tile_px=stride + 2 * half,
        stride_px=stride,
    )


@given(grid=grids(), there=slide_transforms(), data=st.data())
def test_a_cell_is_drawn_where_its_tile_was_seen(grid, there, data):
    row, column = (data.draw(st.integers(0, n - 1)) for n in grid.shape)
    affine = moved_by(there, (grid.slide_mpp.y, grid.slide_mpp.x))
    tiny = np.zeros((1, 1), np.uint8)  # only the transform matters
    for _, kwargs, _ in (
        overlays.class_map_layer(tiny, grid, CLASSES, affine=affine),
        overlays.similarity_layer(
            tiny.astype(np.float32), grid, threshold=0.5, affine=affine
        ),
    ):
        y, x = grid.tile_region(row, column).center
        on_slide = (there @ [y - 0.5, x - 0.5, 1])[:2]
        assert world(kwargs, (row, column)) == pytest.approx(on_slide, abs=1e-3)
        cell = grid.cell_region(row, column)
        corner = (there @ [cell.y - 0.5, cell.x - 0.5, 1])[:2]
        drawn = world(kwargs, (row - 0.5, column - 0.5))
        assert drawn == pytest.approx(corner, abs=1e-3)


@given(
    shape=st.tuples(st.integers(1, 90_000), st.integers(1, 90_000)),
    mpp=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
    there=slide_transforms(),
)
def test_what_is_painted_on_covers_the_slide_edge_to_edge(shape, mpp, there):
    affine = moved_by(there, mpp)
    mask = np.ones((3, 7), bool)
    size = overlays.stroke_shape(shape, mpp)
    assert max(size) <= overlays.STROKE_MAX_SIDE
    for data, kwargs, kind in (
        overlays.tissue_layer(mask, shape, mpp, affine=affine),
        overlays.stroke_layer(shape, mpp, {0: "transparent"}, affine=affine),
    ):
        assert kind == "labels"
        for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
            drawn = world(kwargs, np.array(corner) * data.shape - 0.5)
            pixel = np.array(corner) * shape - 0.5
            expected = (there @ [*pixel, 1])[:2]
            size_um = 1 + np.abs(there[:2, :2]).sum() * max(shape)
            assert drawn == pytest.approx(expected, abs=1e-9 * size_um)


@given(place=st.tuples(st.floats(0, 600), st.floats(0, 800)), there=slide_transforms())
def test_a_marker_lies_where_the_click_was(place, there):
    mpp = (0.5, 0.25)
    points, kwargs, kind = overlays.marker_layer(
        [(*place, True)], mpp, affine=moved_by(there, mpp)
    )
    assert kind == "points"
    expected = (there @ [place[0] - 0.5, place[1] - 0.5, 1])[:2]
    assert world(kwargs, points[0]) == pytest.approx(expected, abs=1e-6)


def test_nothing_moves_on_a_slide_that_nobody_moved():
    _, kwargs, _ = slide_layer(array_slide())
    there = np.diag([*kwargs["scale"], 1.0])
    assert moved_by(there, (0.5, 0.5)) == pytest.approx(np.eye(3))


def test_the_tissue_layer_agrees_with_the_mask_that_runs_use():
    slide = array_slide()
    mask = TissueMask(np.ones((30, 50), bool), slide.shape)
    _, kwargs, _ = overlays.tissue_layer(
        mask.mask, slide.shape, (0.5, 0.5), affine=HERE
    )
    said = mask.world(slide.mpp)
    assert kwargs["scale"] == pytest.approx(said.scale)
    assert kwargs["translate"] == pytest.approx(said.translate)


def test_the_layer_for_painting_starts_empty_and_editing_keeps_the_mask_untouched():
    strokes, _, _ = overlays.stroke_layer((600, 800), (0.5, 0.5), {}, affine=HERE)
    assert not strokes.any()
    mask = np.ones((30, 40), bool)
    painted, _, _ = overlays.tissue_layer(mask, (600, 800), (0.5, 0.5), affine=HERE)
    painted[:] = 0
    assert mask.all()


def test_strokes_stay_fine_on_small_images_and_coarse_on_large_ones():
    assert max(overlays.stroke_shape((512, 512), (0.5, 0.5))) == 256
    rows, columns = overlays.stroke_shape((20_000, 30_000), (0.5, 0.5))
    assert (rows, columns) == (1250, 1875), "8 µm a pixel"
    assert overlays.stroke_shape((100_000, 200_000), (0.5, 0.5)) == (1024, 2048)
    assert overlays.stroke_shape((1, 5000), (0.5, 0.5))[0] == 1


def test_every_class_has_its_colour_and_no_class_has_none():
    colors = overlays.class_colors(CLASSES)
    assert colors == {
        None: "transparent",
        0: "transparent",
        1: "#e69f00",
        2: "#56b4e9",
    }
    hidden = overlays.class_colors(CLASSES, hidden={0})
    assert hidden[1] == "transparent"
    assert hidden[2] == "#56b4e9"


def test_the_class_layer_draws_the_very_array_that_a_run_fills():
    grid = small_grid()
    labels = np.zeros(grid.shape, np.uint8)
    data, kwargs, kind = overlays.class_map_layer(labels, grid, CLASSES, affine=HERE)
    assert data is labels
    assert kind == "labels"
    assert kwargs["cache"] is False, "a cache would show the map as it was"
    assert kwargs["colormap"] == overlays.class_colors(CLASSES)
    assert 0 < kwargs["opacity"] < 1
    assert kwargs["units"] == ("um", "um")


def test_glass_and_everything_below_the_threshold_are_transparent():
    grid = small_grid()
    values = np.full(grid.shape, np.nan, np.float32)
    values[3, 4:7] = 0.2, 0.6, 0.9
    _, kwargs, kind = overlays.similarity_layer(
        values, grid, threshold=0.5, affine=HERE
    )
    assert kind == "image"
    assert kwargs["colormap"]["nan_color"] == "transparent"
    assert kwargs["colormap"]["low_color"] == "transparent"
    low, high = kwargs["contrast_limits"]
    assert low == 0.5
    assert high == pytest.approx(0.9), "the best cell has the brightest colour"
    assert kwargs["interpolation2d"] == "nearest", "no colour between cells"


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("values", [[np.nan, np.nan], [0.1, 0.9], [-1.0, -0.5]])
def test_contrast_limits_rise_for_every_threshold(values, threshold):
    low, high = overlays.similarity_limits(np.array(values, np.float32), threshold)
    assert low == threshold, "not a cell below it may show"
    assert np.isfinite(high)
    assert high > low


def test_like_and_not_like_differ_in_shape_and_colour():
    points, kwargs, _ = overlays.marker_layer(
        [(1, 2, True), (3, 4, False)], (0.5, 0.5), affine=HERE
    )
    assert points.shape == (2, 2)
    assert len(set(kwargs["symbol"])) == 2
    assert len(set(kwargs["face_color"])) == 2


def test_no_marker_is_still_a_layer():
    points, kwargs, _ = overlays.marker_layer([], (0.5, 0.5), affine=HERE)
    assert points.shape == (0, 2)
    assert kwargs["symbol"]
    assert kwargs["face_color"]
