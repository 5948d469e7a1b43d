"""Untrained features, with answers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.scoring.baselines import (
    BASELINES,
    baseline_features,
    colour_histogram,
    mean_rgb,
    raw_pixels,
)
from tests.distill.small_runs import write_textures


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (12, 8, 8, 3), np.uint8)


def test_mean_rgb(pixels):
    np.testing.assert_allclose(mean_rgb(pixels)[3], pixels[3].reshape(-1, 3).mean(0))


def test_a_histogram_counts_shares(pixels):
    flat = np.full((1, 4, 4, 3), 255, np.uint8)
    found = colour_histogram(flat).reshape(3, 32)
    assert (found[:, -1] == 1).all()
    assert (found[:, :-1] == 0).all()
    shares = colour_histogram(pixels).reshape(12, 3, 32) ** 2
    np.testing.assert_allclose(shares.sum(axis=2), 1, rtol=1e-5)


def test_raw_pixels_are_fitted_on_the_training_part_alone(pixels):
    train = np.arange(12) < 8
    changed = pixels.copy()
    changed[10:] = 0
    one, other = raw_pixels(pixels, train), raw_pixels(changed, train)
    assert one.shape == (12, 8)
    np.testing.assert_array_equal(one[:10], other[:10])


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_gives_a_row_a_tile(name, tmp_path):
    folder = read_tile_folder(write_textures(tmp_path / "tiles", cases=4, tiles=1))
    train = np.arange(8) < 6
    (found,) = baseline_features(BASELINES[name], folder, [train], 16, 64)
    assert len(found) == 8
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.std(axis=0).max() > 0
