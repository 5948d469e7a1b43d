"""Hatching marks what it should, reads on any class, and stays dense at every zoom."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_histodistill.controllers.explore.hatching import (
    DARK,
    LIGHT,
    MOST_PX,
    PERIOD_PX,
    SMALLEST_PX,
    hatched,
    hatching_world,
    pixels_per_square,
)
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import TileGrid


def test_unlike_squares_are_lined_and_others_are_clear():
    squares = np.zeros((6, 9), bool)
    squares[2, 3] = squares[5, 8] = True
    finest = hatched(squares)[0]
    size = pixels_per_square(squares.shape)
    assert finest.shape == (6 * size, 9 * size)
    for row, column in np.ndindex(squares.shape):
        part = finest[
            row * size : (row + 1) * size, column * size : (column + 1) * size
        ]
        assert part.any() == squares[row, column]
        if squares[row, column]:
            assert {DARK, LIGHT, 0} == set(np.unique(part))


def test_lines_keep_their_distance_on_screen_at_every_zoom():
    levels = hatched(np.ones((40, 60), bool))
    assert len(levels) > 2
    for finer, coarser in itertools.pairwise(levels):
        assert coarser.shape == tuple(-(-n // 2) for n in finer.shape)
    assert max(levels[-1].shape) <= SMALLEST_PX < max(levels[-2].shape)
    for level in levels:
        assert (level[0, : 4 * PERIOD_PX] == DARK).sum() == 8
        assert 0.2 < (level == DARK).mean() < 0.3
        assert 0.2 < (level == LIGHT).mean() < 0.3


def test_an_unlike_corner_is_seen_from_afar():
    squares = np.zeros((600, 801), bool)
    squares[590:, 790:] = True
    assert all(level.any() for level in hatched(squares))


@pytest.mark.parametrize("shape", [(2000, 2000), (1, 4_000_000), (5000, 300)])
def test_a_large_map_is_hatched_in_bounded_memory(shape):
    size = pixels_per_square(shape)
    assert size >= 1
    assert shape[0] * shape[1] * size**2 <= MOST_PX


def test_the_finest_level_lies_on_the_squares():
    grid = TileGrid.over(
        (3000, 4000), Mpp(0.5, 0.25, "test"), mpp=1, tile_px=224, stride_px=56
    )
    world, fine = grid.world(), hatching_world(grid)
    size = pixels_per_square(grid.shape)
    for axis in (0, 1):
        assert fine.scale[axis] * size == pytest.approx(world.scale[axis])
        corner = world.translate[axis] - world.scale[axis] / 2
        assert fine.translate[axis] - fine.scale[axis] / 2 == pytest.approx(corner)
