"""Which grid, which cells, in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.errors import InputError, MissingMppError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.maps import plan_grid
from napari_histodistill.maps.embedding_plan import (
    BlockQueue,
    check_grid,
    left_out,
    wanted_cells,
)
from napari_histodistill.slides import TileGrid, slide_from_arrays
from napari_histodistill.slides.tissue.tissue import TissueMask
from tests.fakes import array_slide, colour_student, tissue_image
from tests.maps.helpers import small_grid


def test_one_tile_per_cell_by_default():
    grid = plan_grid(array_slide(), colour_student())
    assert (grid.tile_px, grid.stride_px, grid.mpp) == (32, 32, 1.0)
    assert grid.shape == (10, 13)


@pytest.mark.parametrize(
    ("tile_px", "wish_um", "stride_px"),
    [(32, 8, 8), (32, 8.9, 8), (32, 0.4, 2), (33, 8, 7), (33, 9.2, 9), (32, 500, 500)],
)
def test_stride_snaps_to_whole_pixels(tile_px, wish_um, stride_px):
    student = colour_student(tile_px=tile_px)
    assert plan_grid(array_slide(), student, stride_um=wish_um).stride_px == stride_px


@pytest.mark.parametrize(
    ("wish_um", "stride_px"), [(1, 8), (13, 16), (32, 32), (36, 32)]
)
def test_stride_snaps_to_tokens(wish_um, stride_px):
    grid = plan_grid(array_slide(), colour_student(), stride_um=wish_um, mode="tokens")
    assert grid.stride_px == stride_px


def test_tokens_that_never_meet_the_tiles_are_refused():
    with pytest.raises(InputError, match="use the mode 'tiles'"):
        plan_grid(array_slide(), colour_student(tile_px=33), mode="tokens")


@pytest.mark.parametrize("stride_um", [0, -3, float("nan"), float("inf")])
def test_absurd_strides_are_refused(stride_um):
    with pytest.raises(InputError, match="not a distance"):
        plan_grid(array_slide(), colour_student(), stride_um=stride_um)


@pytest.mark.parametrize(
    ("stride_um", "words"),
    [
        (1e-9, "less than a tenth of the student's pixel"),
        (0.09, "less than a tenth of the student's pixel"),
        (850, r"stride of 850 µm is larger than the slide .*300 × 400 µm.*a smaller"),
        (1e300, "larger than any slide"),
    ],
)
def test_strides_that_make_no_map_are_refused_at_once(stride_um, words):
    with pytest.raises(InputError, match=words):
        plan_grid(array_slide(), colour_student(), stride_um=stride_um)


def test_a_map_of_millions_of_cells_is_a_typing_mistake():
    image = np.broadcast_to(np.uint8(200), (60_000, 60_000, 3))
    slide = slide_from_arrays(
        [image, image[::64, ::64]], name="big", mpp=Mpp(0.25, 0.25, "x"), digest="ab"
    )
    with pytest.raises(
        InputError, match=r"stride: 2 µm would make 7500 × 7500 squares"
    ):
        plan_grid(slide, colour_student(), stride_um=1)


def test_missing_mpp_is_asked_for():
    with pytest.raises(MissingMppError, match="--mpp"):
        plan_grid(array_slide(mpp=None), colour_student())


def test_too_coarse_a_slide_names_both_mpp():
    plan_grid(array_slide(mpp=4.0), colour_student(mpp=1.0))
    with pytest.raises(InputError, match=r"4\.1 µm per pixel.*which needs 1"):
        plan_grid(array_slide(mpp=4.1), colour_student(mpp=1.0))


def test_fluorescence_is_refused():
    slide = slide_from_arrays(
        [np.zeros((200, 200, 2), np.uint8)],
        name="if",
        mpp=Mpp(0.5, 0.5, "x"),
        channels=["DAPI", "CD3"],
    )
    with pytest.raises(InputError, match=r"only 8-bit colour images.*DAPI, CD3"):
        plan_grid(slide, colour_student())


def test_unknown_modes_are_refused():
    with pytest.raises(InputError, match=r"no mode 'pixels': use tiles or tokens"):
        plan_grid(array_slide(), colour_student(), mode="pixels")


def test_a_grid_of_another_slide_or_student_is_refused():
    slide, student = array_slide(), colour_student()
    check_grid(plan_grid(slide, student), slide, student)
    with pytest.raises(InputError, match="another slide or another µm/px"):
        check_grid(plan_grid(slide, student), array_slide(mpp=0.51), student)
    with pytest.raises(InputError, match=r"needs 64 px at 1"):
        check_grid(plan_grid(slide, student), slide, colour_student(tile_px=64))


def test_wanted_cells():
    slide = array_slide()
    grid = small_grid()
    everything = wanted_cells(slide, grid, None, None)
    assert everything.all()
    tissue = wanted_cells(slide, grid, "auto", None)
    assert 0.3 < tissue.mean() < 0.9
    given_mask = TissueMask.from_array(tissue_image()[..., 1] < 200, slide.shape)
    by_mask = wanted_cells(slide, grid, given_mask, None)
    assert (by_mask == tissue).mean() > 0.8
    region = Region(y=0, x=0, height=300, width=400)
    inside = np.zeros(grid.shape, bool)
    inside[grid.cells_in(region)] = True
    np.testing.assert_array_equal(
        wanted_cells(slide, grid, tissue, region), tissue & inside
    )


def test_no_cell_left_says_why():
    slide, grid = array_slide(), small_grid()
    with pytest.raises(InputError, match=r"no tissue in the region.*--all-cells"):
        wanted_cells(slide, grid, "auto", Region(y=0, x=0, height=5, width=5))
    with pytest.raises(InputError, match="lies outside the slide"):
        wanted_cells(slide, grid, None, Region(y=-9, x=0, height=5, width=5))
    with pytest.raises(InputError, match=r"expected a bool array \(10, 13\)"):
        wanted_cells(slide, grid, np.ones((3, 3), bool), None)
    with pytest.raises(InputError, match="expected a bool array"):
        wanted_cells(slide, grid, np.ones((10, 13), np.uint8), None)


def test_cells_whose_tile_misses_the_slide_are_left_out():
    slide, student = array_slide(), colour_student()  # 300 × 400 µm
    grid = plan_grid(slide, student, stride_um=260)
    assert grid.shape == (2, 2)
    first = [[True, True], [False, False]]
    np.testing.assert_array_equal(grid.tiles_on_slide(), first)
    np.testing.assert_array_equal(wanted_cells(slide, grid, None, None), first)
    assert left_out(grid).endswith(": 2")
    border = Region(y=560, x=0, height=40, width=800)
    with pytest.raises(InputError, match="larger than the slide or its tissue"):
        wanted_cells(slide, grid, None, border)


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 40), st.floats(0.1, 4))
def test_no_cell_is_left_out_at_strides_up_to_the_tile(height, width, half, mpp):
    for stride in range(2 * half, 0, -2 * max(1, half // 4)):
        grid = TileGrid.over(
            (height, width),
            Mpp(mpp, mpp, "a test"),
            mpp=1.0,
            tile_px=2 * half,
            stride_px=stride,
        )
        assert grid.tiles_on_slide().all()
        assert left_out(grid) == ""


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 300))
def test_tiles_on_slide_are_those_whose_region_meets_it(height, width, half):
    grid = small_grid(height, width, stride_px=2 * half)
    slide = Region(y=0, x=0, height=height, width=width)
    rows, columns = grid.shape
    expected = [
        [grid.tile_region(r, c).intersection(slide) is not None for c in range(columns)]
        for r in range(rows)
    ]
    np.testing.assert_array_equal(grid.tiles_on_slide(), expected)


def _drain(queue, focus=None):
    taken = []
    while unit := queue.take(focus):
        taken.append((unit.row0, unit.column0))
    return taken


def test_blocks_in_view_first_from_the_centre_then_rows():
    grid = small_grid()  # 10 × 13 cells of 64 px
    wanted, status = np.ones(grid.shape, bool), np.zeros(grid.shape, np.uint8)
    rows_first = [(r, c) for r in (0, 4, 8) for c in (0, 4, 8, 12)]
    assert _drain(BlockQueue(grid, 4, wanted, status)) == rows_first
    view = Region(y=280, x=480, height=100, width=200)
    seen = _drain(BlockQueue(grid, 4, wanted, status), view)
    assert seen[:2] == [(4, 8), (4, 4)]
    assert seen[2:] == [b for b in rows_first if b not in seen[:2]]


@given(st.data())
def test_every_missing_cell_is_handed_out_once(data):
    grid = small_grid()
    bits = st.lists(st.booleans(), min_size=130, max_size=130)
    wanted = np.array(data.draw(bits)).reshape(grid.shape)
    done = np.array(data.draw(bits)).reshape(grid.shape)
    status = np.where(done & wanted, 1, 0).astype(np.uint8)
    queue = BlockQueue(grid, data.draw(st.integers(1, 14)), wanted, status)
    view = Region(y=100, x=100, height=200, width=300)
    computed = np.zeros(grid.shape, int)
    while unit := queue.take(view if data.draw(st.booleans()) else None):
        assert unit.wanted.any()
        computed[unit.block] += unit.wanted
    assert computed.max(initial=0) <= 1
    assert computed[wanted & ~done].all()
    assert not computed[~wanted].any()


def test_unreadable_cells_are_tried_again_only_if_asked():
    grid = small_grid()
    wanted = np.ones(grid.shape, bool)
    status = np.ones(grid.shape, np.uint8)
    status[5, 5] = 2
    assert _drain(BlockQueue(grid, 4, wanted, status)) == []
    again = BlockQueue(grid, 4, wanted, status, retry_unreadable=True)
    assert len(again) == 1
    assert _drain(again) == [(4, 4)]
