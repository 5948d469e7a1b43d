"""Slides of painted tissue are judged; what is said of them is kept."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from napari_histodistill.errors import Cancelled, InputError, SlideError
from napari_histodistill.geometry import Mpp
from napari_histodistill.maps import (
    EmbeddingStore,
    class_map,
    embed_slide,
    plan_grid,
    remove_store,
)
from napari_histodistill.maps import trust as judging
from napari_histodistill.maps.trust import judge_slide, keep_trust, slide_trust
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.students.spec import Training
from napari_histodistill.students.trust import NO_REFERENCE, TAUGHT, Oddity, Verdict
from tests.fakes import colour_student
from tests.weaves import TILE, reference, woven

FILE = "trust.json"


def student():
    found = colour_student(tile_px=TILE)
    found.trust = reference()
    return found


def slide_of(image: np.ndarray, *, mpp: float = 1.0):
    return slide_from_arrays([image], name="woven", mpp=Mpp(mpp, mpp, "a test"))


OWN = woven("spots", 8 * TILE, 10 * TILE, case=500)
OTHER = woven("stripes", 4 * TILE, 5 * TILE, case=501)
HALVES = np.concatenate(
    [woven("spots", 8 * TILE, 5 * TILE, case=502),
     woven("stripes", 8 * TILE, 5 * TILE, case=503)], axis=1
)  # fmt: skip


def judged(image: np.ndarray, *, mode="tiles", stride_um=None, **options):
    slide, who = slide_of(image), student()
    grid = plan_grid(slide, who, mode=mode, stride_um=stride_um)
    return judge_slide(slide, who, np.ones(grid.shape, np.bool_), grid, **options)


def test_own_tissue_is_like_and_other_tissue_unlike():
    like, unlike = judged(OWN), judged(OTHER)
    assert (like.verdict, like.squares) == (Verdict.LIKE, 80)
    assert like.unlike_share < 0.1
    assert (unlike.verdict, unlike.squares) == (Verdict.UNLIKE, 20)
    assert unlike.unlike_share > 0.9
    assert unlike.oddities == (Oddity.TISSUE,)


def test_tokens_are_judged_by_the_same_tiles():
    tiles, tokens = judged(OTHER), judged(OTHER, mode="tokens")
    assert tokens.verdict is tiles.verdict is Verdict.UNLIKE
    np.testing.assert_array_equal(tokens.cells, tiles.cells)
    np.testing.assert_array_equal(tokens.unlike, tiles.unlike)
    # Finer squares share tissue: they do not count as more of it.
    fine = judged(OTHER, mode="tokens", stride_um=16)
    assert fine.verdict is Verdict.UNLIKE
    assert fine.squares == 20


def test_a_sample_is_spread_and_the_same_every_time():
    image = woven("spots", 30 * TILE, 30 * TILE, case=504)
    first, again = (judged(image, squares=36) for _ in range(2))
    assert first.squares == 36
    np.testing.assert_array_equal(first.cells, again.cells)
    # A ninth of the slide holds four squares of 36: none is left out.
    ninths, counts = np.unique(first.cells // 10, axis=0, return_counts=True)
    assert len(ninths) == 9
    assert counts.max() <= 8
    other = judged(image, squares=36, seed=1)
    assert set(map(tuple, other.cells)) != set(map(tuple, first.cells))
    assert not first.every


def test_glass_is_not_judged():
    image = np.full((8 * TILE, 10 * TILE, 3), 245, np.uint8)
    assert judged(image).oddities == (Oddity.FEW_SQUARES,)
    assert judged(image).unlike_share is None
    image[: 4 * TILE, : 5 * TILE] = OTHER
    found = judged(image)
    assert (found.verdict, found.squares) == (Verdict.UNLIKE, 20)
    assert found.cells.max(axis=0).tolist() == [3, 4]


def test_a_part_of_a_slide_is_not_called_like_by_few_squares():
    """All of a small slide is enough; the first squares of a large one are not."""
    small, slide, who = OWN[: 4 * TILE, : 6 * TILE], slide_of(OWN), student()
    assert (judged(small).verdict, judged(small).squares) == (Verdict.LIKE, 24)
    grid = plan_grid(slide, who)
    cells = np.zeros(grid.shape, np.bool_)
    cells[:4, :6] = True
    for squares in (300, None):
        found = judge_slide(slide, who, cells, grid, squares=squares)
        assert found.squares == 24
        assert found.oddities == (Oddity.FEW_SQUARES,)


@pytest.mark.parametrize("squares", [300, None])
def test_a_line_of_a_pen_on_glass_is_named(squares):
    image = np.full((8 * TILE, 10 * TILE, 3), 245, np.uint8)
    image[TILE : 5 * TILE, : 8 * TILE] = OWN[: 4 * TILE, : 8 * TILE]
    assert Oddity.INK not in judged(image, squares=squares).oddities
    image[6 * TILE + 20 : 6 * TILE + 44] = (30, 40, 140)
    found = judged(image, squares=squares)
    assert Oddity.INK in found.oddities
    assert any("blue ink" in reason for reason in found.reasons)
    assert found.verdict is Verdict.TOO_LITTLE
    # Nothing but ink: no square shows tissue.
    image[: 6 * TILE] = 245
    assert Oddity.INK in judged(image, squares=squares).oddities


@pytest.mark.parametrize("squares", [300, None])
def test_pen_that_was_left_out_is_named_where_little_was_seen(squares):
    """A person should know why so little was seen."""
    image = np.full((8 * TILE, 10 * TILE, 3), 245, np.uint8)
    image[TILE : 3 * TILE, : 3 * TILE] = OWN[: 2 * TILE, : 3 * TILE]
    slide, who = slide_of(image), student()
    grid = plan_grid(slide, who)
    cells = np.zeros(grid.shape, np.bool_)
    cells[1:3, :3] = True
    found = judge_slide(slide, who, cells, grid, squares=squares)
    assert found.oddities == (Oddity.FEW_SQUARES,)
    image[4 * TILE : 6 * TILE] = (30, 60, 200)
    slide = slide_of(image)
    found = judge_slide(slide, who, cells, grid, squares=squares)
    assert found.verdict is Verdict.TOO_LITTLE
    assert found.oddities == (Oddity.FEW_SQUARES, Oddity.INK)
    area = re.search(r"Pen was found on ([\d.]+) mm² \((\d+)%", found.reasons[1])
    assert float(area[1]) == pytest.approx(20 * (TILE / 1e3) ** 2, rel=0.2)
    assert int(area[2]) == pytest.approx(20 / 26 * 100, abs=10)
    everything = np.ones(grid.shape, np.bool_)  # then nothing was left out
    found = judge_slide(slide, who, everything, grid, squares=squares)
    assert not any("left out" in reason for reason in found.reasons)


def test_every_square_is_judged_where_it_is_asked_for():
    found = judged(HALVES, squares=None)
    assert found.every
    assert found.squares == 80
    right = found.cells[:, 1] >= 5
    assert found.unlike[right].mean() > 0.9
    assert found.unlike[~right].mean() < 0.1
    # All finer squares too, but they do not count as more tissue.
    assert judged(OTHER, squares=None, stride_um=32).squares == 80


def test_few_squares_and_no_reference():
    assert judged(OWN[: 2 * TILE, : 4 * TILE]).verdict is Verdict.TOO_LITTLE
    slide, who = slide_of(OWN), colour_student(tile_px=TILE)
    grid = plan_grid(slide, who)
    cells = np.ones(grid.shape, np.bool_)
    found = judge_slide(slide, who, cells, grid)
    assert found.oddities == (Oddity.NO_REFERENCE,)
    assert found.reasons == (NO_REFERENCE,)
    taught = Training(data="", licence="", attribution="", strokes=True)
    who.spec = who.spec.model_copy(update={"training": taught})
    assert judge_slide(slide, who, cells, grid).reasons == (TAUGHT,)


def test_a_coarse_slide_is_named():
    slide, who = slide_of(OWN, mpp=2.0), student()
    grid = plan_grid(slide, who)
    found = judge_slide(slide, who, np.ones(grid.shape, np.bool_), grid)
    assert Oddity.SCALE in found.oddities
    assert found.verdict is not Verdict.LIKE


def test_squares_that_cannot_be_read_are_left_out(monkeypatch):
    slide, who = slide_of(OTHER), student()
    grid = plan_grid(slide, who)
    read = judging.read_window

    def holed(slide, grid, window, stop):
        raster = read(slide, grid, window, stop)
        bad = np.full(raster.pixels.shape[:2], window.x < TILE)
        return dataclasses.replace(raster, bad=bad)

    monkeypatch.setattr(judging, "read_window", holed)
    found = judge_slide(slide, who, np.ones(grid.shape, np.bool_), grid)
    assert found.squares == 16
    assert (found.cells[:, 1] > 0).all()


def test_a_closed_slide_is_an_error_not_a_verdict(monkeypatch):
    def gone(*_args):
        raise SlideError("gone.")

    monkeypatch.setattr(judging, "read_window", gone)
    with pytest.raises(SlideError, match="gone"):
        judged(OTHER)


def test_judging_can_be_stopped_and_followed():
    token, steps = CancelToken(), []

    def progress(done, total):
        steps.append((done, total))
        if done >= 16:
            token.cancel()

    with pytest.raises(Cancelled):
        judged(OWN, cancel=token, progress=progress)
    assert steps == [(8, 80), (16, 80)]


# --- kept in the store, and on the map ----------------------------------------------


@pytest.fixture
def mapped(tmp_path):
    """A store of a slide that is half own tissue and half another."""
    slide, who = slide_of(HALVES), student()
    for _ in embed_slide(slide, who, tmp_path / "s", tissue=None):
        pass
    return slide, who, tmp_path / "s"


def test_a_verdict_is_shown_again_without_the_slide(mapped, monkeypatch):
    slide, who, path = mapped
    assert class_map(path, who).trust is None
    found = slide_trust(path, slide, who)
    monkeypatch.setattr(judging, "judge_slide", None)
    kept = slide_trust(path, slide, who)
    shown = class_map(path, who).trust
    for other in (kept, shown):
        for field in dataclasses.fields(found):
            was, now = (getattr(one, field.name) for one in (found, other))
            np.testing.assert_array_equal(was, now)


def test_a_verdict_is_of_these_squares_and_this_student(mapped):
    slide, who, path = mapped
    slide_trust(path, slide, who)
    fewer = np.ones(plan_grid(slide, who).shape, np.bool_)
    fewer[0] = False
    assert class_map(path, who).trust is not None
    assert class_map(path, who, cells=fewer).trust is None
    assert (slide_trust(path, slide, who, cells=fewer).cells[:, 0] > 0).all()
    with EmbeddingStore.open(path) as store:
        other = student()
        other.digest = "e2" * 16
        assert judging.kept_trust(store, other, fewer) is None


DAMAGES = (
    lambda _: "",
    lambda _: "{",
    lambda _: "[1]",
    lambda text: text.replace('"unlike_share": ', '"unlike_share": "'),
    lambda text: json.dumps(json.loads(text) | {"verdict": "fine"}),
    lambda text: json.dumps(json.loads(text) | {"cells": "AAAA"}),
    lambda text: json.dumps(json.loads(text) | {"cells": 3}),
    lambda text: json.dumps(json.loads(text) | {"oddities": None}),
    lambda text: json.dumps(json.loads(text) | {"reasons": "x" * 2**25}),
    lambda _: "[" * 100_000,
)


def test_a_damaged_verdict_is_found_again(mapped):
    slide, who, path = mapped
    found = slide_trust(path, slide, who)
    text = (path / FILE).read_text("utf-8")
    for damage in DAMAGES:
        (path / FILE).write_text(damage(text), "utf-8")
        assert class_map(path, who).trust is None
    assert slide_trust(path, slide, who).verdict is found.verdict
    assert class_map(path, who).trust is not None
    (path / FILE).unlink()
    (path / FILE).mkdir()
    assert class_map(path, who).trust is None


def test_a_store_in_use_keeps_nothing(mapped):
    slide, who, path = mapped
    cells = np.ones(plan_grid(slide, who).shape, np.bool_)
    found = judge_slide(slide, who, cells, plan_grid(slide, who))
    with EmbeddingStore.open(path, writable=True):
        assert not keep_trust(path, who, cells, found)
    assert not (path / FILE).exists()
    assert keep_trust(path, who, cells, found)
    remove_store(path)
    assert not path.exists()


def test_unlike_squares_are_counted_and_can_be_left_out(mapped):
    slide, who, path = mapped
    sampled = dataclasses.replace(class_map(path, who), trust=judged(HALVES))
    assert sampled.areas()[0].like_mm2 is None
    with pytest.raises(InputError, match="Not every square"):
        sampled.like_only()
    with pytest.raises(InputError, match="Not every square"):
        class_map(path, who).like_only()
    slide_trust(path, slide, who, every=True)
    found = class_map(path, who)
    everything, like = found.areas(), found.like_only().areas()
    trust = found.trust
    assert sum(a.judged for a in everything) == 80
    assert sum(a.unlike for a in everything) == trust.unlike.sum() > 30
    assert sum(a.cells for a in like) == 80 - trust.unlike.sum()
    for before, after in zip(everything, like, strict=True):
        assert before.mm2 == before.all_mm2 == after.all_mm2
        assert before.like_mm2 == after.mm2 == after.like_mm2
        assert after.unlike == 0
    rows, columns = trust.cells[trust.unlike].T
    assert not found.like_only().labels[rows, columns].any()
    # A verdict of every square serves where a sample was asked for.
    assert slide_trust(path, slide, who).every
