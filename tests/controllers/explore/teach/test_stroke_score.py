"""The score of what strokes taught: by held-out regions, and in words no larger."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.controllers.explore.teach.stroke_score import (
    StrokeScore,
    regions_of,
    score_strokes,
    wilson,
)
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import TileGrid
from napari_histodistill.students.spec import ClassSpec

KINDS = (
    ClassSpec(name="one", color="#009e73"),
    ClassSpec(name="two", color="#0072b2"),
)
MPP = Mpp(0.5, 0.5, "a test")


def grid_of(tile_px=64, stride_px=64, cells=(40, 50)):
    return TileGrid.over(
        (cells[0] * stride_px, cells[1] * stride_px),
        MPP,
        mpp=0.5,
        tile_px=tile_px,
        stride_px=stride_px,
    )


def flat(grid, *boxes):
    """Return the flat indices of boxes ``(row, column, height, width)``, and whose."""
    found = {}
    for k, (row, column, height, width) in enumerate(boxes):
        for r in range(row, row + height):
            for c in range(column, column + width):
                found[r * grid.shape[1] + c] = k
    cells = np.array(sorted(found))
    return cells, np.array([found[c] for c in cells.tolist()])


@pytest.mark.parametrize(
    ("tile", "gap", "regions"),
    [(64, 0, 1), (64, 1, 2), (128, 1, 1), (128, 2, 2), (256, 3, 1), (256, 4, 2)],
)
def test_strokes_whose_tiles_touch_are_one_region(tile, gap, regions):
    """Cells of 64 px; with ``gap`` cells between two strokes."""
    grid = grid_of(tile)
    for first, second in (
        ((5, 5, 2, 3), (5, 8 + gap, 2, 3)),
        ((5, 5, 2, 3), (7 + gap, 8 + gap, 1, 1)),
    ):
        cells, _ = flat(grid, first, second)
        found = regions_of(cells, np.zeros(len(cells), np.intp), grid)
        assert len(np.unique(found)) == regions


def test_a_chain_of_strokes_is_one_region_and_classes_are_apart():
    grid = grid_of(128)
    cells, box = flat(grid, (5, 5, 1, 2), (5, 8, 1, 2), (5, 11, 1, 2))
    assert set(regions_of(cells, np.zeros(len(cells), np.intp), grid)) == {0}
    found = regions_of(cells, (box == 1).astype(np.intp), grid)
    assert len(np.unique(found)) == 3, "without the middle one, the others are apart"


def placed(*, wrong=(), per_class=4, noise=0.3, seed=0, dim=16):
    """Return embeddings, cells and labels of strokes far apart on a large map.

    Regions named in ``wrong`` are painted as the other class.
    """
    rng = np.random.default_rng(seed)
    grid = grid_of(cells=(40, 60))
    boxes = [(10 * k, 15 * j, 3, 4) for j in range(2) for k in range(per_class)]
    cells, box = flat(grid, *boxes)
    truth = box // per_class
    labels = np.where(np.isin(box, wrong), 1 - truth, truth)
    centres = rng.standard_normal((2, dim))
    x = centres[truth] + noise * rng.standard_normal((len(cells), dim))
    return x.astype(np.float32), cells, labels, grid


def test_what_is_easy_is_right_and_still_not_certain():
    score = score_strokes(*placed(), KINDS)
    assert score.share == 1.0
    assert score.high == 1.0
    assert score.low == pytest.approx(wilson(1.0, 8)[0])
    assert score.low < 0.7
    words = score.in_words()
    assert words == "about 100 % right on strokes held out (65 to 100 %)"
    assert not score.contradictions
    assert dict(score.counts) == {"one": 4, "two": 4}


def test_large_strokes_do_not_make_it_surer():
    few = score_strokes(*placed(per_class=3), KINDS)
    assert few.low == pytest.approx(wilson(1.0, 6)[0])


@pytest.mark.parametrize("per_class", [1, 2])
def test_too_few_regions_give_words_and_no_number(per_class):
    score = score_strokes(*placed(per_class=per_class), KINDS)
    assert score.share is None
    more = 3 - per_class
    assert score.in_words().startswith("too few strokes to say (paint one in ")
    assert f"{more} more separate place" in score.in_words()
    assert "%" not in score.in_words() + score.details()
    assert not score.regions


def test_only_the_class_that_lacks_places_is_named():
    x, cells, labels, grid = placed()
    one = (labels == 0) | (cells < 10 * grid.shape[1])
    score = score_strokes(x[one], cells[one], labels[one], grid, KINDS)
    assert score.in_words() == (
        "too few strokes to say (paint two in 2 more separate places)"
    )


def test_a_stroke_that_contradicts_the_rest_is_found_where_it_lies():
    x, cells, labels, grid = placed(wrong=(2,))
    score = score_strokes(x, cells, labels, grid, KINDS)
    (odd,) = score.contradictions
    assert (odd.painted, odd.looks_like, odd.cells) == ("two", "one", 12)
    assert odd.share > 0.9
    assert odd.in_words() == "two looks like one"
    row, column = grid.cell_at(odd.y, odd.x)
    assert 20 <= row < 23
    assert 0 <= column < 4
    assert score.share < 1


def test_noise_is_about_chance():
    """No class can be told: what is held out is right by luck only."""
    shares = [
        score_strokes(*placed(noise=30.0, seed=seed), KINDS).share for seed in range(20)
    ]
    assert 0.4 < np.mean(shares) < 0.6


def test_a_region_that_all_else_contradicts_is_not_learned_by_heart():
    """Squares of one stroke are alike: cross-validation by square would praise them."""
    rng = np.random.default_rng(1)
    grid = grid_of(cells=(40, 60))
    cells, box = flat(
        grid, *[(10 * k, 15 * j, 3, 4) for j in range(2) for k in range(4)]
    )
    look = rng.standard_normal((8, 64))  # each stroke its own look, no class in it
    x = (look[box] + 0.05 * rng.standard_normal((len(cells), 64))).astype(np.float32)
    score = score_strokes(x, cells, box // 4, grid, KINDS)
    assert score.share < 0.9


def test_many_regions_are_held_out_together():
    calls = []
    x, cells, labels, grid = placed()
    _ = score_strokes(x, cells, labels, grid, KINDS, between=lambda: calls.append(1))
    assert len(calls) == 8
    calls.clear()
    grid = grid_of(cells=(80, 80))
    cells, box = flat(grid, *[(4 * (k // 15), 4 * (k % 15), 1, 1) for k in range(60)])
    y = box % 2
    x = (y[:, None] * 3 + np.random.default_rng(0).standard_normal((60, 8))).astype(
        "f4"
    )
    score = score_strokes(x, cells, y, grid, KINDS, between=lambda: calls.append(1))
    assert len(calls) == 10
    assert sum(n for _, n in score.counts) == 60
    assert score.low > 0.8, "sixty places say more than eight"


def test_wilsons_interval_is_that_of_scipy():
    from scipy.stats import binomtest

    for right, draws in ((8, 10), (3, 3), (0, 5), (17, 40)):
        wish = binomtest(right, draws).proportion_ci(0.95, method="wilson")
        assert wilson(right / draws, draws) == pytest.approx(tuple(wish), abs=1e-4)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Regions that are all right or all wrong, as alike as squares can be."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        right = (rng.random((2, 5)) < 0.8).mean()
        low, high = wilson(right, 10)
        hits += low <= 0.8 <= high
    assert hits / 2000 > 0.92


def test_words_round_outwards():
    score = StrokeScore((("a", 9), ("b", 9)), 0.853, 0.711, 0.938)
    assert score.in_words() == "about 85 % right on strokes held out (70 to 95 %)"
