"""Where two students differ: laws of the measures, and stores that do not fit."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.errors import Cancelled, InputError, StoreError
from napari_histodistill.geometry import Mpp
from napari_histodistill.maps.alike.ranking import nearest_places, rank_regions
from napari_histodistill.maps.alike.similarity import SimilarityIndex
from napari_histodistill.maps.cell_matching import BLOCK_CELLS, match_cells
from napari_histodistill.maps.difference import (
    DifferenceMap,
    Side,
    compare,
    difference_map,
    noise_between,
    side_of,
)
from napari_histodistill.maps.difference_measures import ANCHORS, NoiseFloor
from napari_histodistill.maps.engine import embed_slide, plan_grid
from napari_histodistill.maps.store import EmbeddingStore
from napari_histodistill.running import CancelToken
from napari_histodistill.slides.pyramid.grid import TileGrid
from napari_histodistill.students.head import Head
from tests.fakes import array_slide, colour_student
from tests.maps.helpers import PROVENANCE, filled_store

CLASSES = ("stroma", "gland", "muscle")


class Memory:
    """Embeddings of a whole slide in memory, read like a store; notes what is read."""

    def __init__(self, values, *, grid=None, status=None, provenance=PROVENANCE):
        rows, columns, _ = values.shape
        self.values = values.astype(np.float16)
        self.grid = grid or square_grid(rows, columns)
        self.status = np.ones((rows, columns), np.uint8) if status is None else status
        self.provenance = provenance
        self.largest = 0

    def read(self, block=None):
        found = self.values[block]
        self.largest = max(self.largest, found.shape[0] * found.shape[1])
        found = found.copy()
        found[self.status[block] != 1] = np.nan
        return found


def square_grid(rows, columns, *, stride_px=32, mpp=1.0, slide_mpp=0.5):
    """Return a grid of this shape, cells of 32 µm, on a slide of 0.5 µm per pixel."""
    side = 32 / slide_mpp
    return TileGrid.over(
        (round(rows * side), round(columns * side)),
        Mpp(slide_mpp, slide_mpp, "a test"),
        mpp=mpp,
        tile_px=stride_px,
        stride_px=stride_px,
    )


def side(values, name="A", head=None, classes=(), **kwargs):
    return Side(Memory(values, **kwargs), name, head, classes)


def noise(rng, rows=12, columns=14, dim=6):
    return rng.normal(size=(rows, columns, dim))


def some_head(rng, dim=6, count=3):
    return Head(
        rng.normal(size=(count, dim)).astype(np.float32),
        rng.normal(size=count).astype(np.float32),
    )


def turned(rng, values, scale):
    """Return the same tissue in a space that is turned, scaled and shifted."""
    dim = values.shape[-1]
    turn, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    return values @ turn * scale + rng.normal(size=dim)


def of(a, b, measure) -> DifferenceMap:
    return difference_map(a, b, measure=measure)


# --- laws ---------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["classes", "neighbours"])
def test_equal_students_do_not_differ_anywhere(rng, measure):
    values, head = noise(rng), some_head(rng)
    found = of(
        side(values, head=head, classes=CLASSES),
        side(values, "B", head=head, classes=CLASSES),
        measure,
    )
    assert (found.values == 0).all()
    assert found.cells == 12 * 14
    assert found.median == 0
    # Nothing stands out, so nothing is ranked.
    assert rank_regions(found, threshold=found.threshold()) == ()


@pytest.mark.parametrize("measure", ["classes", "neighbours"])
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_symmetric_and_between_nought_and_one(measure, seed):
    rng = np.random.default_rng(seed)
    a = side(noise(rng), head=some_head(rng), classes=CLASSES)
    b = side(noise(rng), "B", head=some_head(rng), classes=CLASSES)
    one, other = of(a, b, measure), of(b, a, measure)
    np.testing.assert_allclose(one.values, other.values, atol=1e-6)
    assert 0 <= one.values.min() <= one.values.max() <= 1
    assert one.values.max() > 0


@pytest.mark.parametrize("measure", ["classes", "neighbours", "news"])
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_a_permutation_of_the_cells_permutes_the_map(measure, seed):
    rng = np.random.default_rng(seed)
    heads, a, b = [some_head(rng), some_head(rng)], noise(rng), noise(rng)
    order = rng.permutation(12 * 14)

    def mixed(values):
        return values.reshape(-1, 6)[order].reshape(values.shape)

    def both(first, second):
        one = side(first, head=heads[0], classes=CLASSES)
        return one, side(second, "B", head=heads[1], classes=CLASSES)

    plain = of(*both(a, b), measure)
    moved = of(*both(mixed(a), mixed(b)), measure)
    wanted = plain.values.ravel()[order].reshape(plain.values.shape)
    np.testing.assert_allclose(moved.values, wanted, atol=1e-4)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.05, 20))
def test_a_turned_and_scaled_space_ranks_alike(seed, scale):
    rng = np.random.default_rng(seed)
    values = noise(rng, dim=16).astype(np.float16).astype(float)
    found = of(side(values), side(turned(rng, values, scale), "B"), "neighbours")
    # Stored as float16: at the edge of the nearest, one may change place.
    assert found.median == 0
    assert found.values.max() <= 3 / found.nearest


def test_unrelated_students_share_as_many_neighbours_as_chance_gives(rng):
    a, b = noise(rng, 30, 30, 16), noise(rng, 30, 30, 16)
    found = of(side(a), side(b, "B"), "neighbours")
    assert found.values.mean() == pytest.approx(
        1 - found.nearest / found.anchors, abs=0.02
    )


def test_tissue_that_looks_all_the_same_gives_no_difference_by_chance(rng):
    glass = np.tile(rng.normal(size=6), (12, 14, 1))
    glass[:3] = rng.normal(size=(3, 14, 6))
    found = of(side(glass), side(turned(rng, glass, 2.0), "B"), "neighbours")
    assert found.values[3:].max() < 0.05


def test_classes_are_matched_by_name(rng):
    values, head = noise(rng), some_head(rng)
    order = [2, 0, 1]
    other = Head(head.weight[order], head.bias[order])
    names = tuple(CLASSES[k] for k in order)
    found = of(side(values, head=head, classes=CLASSES),
               side(values, "B", head=other, classes=names), None)  # fmt: skip
    assert found.measure == "classes"
    np.testing.assert_allclose(found.values, 0, atol=1e-6)


def test_classes_differ_by_the_total_variation_distance(rng):
    values, (p, q) = noise(rng), (some_head(rng), some_head(rng))
    found = of(side(values, head=p, classes=CLASSES),
               side(values, "B", head=q, classes=CLASSES), "classes")  # fmt: skip
    stored = values.astype(np.float16).astype(np.float32)
    one, other = p.probabilities(stored), q.probabilities(stored)
    # The largest difference in probability that any set of classes has.
    sets = [[k for k in range(3) if mask >> k & 1] for mask in range(8)]
    largest = np.max(
        [np.abs(one[..., s].sum(-1) - other[..., s].sum(-1)) for s in sets], axis=0
    )
    np.testing.assert_allclose(found.values, largest, atol=1e-5)


def two_sorts(rng, rows=24, columns=24, dim=16):
    """Return tissue of four sorts on a checkerboard of squares, and where each is."""
    sort = (np.arange(rows)[:, None] // 6 + np.arange(columns)[None] // 6) % 4
    centres = rng.normal(size=(4, dim)) * 4
    return centres[sort] + rng.normal(size=(rows, columns, dim)) * 0.3, sort


def test_a_planted_region_that_differs_is_ranked_first(rng):
    values, _ = two_sorts(rng)
    other = turned(rng, values, 0.5)
    # In B a corner of one square looks like another sort of tissue.
    planted = slice(8, 11), slice(14, 17)
    other[planted] = other[20:23, 2:5]
    found = of(side(values), side(other, "B"), "neighbours")
    ranked = rank_regions(found, threshold=found.threshold())
    row, column = found.grid.cell_at(ranked[0].y, ranked[0].x)
    assert 8 <= row < 11
    assert 14 <= column < 17
    inside = np.zeros(found.values.shape, bool)
    inside[planted] = True
    assert found.values[inside].min() > np.quantile(found.values[~inside], 0.95)


def test_the_news_is_what_b_tells_apart_and_a_cannot(rng):
    values, _ = two_sorts(rng)
    secret = np.zeros((24, 24), bool)
    secret[5:12, 3:20] = True
    grown = np.concatenate([values, np.zeros((24, 24, 2))], axis=-1)
    grown[..., -1] = np.where(secret, 4.0, 0.0) + rng.normal(size=(24, 24)) * 0.3
    found = of(side(values), side(turned(rng, grown, 3.0), "B"), "news")
    signed = found.values * found.ends
    assert signed[secret].min() > signed[~secret].max(), "the rarer end is positive"
    assert 0.01 < found.unexplained < 0.5
    assert found.strongest > 0.5
    back = of(side(turned(rng, grown, 3.0)), side(values, "B"), "news")
    assert back.unexplained < found.unexplained / 2, "A has no such news for B"


def test_two_seeds_say_what_is_noise(rng):
    """A partner that taught nothing differs as another seed does; a real one more."""
    values, _ = two_sorts(rng)
    secret = np.zeros((24, 24), bool)
    secret[5:12, 3:20] = True

    def seed(news=0.0):
        own = rng.normal(size=(24, 24, 3))  # what each seed sees for itself
        told = np.where(secret, news, 0.0)[..., None]
        return side(np.concatenate([values, own, told], axis=-1), "B")

    one, other = seed(), seed()
    again, taught = (of(one, b, "news") for b in (seed(), seed(12.0)))
    assert again.is_within_noise is None
    assert "Noise is not measured" in again.summary()
    floor = noise_between(of(one, other, "news"))
    again, taught = replace(again, noise=floor), replace(taught, noise=floor)
    assert again.is_within_noise is True
    assert again.summary().startswith("Within noise.")
    assert taught.is_within_noise is False
    assert taught.summary().startswith("More than noise.")
    # The pair that made people believe in a partner: 4 % beside 3 %.
    assert NoiseFloor(0.03, 900).covers(0.04)
    assert not NoiseFloor(0.03, 900).covers(0.06)
    assert NoiseFloor(0.0, 900).covers(0.004), "both are shown as 0.00"


# --- which cells --------------------------------------------------------------------


def test_only_cells_done_in_both_are_compared(rng):
    values = noise(rng)
    one, other = np.ones((12, 14), np.uint8), np.ones((12, 14), np.uint8)
    one[0], other[:, 0], other[5, 5] = 0, 2, 0
    found = of(side(values, status=one), side(values, "B", status=other), "neighbours")
    compared = (one == 1) & (other == 1)
    np.testing.assert_array_equal(np.isfinite(found.values), compared)
    assert found.cells == compared.sum()
    assert found.either == 13 + 11 + 1
    assert f"{found.cells:,} places" in found.summary()
    assert "only one of the two has seen 25 more" in found.summary()


@pytest.mark.parametrize("mpp", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("stride_px", [16, 10])
def test_cells_of_different_grids_meet_at_the_same_place(mpp, stride_px):
    coarse = square_grid(9, 11)
    fine = TileGrid.over((coarse.slide_height, coarse.slide_width), coarse.slide_mpp,
                         mpp=mpp, tile_px=32, stride_px=stride_px)  # fmt: skip
    a = Memory(np.zeros((*coarse.shape, 3)), grid=coarse)
    b = Memory(np.zeros((*fine.shape, 3)), grid=fine)
    matching = match_cells(b, a)
    assert matching.grid is coarse
    for row, y in enumerate(coarse.centers()[0]):
        for column, x in enumerate(coarse.centers()[1]):
            there = matching.rows[0][row], matching.columns[0][column]
            assert fine.cell_at(y, x) == there
            assert (matching.rows[1][row], matching.columns[1][column]) == (row, column)


def test_grids_of_two_students_compare_the_same_tissue(rng):
    """A map of place, seen on two grids, is the same map."""
    coarse, fine = square_grid(16, 16), square_grid(16, 16, stride_px=16)
    wave = rng.normal(size=(2, 8)) / 300

    def seen(grid):
        y, x = grid.centers()
        places = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
        return np.sin(places @ wave)

    a = side(seen(coarse), grid=coarse)
    same = of(a, side(seen(fine), "B", grid=fine), "neighbours")
    other = of(a, side(seen(fine)[::-1], "B", grid=fine), "neighbours")
    assert same.values.shape == (16, 16)
    assert same.median < other.median / 2


def test_what_cannot_be_matched_is_refused_in_a_sentence(rng):
    values = noise(rng)
    a = Memory(values)
    cases = {
        "two slides": Memory(
            values, provenance=replace(PROVENANCE, slide_digest="00", slide_name="x")
        ),
        "µm per pixel": Memory(values, grid=square_grid(12, 14, slide_mpp=0.25)),
        "cannot be compared": Memory(
            values, provenance=replace(PROVENANCE, mode="tokens")
        ),
        "Both models have seen only": Memory(
            values, status=np.zeros((12, 14), np.uint8)
        ),
    }
    for words, b in cases.items():
        with pytest.raises(InputError, match=words):
            match_cells(a, b)


def test_classes_that_differ_are_refused_and_not_taken_by_default(rng):
    values = noise(rng)
    a = side(values, head=some_head(rng), classes=CLASSES)
    b = side(values, "B", head=some_head(rng, count=2), classes=("one", "two"))
    assert of(a, b, None).measure == "neighbours"
    with pytest.raises(InputError, match="different classes"):
        of(a, b, "classes")
    with pytest.raises(InputError, match="both have classes"):
        of(a, side(values, "C"), "classes")


# --- memory, reports, stores --------------------------------------------------------


class Endless(Memory):
    """100,000 cells that exist only when they are read."""

    def __init__(self, rng, rows, columns, dim, finer=1):
        self.grid = square_grid(rows, columns, stride_px=32 // finer)
        self.status = np.ones(self.grid.shape, np.uint8)
        self.provenance, self.largest, self.read_cells = PROVENANCE, 0, 0
        self._kinds = rng.normal(size=(997, dim)).astype(np.float16)

    def read(self, block=None):
        rows, columns = (np.arange(s.start, s.stop) for s in block)
        self.largest = max(self.largest, len(rows) * len(columns))
        self.read_cells += len(rows) * len(columns)
        return self._kinds[(rows[:, None] * 31 + columns * 7) % 997]


@pytest.mark.parametrize("measure", ["neighbours", "news"])
def test_memory_is_bounded_by_the_block_whatever_the_slide(rng, measure):
    rows, columns, dim, finer = 200, 500, 64, 2
    a, b = Endless(rng, rows, columns, dim), Endless(rng, rows, columns, dim, finer)
    passes = {"neighbours": 2, "news": 3}[measure]
    tracemalloc.start()
    try:
        found = of(Side(a, "A"), Side(b, "B"), measure)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.cells == rows * columns == 100_000
    assert max(a.largest, b.largest) <= BLOCK_CELLS
    assert b.read_cells <= 1.1 * passes * finer**2 * found.cells, "once a pass"
    # Some blocks against all anchors, and some numbers for every cell.
    bound = 6 * 4 * BLOCK_CELLS * ANCHORS + 64 * found.cells
    assert peak < bound
    assert bound < found.cells * ANCHORS, "every cell against all would take 4 times"


def test_reports_count_and_cancel_stops(rng):
    a, b = side(noise(rng, 60, 60)), side(noise(rng, 60, 60), "B")
    reports = list(compare(a, b, measure="neighbours"))
    done = [r.done for r in reports]
    assert done == sorted(done)
    assert done[-1] == reports[-1].total == 2 * 3600
    assert [r.result is None for r in reports[:-1]] == [True] * (len(reports) - 1)
    token = CancelToken()
    running = compare(a, b, measure="neighbours", cancel=token)
    next(running)
    token.cancel()
    with pytest.raises(Cancelled):
        list(running)


def test_stores_of_real_runs_compare(tmp_path, rng):
    slide, student, fresh = array_slide(), colour_student(), colour_student()
    fresh.digest = "d1" * 16
    fresh.head = Head(-student.head.weight, -student.head.bias)
    sides = []
    for k, who in enumerate((student, fresh)):
        path = tmp_path / f"{k}.zarr"
        grid = plan_grid(slide, who)
        list(embed_slide(slide, who, path, grid=grid, tissue=None))
        sides.append(side_of(EmbeddingStore.open(path), who))
    found = difference_map(*sides)
    assert found.measure == "classes"
    assert found.median > 0.9, "the other head says the contrary"
    assert "Class probabilities of colour and colour" in found.summary()
    with pytest.raises(StoreError, match="made by student"):
        side_of(sides[0].cells, fresh)


def test_neighbours_of_a_place_are_other_places_and_the_most_alike(tmp_path, rng):
    filled_store(tmp_path / "s.zarr", rng)
    with EmbeddingStore.open(tmp_path / "s.zarr") as store:
        index = SimilarityIndex.from_store(store)
    here = (100.0, 100.0)
    answer = index.query([here])
    places = nearest_places(answer, count=5)
    cells = [index.grid.cell_at(p.y, p.x) for p in places]
    scores = [answer.values[c] for c in cells]
    assert len(set(cells)) == len(places) == 5
    assert index.grid.cell_at(*here) not in cells
    assert scores == sorted(scores, reverse=True)
    others = np.delete(
        answer.values.ravel(),
        np.ravel_multi_index(index.grid.cell_at(*here), answer.values.shape),
    )
    assert scores[0] == np.sort(others)[-1]
