"""The grid covers the slide exactly, and everything lies where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.slides import TileGrid, slide_from_arrays

MPPS = st.floats(0.1, 4, allow_nan=False)


@st.composite
def grids(draw) -> TileGrid:
    tile = draw(st.integers(8, 512))
    stride = draw(st.integers(4, tile + 64).filter(lambda s: (tile - s) % 2 == 0))
    mpp = draw(MPPS)
    # Pixels need not be square, and neither need whole cells fit.
    mpps = Mpp(draw(MPPS), draw(MPPS), "a test")
    # At most some hundred cells a side.
    sizes = [draw(st.integers(1, 20_000)) for _ in "yx"]
    cells = [
        min(size, int(300 * stride * mpp / m)) or 1
        for size, m in zip(sizes, (mpps.y, mpps.x), strict=True)
    ]
    return TileGrid.over(
        (cells[0], cells[1]), mpps, mpp=mpp, tile_px=tile, stride_px=stride
    )


@settings(deadline=None)
@given(grids())
def test_cells_tile_the_slide_without_gap_or_overlap(grid):
    rows, columns = grid.shape
    for row in range(rows):
        cell = grid.cell_region(row, 0)
        assert cell.y == pytest.approx(row * grid.cell_size[0])
        if row:
            assert cell.y == pytest.approx(grid.cell_region(row - 1, 0).bottom)
    last = grid.cell_region(rows - 1, columns - 1)
    # The slide ends in the last cell, not after it and not before it begins; a sliver
    # of a millionth of a cell is rounding.
    assert last.bottom >= grid.slide_height - 2e-6 * last.height
    assert last.right >= grid.slide_width - 2e-6 * last.width
    assert last.y < grid.slide_height
    assert last.x < grid.slide_width
    whole = grid.slide_height * grid.slide_mpp.y * grid.slide_width * grid.slide_mpp.x
    assert grid.areas_mm2().sum() == pytest.approx(whole / 1e6, rel=1e-5)
    assert grid.areas_mm2().max() <= grid.cell_mm2 * (1 + 1e-9)


@settings(deadline=None)
@given(grids(), st.floats(0, 1), st.floats(0, 1))
def test_every_pixel_lies_in_exactly_one_cell(grid, v, u):
    y = int(v * (grid.slide_height - 1)) + 0.5
    x = int(u * (grid.slide_width - 1)) + 0.5
    row, column = grid.cell_at(y, x)
    assert 0 <= row < grid.shape[0]
    assert 0 <= column < grid.shape[1]
    cell = grid.cell_region(row, column)
    slack = 2e-6 * max(cell.height, cell.width)
    assert cell.y - slack <= y <= cell.bottom + slack
    assert cell.x - slack <= x <= cell.right + slack
    rows, columns = grid.cells_in(
        Region(y=y - 1e-3, x=x - 1e-3, height=2e-3, width=2e-3)
    )
    assert rows.start <= row < rows.stop
    assert columns.start <= column < columns.stop


@settings(deadline=None)
@given(grids())
def test_the_centre_of_a_cell_is_the_centre_of_its_tile_in_the_world(grid):
    rows, columns = grid.shape
    world = grid.world()
    ys, xs = grid.centers()
    for row, column in {(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)}:
        tile = grid.tile_region(row, column)
        cell = grid.cell_region(row, column)
        assert tile.center == pytest.approx(cell.center, abs=1e-6)
        assert (ys[row], xs[column]) == pytest.approx(cell.center)
        # Edge convention to napari's pixel centres: half a level-0 pixel.
        expected = [
            (c - 0.5) * m
            for c, m in zip(
                tile.center, (grid.slide_mpp.y, grid.slide_mpp.x), strict=True
            )
        ]
        found = [
            k * s + t
            for k, s, t in zip((row, column), world.scale, world.translate, strict=True)
        ]
        # Far below the half pixel that is asked for, at the far corner too.
        limit = 1e-6 * max(1.0, *map(abs, expected))
        assert np.abs(np.subtract(found, expected)).max() <= limit


@settings(max_examples=30, deadline=None)
@given(
    st.integers(200, 1500),
    st.integers(200, 1500),
    st.lists(st.floats(1.3, 4.7), min_size=1, max_size=2),
    MPPS,
)
def test_levels_of_any_ratio_agree_in_the_world(height, width, ratios, mpp):
    levels = [np.broadcast_to(np.uint8(0), (height, width, 3))]
    factor = 1.0
    for ratio in ratios:
        factor *= ratio
        size = (int(height / factor), int(width / factor), 3)
        levels.append(np.broadcast_to(np.uint8(0), size))
    with slide_from_arrays(levels, name="levels", mpp=Mpp(mpp, mpp, "test")) as slide:
        first = slide.world(0)
        for k, info in enumerate(slide.level_infos):
            world = slide.world(k)
            for axis, size in enumerate((info.height, info.width)):
                # Upper left and lower right edges of all levels coincide.
                start = world.translate[axis] - world.scale[axis] / 2
                end = start + size * world.scale[axis]
                assert start == pytest.approx(-first.scale[axis] / 2)
                full = slide.shape[axis] * first.scale[axis]
                assert end - start == pytest.approx(full, rel=1e-9)


def test_a_known_grid():
    grid = TileGrid.over(
        (1000, 900), Mpp(0.5, 0.5, "t"), mpp=1, tile_px=224, stride_px=64
    )
    assert grid.shape == (8, 8)
    assert grid.cell_region(1, 2) == Region(y=128, x=256, height=128, width=128)
    assert grid.tile_region(0, 0) == Region(y=-160, x=-160, height=448, width=448)
    assert grid.world().scale == (64, 64)
    assert grid.world().translate == (31.75, 31.75)
    assert grid.stride_um == 64
    assert grid.tile_um == 224


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile_px": 223}, "must both be even or both be odd"),
        ({"stride_px": 0}, "positive sizes"),
        ({"mpp": 0}, "mpp must be a positive number"),
        ({"mpp": float("nan")}, "mpp must be a positive number"),
    ],
)
def test_impossible_grids_are_refused(change, message):
    settings = {"mpp": 1.0, "tile_px": 224, "stride_px": 64} | change
    with pytest.raises(InputError, match=message):
        TileGrid.over((100, 100), Mpp(1, 1, "t"), **settings)


def test_positions_outside_are_refused():
    grid = TileGrid.over((100, 100), Mpp(1, 1, "t"), mpp=1, tile_px=16, stride_px=16)
    for place in ((-0.1, 5), (5, 100), (100, 5)):
        with pytest.raises(InputError, match="lies outside the slide"):
            grid.cell_at(*place)
    assert grid.cells_in(Region(y=-50, x=200, height=20, width=20)) == (
        slice(0, 0),
        slice(7, 7),
    )
