"""Painting what a student makes of the view: where, in which colours, how quietly."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import napari_histodistill.controllers.distil.preview as looking_on
from napari_histodistill.controllers.distil.preview import (
    MOST_CELLS,
    Colouring,
    Sight,
    as_colors,
    grid_in_view,
    likeness_to,
    part_of,
    preview_work,
    three_directions,
)
from napari_histodistill.errors import BundleError, Cancelled
from napari_histodistill.geometry import Region
from napari_histodistill.running import CancelToken
from tests.fakes import array_slide, colour_student

WHOLE = Region(y=0, x=0, height=600, width=800)


@pytest.fixture
def slide():
    return array_slide()


@pytest.fixture
def student(monkeypatch):
    made = colour_student(tile_px=32, mpp=0.5, with_head=False)
    monkeypatch.setattr(looking_on, "load_spec", lambda _bundle: made.spec)
    return made


def painted(
    slide, student, colouring=Colouring.ALIKE, region=WHOLE, before=None, token=None
):
    def embed(bundle, tiles, _cancel):
        assert bundle == "bundle"
        return student.embed(tiles)

    work = preview_work(slide, Sight("bundle", region, colouring), before, embed)
    (found,) = in_a_thread(work, token or CancelToken())
    return found


def in_a_thread(work, token):
    """Work as in the window: the thread steps back for good, and ends."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: list(work(token))).result(60)


@pytest.mark.parametrize("region", [WHOLE, Region(y=100, x=100, height=200, width=300)])
def test_cells_are_few_and_cover_the_view(slide, student, region):
    grid, rows, columns = grid_in_view(student.spec, slide, region)
    count = (rows.stop - rows.start) * (columns.stop - columns.start)
    assert 40 < count < 2 * MOST_CELLS
    first = grid.cell_region(rows.start, columns.start)
    last = grid.cell_region(rows.stop - 1, columns.stop - 1)
    assert first.y <= region.y
    assert first.x <= region.x
    assert last.bottom >= region.bottom
    assert last.right >= region.right


def test_moving_the_view_a_little_moves_no_cell(slide, student):
    here, _, _ = grid_in_view(student.spec, slide, WHOLE)
    moved = Region(y=7, x=9, height=590, width=790)
    assert grid_in_view(student.spec, slide, moved)[0] == here


def test_a_part_lies_where_it_lay_in_the_whole(slide, student):
    grid, rows, columns = grid_in_view(
        student.spec, slide, Region(y=200, x=300, height=200, width=200)
    )
    world = part_of(grid.world(), rows.start, columns.start)
    y, x = grid.centers()
    mpp = grid.slide_mpp
    np.testing.assert_allclose(world.translate[0], (y[rows.start] - 0.5) * mpp.y)
    np.testing.assert_allclose(world.translate[1], (x[columns.start] - 0.5) * mpp.x)


def test_glass_is_transparent_and_alike_places_share_a_colour(slide, student):
    found = painted(slide, student)
    assert found.pixels.dtype == np.uint8
    shown = found.pixels[..., 3] > 0
    assert 0.2 < shown.mean() < 0.8
    assert not found.pixels[0, 0, 3], "the corner is glass"
    # Two glands, far apart, get one colour; stroma another.
    grid, _, _ = grid_in_view(student.spec, slide, WHOLE)

    def color(y, x):
        return found.pixels[grid.cell_at(y, x)].astype(int)

    gland, other, stroma = color(210, 240), color(210, 520), color(480, 120)
    assert np.abs(gland - other).max() < 12
    assert np.abs(gland - stroma).max() > 60


def test_likeness_is_to_the_middle_of_the_view(slide, student):
    gland = Region(y=110, x=140, height=200, width=200)
    found = painted(slide, student, Colouring.CENTRE, gland)
    middle = found.pixels[found.pixels.shape[0] // 2, found.pixels.shape[1] // 2]
    assert tuple(middle[:3]) == (253, 231, 37), "viridis' yellow: itself"
    assert found.scores.shape[1] == 0


def test_colours_keep_their_meaning_from_one_student_to_the_next(rng):
    cells = rng.normal(size=(80, 5)) * [5, 3, 2, 0.1, 0.1]
    first = three_directions(cells.astype(np.float32), None)
    # The next student turned and mirrored its space, and learned a little.
    turned = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    later = (cells @ turned + rng.normal(0, 0.05, cells.shape)).astype(np.float32)
    alone, told = three_directions(later, None), three_directions(later, first)
    away = np.abs(as_colors(told).astype(int) - as_colors(first)).mean()
    assert away < 6
    assert away <= np.abs(as_colors(alone).astype(int) - as_colors(first)).mean()
    # Another view has other cells: nothing to resemble.
    assert np.isfinite(three_directions(later[:30], first)).all()


@pytest.mark.parametrize("count", [1, 2])
def test_very_few_cells_have_colours_too(count):
    scores = three_directions(np.ones((count, 4), np.float32), None)
    assert as_colors(scores).shape == (count, 3)
    assert likeness_to(np.ones((count, 4), np.float32), 0).shape == (count, 3)


def test_a_view_of_glass_alone_is_empty(student):
    slide = array_slide(np.full((600, 800, 3), 245, np.uint8))
    for colouring in Colouring:
        assert not painted(slide, student, colouring).pixels.any()


def test_tissue_is_found_once(slide, student, monkeypatch):
    first = painted(slide, student)

    def never(*_args):
        pytest.fail("tissue was looked for again")

    monkeypatch.setattr(looking_on, "find_tissue", never)
    assert painted(slide, student, before=first).tissue is first.tissue


def test_it_stops_between_batches(slide, student):
    token = CancelToken()
    seen = []
    embed = student.backend.embed

    def once(tiles):
        seen.append(len(tiles))
        token.cancel()
        return embed(tiles)

    student.backend.embed = once
    with pytest.raises(Cancelled):
        painted(slide, student, token=token)
    assert len(seen) == 1


def test_a_bundle_that_is_gone_fails_in_words(slide, tmp_path):
    work = preview_work(
        slide, Sight(tmp_path / "x", WHOLE, Colouring.ALIKE), None, None
    )
    with pytest.raises(BundleError, match="there is no student"):
        in_a_thread(work, CancelToken())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have ranks on Linux only")
def test_its_thread_has_a_low_rank_and_leaves_others_alone(slide, student):
    rank = os.getpriority(os.PRIO_PROCESS, 0)
    seen = []
    embed = student.backend.embed

    def look(tiles):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return embed(tiles)

    student.backend.embed = look
    painted(slide, student)
    assert set(seen) == {max(rank, 10)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == rank
