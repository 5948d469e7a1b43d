"""Blocks vote where a layer lies, and from farther off than an optimiser finds it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter

from napari_histodistill.distill.layers.registration import apply, inverse
from napari_histodistill.distill.layers.thumbnails import GreyThumbnail, lay
from napari_histodistill.distill.layers.voting import MOST_CHANGE, vote

UM = 3.0
EDGE = 140


def texture(seed: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(EDGE, EDGE)), 2.0)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def truth(degrees: float, scale: float) -> np.ndarray:
    """Sparse world to dense world, µm, about the middle and a little off it."""
    angle = np.radians(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    middle = np.full(2, (EDGE - 1) / 2 * UM)
    matrix[:2, 2] = np.array([7.0, -9.0]) + middle - matrix[:2, :2] @ middle
    return matrix


def laid(here: np.ndarray, there: np.ndarray):
    corner = -UM / 2, -UM / 2
    sparse, dense = (GreyThumbnail.of(grey, UM, corner) for grey in (here, there))
    found = lay(sparse, dense, np.eye(3), EDGE)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("degrees", "scale", "dark"), [(4.0, 1.0, 0), (-4.0, 1.06, 0), (3.0, 0.95, 1)]
)
def test_blocks_know_turn_scale_and_shift(degrees, scale, dark):
    here, known = texture(0), truth(degrees, scale)
    px = inverse(known)
    px[:2, 2] /= UM
    there = affine_transform(here, px[:2, :2], px[:2, 2], order=1, mode="reflect")
    pair = laid(here, 1 - there if dark else there)
    said = vote(pair, either_sign=bool(dark), rigid=False)
    assert said is not None
    places = np.random.default_rng(1).uniform(0.2, 0.8, (30, 2)) * EDGE * UM
    off = np.linalg.norm(apply(said.matrix, places) - apply(known, places), axis=1)
    assert off.max() < UM
    assert said.score > 15
    kept = vote(pair, either_sign=bool(dark), rigid=True)
    assert kept is not None
    assert np.linalg.det(kept.matrix[:2, :2]) == pytest.approx(1)
    stranger = vote(laid(here, texture(5)), either_sign=bool(dark), rigid=False)
    assert stranger is None or stranger.score < said.score / 2


def test_too_few_blocks_say_nothing():
    here = texture(0)
    small = laid(here[:60, :60], here[:60, :60])
    assert vote(small, either_sign=False, rigid=False) is None
    far = affine_transform(here, truth(3 * np.degrees(MOST_CHANGE), 1.0)[:2, :2])
    said = vote(laid(here, far), either_sign=False, rigid=False)
    assert said is None or said.score < 12
