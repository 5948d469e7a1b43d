"""Ranked regions lead to different places, best first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.errors import InputError
from napari_histodistill.maps import SimilarityMap, rank_regions, suggest_threshold
from tests.maps.helpers import small_grid


def similar(values, at=((32.0, 32.0),), **grid) -> SimilarityMap:
    values = np.asarray(values, np.float32)
    where = small_grid(height=values.shape[0] * 64, width=values.shape[1] * 64, **grid)
    return SimilarityMap(values=values, grid=where, at=at)


def two_squares():
    values = np.full((20, 30), -0.2, np.float32)
    values[2:5, 3:7] = 0.7
    values[3, 4] = 0.9
    values[12:14, 20:22] = 0.8
    values[13, 21] = 0.95
    values[0, 0] = np.nan
    return values


def test_two_squares_are_two_regions():
    found = rank_regions(
        similar(two_squares(), at=((3.5 * 64, 4.5 * 64),)), threshold=0.5
    )
    assert [r.rank for r in found] == [1, 2]
    assert [round(r.score, 2) for r in found] == [0.95, 0.9]
    assert [r.cells for r in found] == [4, 12]
    first, second = found
    assert (first.y, first.x) == (13.5 * 64, 21.5 * 64)
    assert (second.region.y, second.region.x) == (2 * 64, 3 * 64)
    assert (second.region.height, second.region.width) == (3 * 64, 4 * 64)
    assert second.area_mm2 == pytest.approx(12 * 0.032**2)
    assert [r.is_query for r in found] == [False, True]


def test_without_a_threshold_it_is_the_suggested_one():
    heat = similar(two_squares())
    wanted = rank_regions(heat, threshold=suggest_threshold(heat))
    assert rank_regions(heat) == wanted
    assert len(wanted) == 2
    with pytest.raises(InputError):
        rank_regions(similar(np.full((4, 4), np.nan)))


def test_limit_and_empty():
    found = rank_regions(similar(two_squares()), threshold=0.5, limit=1)
    assert [round(r.score, 2) for r in found] == [0.95]
    assert rank_regions(similar(two_squares()), threshold=0.99) == ()


def test_a_large_region_gives_places_apart():
    values = np.full((20, 30), 0.8, np.float32)
    values += np.linspace(0, 0.1, 600, dtype=np.float32).reshape(20, 30)
    found = rank_regions(similar(values), threshold=0.5)
    assert len(found) > 3
    for a in found:
        for b in found:
            if a is not b:
                assert np.hypot(a.y - b.y, a.x - b.x) >= 4 * 64
    assert sum(r.cells for r in found) == 600


def test_regions_end_with_the_slide():
    grid = small_grid(height=100, width=100)  # 2 × 2 cells of 64 px
    values = np.array([[0, 0], [0, 0.9]], np.float32)
    (found,) = rank_regions(
        SimilarityMap(values=values, grid=grid, at=()), threshold=0.5
    )
    assert (found.region.bottom, found.region.right) == (100, 100)
    assert (found.y, found.x) == (82, 82)
    assert found.area_mm2 == pytest.approx((36 * 0.5 / 1000) ** 2)


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_every_region_holds_its_peak_and_only_cells_above(seed, threshold):
    values = np.random.default_rng(seed).uniform(-1, 1, (9, 11)).astype(np.float32)
    values[::4, ::3] = np.nan
    found = rank_regions(similar(values), threshold=threshold, limit=1000)
    scores = [r.score for r in found]
    assert scores == sorted(scores, reverse=True)
    above = int((values >= threshold).sum())
    assert sum(r.cells for r in found) == above
    for r in found:
        assert r.region.y <= r.y < r.region.bottom
        assert r.region.x <= r.x < r.region.right
        assert values[int(r.y / 64), int(r.x / 64)] == np.float32(r.score)


def test_threshold_finds_the_squares():
    values = two_squares() + np.random.default_rng(0).normal(0, 0.05, (20, 30))
    threshold = suggest_threshold(similar(values))
    assert 0.2 < threshold < 0.7
    assert len(rank_regions(similar(values), threshold=threshold)) == 2


def test_threshold_of_odd_maps():
    assert suggest_threshold(similar(np.full((3, 3), 0.5))) == 0.5
    one = np.full((3, 3), np.nan)
    one[1, 1] = 0.3
    assert suggest_threshold(similar(one)) == pytest.approx(0.3)
    with pytest.raises(InputError, match="map is empty"):
        suggest_threshold(similar(np.full((3, 3), np.nan)))


def test_bad_arguments():
    for arguments in ({"threshold": float("nan")}, {"threshold": 0.5, "limit": 0}):
        with pytest.raises(InputError, match="Ranking needs a number"):
            rank_regions(similar(two_squares()), **arguments)
