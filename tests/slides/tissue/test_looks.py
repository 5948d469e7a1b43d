"""How squares look: brown, dark, ink, blur."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_histodistill.slides.tissue.looks import look_of, oddest_look, stained_share
from tests.weaves import TILE, woven, woven_tiles

TILES = woven_tiles("spots", 4, 2)[0]


def with_pen(colour: tuple[int, int, int]) -> np.ndarray:
    tiles = TILES.copy()
    tiles[:, :, : TILE // 4] = colour
    return tiles


def test_painted_tissue_is_nothing_odd():
    look = look_of(TILES)
    assert look.brown < 0.02
    assert look.dark < 0.02
    assert look.ink[1] == 0
    assert look.sharpness > -0.5


def test_brown_in_place_of_pink():
    rng = np.random.default_rng(0)
    density = np.array([0.268, 0.570, 0.776])  # diaminobenzidine, R G B
    amount = rng.uniform(0.3, 0.9, (4, TILE, TILE, 1))
    brown = (255 * 10 ** -(amount * density)).astype(np.uint8)
    assert look_of(brown).brown > 0.9


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("blue", (30, 40, 140)),
        ("green", (10, 110, 60)),
        ("black", (20, 20, 20)),
        ("red", (170, 20, 30)),
    ],
)
def test_pens_are_named(name, colour):
    found, share = look_of(with_pen(colour)).ink
    assert found == name
    assert share == pytest.approx(1 / 4)


def test_dark_ground_is_fluorescence():
    assert look_of((TILES // 5).astype(np.uint8)).dark > 0.9
    assert look_of(255 - TILES).dark < 0.6


def test_blur_is_less_sharp():
    soft = gaussian_filter(TILES.astype(np.float32), (0, 2, 2, 0)).astype(np.uint8)
    assert look_of(soft).sharpness < look_of(TILES).sharpness - 0.5


def test_tiles_too_small_for_a_block_have_no_ink():
    assert look_of(TILES[:, :6, :6]).ink[1] == 0


def test_stained_share_of_glass_and_tissue():
    glass = np.full((1, TILE, TILE, 3), 245, np.uint8)
    half = TILES[:1].copy()
    half[:, : TILE // 2] = 245
    shares = stained_share(np.concatenate([glass, half, TILES[:1]]))
    np.testing.assert_allclose(shares, [0, 0.5, 1], atol=0.02)


def test_the_oddest_case_sets_the_limit():
    tiles = np.array([woven("spots", TILE, TILE, case=k) for k in range(12)])
    tiles[5] = 15
    look = oddest_look(tiles, np.arange(12))
    assert look.dark > 0.8
    assert look.ink[1] > 0.8
