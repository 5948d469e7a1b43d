"""The checkerboard: either layer at its own place, no larger than the screen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.controllers.distil.align.checkerboard import (
    checkerboard_work,
    compose,
    fitting_square_um,
)
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.distill.layers.partners import dense_layer, to_look_at
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import slide_from_arrays

MPP = Mpp(0.5, 0.5, "test")


@pytest.fixture(scope="module")
def painted():
    return paint_pair(512)


@pytest.fixture(scope="module")
def slides(painted):
    return (
        slide_from_arrays(painted.sparse, name="H&E", mpp=MPP),
        slide_from_arrays(painted.dense, name="marker", mpp=MPP, channels=CHANNELS),
    )


def view(y=0, x=0, side=512):
    return Region(y=y, x=x, height=side, width=side)


def squares(board):
    """Return which pixels are the partner's, from the board's own coordinates."""
    (sy, sx), (ty, tx) = board.world.scale, board.world.translate
    rows, columns = board.pixels.shape[:2]
    y = np.floor((ty + np.arange(rows) * sy) / board.square_um)
    x = np.floor((tx + np.arange(columns) * sx) / board.square_um)
    return (y[:, None] + x) % 2 == 1


def test_each_square_shows_its_layer_pixel_for_pixel(painted, slides):
    sparse, dense = slides
    layer = dense_layer(dense, name="marker", tile_px=2)
    board = compose(sparse, layer, view(), 32, screen_px=512)
    partners = squares(board)
    assert 0.4 < partners.mean() < 0.6
    np.testing.assert_array_equal(board.pixels[~partners], painted.sparse[~partners])
    places = np.stack(np.meshgrid(*[np.arange(512) * 0.5] * 2, indexing="ij"), -1)
    whole = to_look_at(layer.read_at(places), layer.kind)
    np.testing.assert_array_equal(board.pixels[partners], whole[partners])


def test_squares_stay_where_they_are_when_the_view_moves(slides):
    sparse, dense = slides
    layer = dense_layer(dense, name="marker", tile_px=2)
    whole = compose(sparse, layer, view(), 32, screen_px=512)
    part = compose(sparse, layer, view(96, 160, 256), 32, screen_px=256)
    np.testing.assert_array_equal(part.pixels, whole.pixels[96:352, 160:416])
    small = compose(sparse, layer, view(), 32, screen_px=100)
    assert small.pixels.shape == (100, 100, 3)
    assert small.square_px == pytest.approx(32 / 2.56)


def test_the_partner_is_shown_where_the_registration_says(painted, slides):
    """A partner that was turned and is laid back shows what it showed before."""
    sparse, dense = slides
    turned = slide_from_arrays(
        np.ascontiguousarray(np.rot90(painted.dense)),
        name="marker",
        mpp=MPP,
        channels=CHANNELS,
    )
    # np.rot90 carries (y, x) to (511 - x, y), half a µm each.
    there = np.array([[0, -1, 255.5], [1, 0, 0], [0, 0, 1]], float)
    straight = dense_layer(dense, name="marker", tile_px=2)
    laid = dense_layer(turned, name="marker", tile_px=2, matrix=there)
    boards = [
        compose(sparse, layer, view(), 32, screen_px=512).pixels.astype(int)
        for layer in (straight, laid)
    ]
    inner = np.s_[8:-8, 8:-8]
    assert np.abs(boards[0] - boards[1])[inner].mean() < 2
    wrong = compose(sparse, replace(laid, matrix=np.eye(3)), view(), 32, screen_px=512)
    assert np.abs(boards[0] - wrong.pixels)[inner].mean() > 10


def test_beyond_the_partner_there_is_only_the_section(painted, slides):
    sparse, dense = slides
    away = np.eye(3)
    away[0, 2] = -128.0  # the partner begins half-way down
    layer = dense_layer(dense, name="marker", tile_px=2, matrix=away)
    board = compose(sparse, layer, view(), 32, screen_px=512)
    np.testing.assert_array_equal(board.pixels[:255], painted.sparse[:255])
    assert (board.pixels[260:] != painted.sparse[260:]).any()


def test_outlines_are_shown_too(painted, slides):
    sparse, _ = slides
    numbers = np.cumsum(painted.positive, axis=0) * painted.positive
    mask = slide_from_arrays(numbers, name="zones", mpp=MPP)
    partner = Partner("zones", PartnerKind.MASK, slide=mask)
    (board,) = checkerboard_work(sparse, partner, view(), 32, screen_px=512)(
        CancelToken()
    )
    partners = squares(board)
    lit = board.pixels.sum(-1) > 0
    assert (lit == painted.positive)[partners].mean() > 0.98
    # What was looked over is not looked over again.
    (again,) = checkerboard_work(
        sparse, partner, view(), 32, screen_px=512, known=board.layer
    )(CancelToken())
    assert again.layer.slide is board.layer.slide
    np.testing.assert_array_equal(again.pixels, board.pixels)


@pytest.mark.parametrize(
    ("side", "square"), [(512, 20), (400, 20), (330, 20), (2000, 100), (20, 1)]
)
def test_the_first_squares_are_round_numbers(slides, side, square):
    assert fitting_square_um(view(side=side), slides[0]) == pytest.approx(square)
