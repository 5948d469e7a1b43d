"""Similarity: the documented definition, good errors, instant clicks."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.errors import InputError, StoreError
from napari_histodistill.maps import (
    EmbeddingStore,
    SimilarityIndex,
    embed_slide,
    plan_grid,
    similarity_map,
)
from napari_histodistill.maps.alike import similarity as module
from napari_histodistill.maps.alike.similarity import NEGATIVE_WEIGHT
from tests.fakes import array_slide, colour_student
from tests.maps.helpers import filled_store, in_small_steps, new_store, small_grid


def noise(rng, dim=16):
    grid = small_grid()
    values = rng.normal(3, 1, (*grid.shape, dim)).astype(np.float16)
    return grid, values, np.ones(grid.shape, np.uint8)


def at(grid, row, column):
    height, width = grid.cell_size
    return ((row + 0.5) * height, (column + 0.5) * width)


def test_the_definition(rng):
    grid, values, status = noise(rng)
    index = SimilarityIndex.of(values, status, grid)
    found = index.query([at(grid, 2, 3), at(grid, 4, 5)], [at(grid, 7, 1)])
    unit = values.astype(np.float64) - values.astype(np.float64).mean(axis=(0, 1))
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    query = (unit[2, 3] + unit[4, 5]) / 2 - NEGATIVE_WEIGHT * unit[7, 1]
    wish = unit @ (query / np.linalg.norm(query))
    np.testing.assert_allclose(found.values, wish, atol=1e-4)
    assert found.values.dtype == np.float32
    assert (found.at, found.not_at) == (
        (at(grid, 2, 3), at(grid, 4, 5)),
        (at(grid, 7, 1),),
    )


@pytest.mark.parametrize("large", [False, True])
def test_a_large_store_is_read_in_steps(tmp_path, rng, monkeypatch, large):
    monkeypatch.setattr(module, "_IN_FLOAT32_BYTES", 0 if large else 1 << 30)
    values = filled_store(tmp_path / "s", rng)
    heights = in_small_steps(monkeypatch)
    with EmbeddingStore.open(tmp_path / "s") as store:
        found = SimilarityIndex.from_store(store)
        wish = SimilarityIndex.of(values, store.status, store.grid)
    assert (max(heights), sum(heights)) == (4, len(values))
    click = [at(store.grid, 2, 3)]
    np.testing.assert_array_equal(found.query(click).values, wish.query(click).values)


@given(row=st.integers(0, 8), column=st.integers(0, 11))
def test_the_clicked_cell_is_the_most_similar(row, column):
    grid, values, status = noise(np.random.default_rng(0))
    index = SimilarityIndex.of(values, status, grid)
    found = index.query([at(grid, row, column)]).values
    assert found[row, column] == pytest.approx(1, abs=1e-5)
    assert np.unravel_index(found.argmax(), found.shape) == (row, column)
    assert -1 <= found.min() <= found.max() <= 1


def test_centring_tells_apart_what_plain_cosine_does_not(rng):
    grid = small_grid()
    common = rng.normal(10, 1, 32)
    values = common + rng.normal(0, 0.2, (*grid.shape, 32))
    gland = rng.normal(0, 0.5, 32)
    values[:5] += gland
    plain = values / np.linalg.norm(values, axis=2, keepdims=True)
    assert (plain @ plain[0, 0]).min() > 0.98
    index = SimilarityIndex.of(values, np.ones(grid.shape, np.uint8), grid)
    found = index.query([at(grid, 0, 0)]).values
    assert found[:5].min() > 0.3
    assert found[5:].max() < 0


def test_not_like_this_lowers_what_is_like_it(rng):
    grid, values, status = noise(rng)
    index = SimilarityIndex.of(values, status, grid)
    here, there = at(grid, 1, 1), at(grid, 8, 9)
    plain, with_not = index.query([here]).values, index.query([here], [there]).values
    assert with_not[8, 9] < plain[8, 9] - 0.2
    assert with_not[1, 1] > 0.8


def test_cells_without_embedding_are_nan_and_cannot_be_clicked(rng):
    grid, values, status = noise(rng)
    status[0, 0], status[1, 1] = 0, 2
    values[status != 1] = np.nan
    index = SimilarityIndex.of(values, status, grid)
    found = index.query([at(grid, 5, 5)]).values
    np.testing.assert_array_equal(np.isnan(found), status != 1)
    for row in (0, 1):
        with pytest.raises(
            InputError, match=r"Nothing was computed at .*: it is glass"
        ):
            index.query([at(grid, row, row)])


def test_bad_clicks(rng):
    grid, values, status = noise(rng)
    index = SimilarityIndex.of(values, status, grid)
    with pytest.raises(InputError, match="outside the slide"):
        index.query([(-5, 10)])
    with pytest.raises(InputError, match="at least one place"):
        index.query([], [(5, 5)])


def test_nothing_to_compare(rng):
    grid, values, status = noise(rng)
    with pytest.raises(InputError, match="Nothing has been computed yet"):
        SimilarityIndex.of(values, np.zeros_like(status), grid)
    with pytest.raises(InputError, match="All computed squares look the same"):
        SimilarityIndex.of(np.ones_like(values), status, grid)


def test_clicks_that_cancel_out():
    grid = small_grid(height=64, width=192)
    values = np.array([[[2, 1], [0, 1], [1, 1]]], np.float32)
    index = SimilarityIndex.of(values, np.ones((1, 3), np.uint8), grid)
    with pytest.raises(InputError, match="cancel each other out"):
        index.query([at(grid, 0, 0), at(grid, 0, 1)])


def test_half_precision_gives_the_same_picture(rng, monkeypatch):
    grid, values, status = noise(rng)
    exact = SimilarityIndex.of(values, status, grid)
    monkeypatch.setattr(module, "_IN_FLOAT32_BYTES", 10)
    monkeypatch.setattr(module, "_SLAB_ROWS", 7)
    half = SimilarityIndex.of(values, status, grid)
    assert half._unit.dtype == np.float16
    click = [at(grid, 3, 3)]
    np.testing.assert_allclose(
        half.query(click).values, exact.query(click).values, atol=3e-3
    )


def test_from_a_store(tmp_path, rng):
    values = filled_store(tmp_path / "s", rng)
    grid = small_grid()
    click = [at(grid, 3, 3)]
    wish = SimilarityIndex.of(values, np.ones(grid.shape, np.uint8), grid).query(click)
    np.testing.assert_array_equal(
        similarity_map(str(tmp_path / "s"), at=click).values, wish.values
    )
    with EmbeddingStore.open(tmp_path / "s") as store:
        found = similarity_map(store, at=click, not_at=[])
    np.testing.assert_array_equal(found.values, wish.values)
    with pytest.raises(StoreError, match="there is no store"):
        similarity_map(tmp_path / "none", at=click)


def test_an_unfinished_store_can_be_asked(tmp_path, rng):
    with new_store(tmp_path / "s") as store:
        part = rng.normal(size=(4, 4, 6))
        store.write_block(0, 0, part, np.ones((4, 4), np.uint8))
    found = similarity_map(tmp_path / "s", at=[at(small_grid(), 1, 1)])
    assert np.isfinite(found.values).sum() == 16


def test_equal_tissue_is_found_on_a_slide(tmp_path):
    slide, student = array_slide(mpp=1.0), colour_student()
    for _ in embed_slide(slide, student, tmp_path / "s"):
        pass
    # Glands lie around (210, 240), (210, 520) and (390, 360).
    found = similarity_map(tmp_path / "s", at=[(210, 240)])
    grid = plan_grid(slide, student)
    assert found.values[grid.cell_at(210, 520)] > 0.9
    assert found.values[grid.cell_at(390, 360)] > 0.9
    assert found.values[grid.cell_at(300, 150)] < 0


@pytest.mark.slow
def test_a_click_on_200_000_cells_is_instant():
    grid = small_grid(height=450 * 64, width=450 * 64)
    values = np.random.default_rng(0).normal(size=(450, 450, 256)).astype(np.float16)
    index = SimilarityIndex.of(values, np.ones((450, 450), np.uint8), grid)
    start = time.perf_counter()
    index.query([at(grid, 5, 5)], [at(grid, 100, 100)])
    assert time.perf_counter() - start < 1
