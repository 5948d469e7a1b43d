"""Rectangles of a level: what they share with a tile, as slices of both."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.slides.pyramid.levels import Rect

LEVEL = np.arange(40 * 50).reshape(40, 50)


def pixels(rect):
    return LEVEL[rect.y : rect.bottom, rect.x : rect.right]


def test_a_rectangle_is_four_numbers_in_this_order():
    rect = Rect(3, 7, 11, 13)
    assert (rect.y, rect.x, rect.height, rect.width) == tuple(rect) == (3, 7, 11, 13)
    assert (rect.bottom, rect.right) == (14, 20)
    assert pixels(rect).shape == (11, 13)


@pytest.mark.parametrize(
    ("tile", "part"),
    [
        (Rect(0, 0, 16, 16), Rect(10, 12, 6, 4)),  # upper left
        (Rect(16, 16, 16, 16), Rect(16, 16, 14, 16)),  # lower border
        (Rect(0, 32, 16, 16), Rect(10, 32, 6, 5)),  # upper right
        (Rect(12, 14, 3, 2), Rect(12, 14, 3, 2)),  # inside
        (Rect(0, 0, 40, 50), Rect(10, 12, 20, 25)),  # around
    ],
)
def test_the_common_part_of_a_read_and_a_tile(tile, part):
    read = Rect(10, 12, 20, 25)
    assert read.intersection(tile) == tile.intersection(read) == part
    rows, columns, own_rows, own_columns = read.overlap(*tile)
    assert (rows, columns) == part.slices_in(read)
    assert (own_rows, own_columns) == part.slices_in(tile)
    np.testing.assert_array_equal(pixels(read)[rows, columns], pixels(part))
    np.testing.assert_array_equal(pixels(tile)[own_rows, own_columns], pixels(part))
