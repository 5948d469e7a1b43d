"""Estimates: squares that are counted, seconds from this machine's own last run."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.controllers.shared import estimating
from napari_histodistill.controllers.shared.estimating import (
    Pace,
    RunEstimate,
    Stopwatch,
    computed_with,
    pace_path,
    read_pace,
    tiles_worth,
)
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.geometry import Region
from tests.controllers.driving import open_session, run
from tests.fakes import colour_student


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(estimating.time, "perf_counter", lambda: now[0])
    return now


def timed(session, clock, seconds=10.0):
    """Let a run of a session's plan take so long; return its watch."""
    plan = session.plan()
    watch = Stopwatch(plan, session.student)
    rows = plan.grid.shape[0] // 4 * 4
    wanted = plan.wanted_cells().astype(np.uint8)
    clock[0] += 2.0  # the slide is opened, the first batch is waited for
    for row in range(0, rows, 4):
        block = slice(row, row + 4), slice(0, plan.grid.shape[1])
        clock[0] += seconds * 4 / rows
        watch.saw(block, wanted[block])
    return watch


def test_before_the_tissue_is_found_there_is_only_a_limit():
    session = open_session(tissue=False)
    assert not session.estimate.is_counted
    assert " at most " in session.detail_in_words


def test_a_timed_run_is_what_the_next_one_is_estimated_by(clock):
    session = open_session()
    session.choose_student(session.student, tiles_per_s=1.0)
    guess = session.estimate
    assert not guess.is_timed
    assert guess.time_in_words().startswith("about ")
    watch = timed(session, clock)
    watch.keep()
    session.run_ended()
    known = session.estimate
    assert known.is_timed
    assert known.seconds == pytest.approx(12, rel=0.1)
    assert known.in_words() == f"{known.squares} squares · {known.seconds:.0f} s"
    session.choose_step(0)
    assert not session.estimate.is_timed, "another detail has another speed"


def test_another_detail_is_estimated_by_the_tiles_of_the_last_run(clock):
    session = open_session()
    # Blank tiles, of which the guess is made, are computed ten times as fast.
    session.choose_student(session.student, tiles_per_s=1000.0)
    watch = timed(session, clock)
    watch.keep()
    session.run_ended()
    first, pace = session.step, watch.pace
    for step in range(len(session.steps)):
        session.choose_step(step)
        known = session.estimate
        assert known.seconds == pytest.approx(pace.seconds(known.missing))
        assert known.is_timed == (step == first)
        assert known.time_in_words().startswith("about ") == (step != first)
    # Another student, or tokens, are others.
    other = colour_student()
    other.digest = "d1" * 16
    session.choose_student(other, tiles_per_s=1000.0)
    assert session.estimate.seconds == session.estimate.missing / 1000
    tokens = replace(session.plan(), mode="tokens")
    assert pace_path(tokens, session.student, any_detail=True) is None


def test_a_run_that_was_too_short_says_nothing(clock):
    session = open_session()
    watch = timed(session, clock, seconds=0.5)
    assert watch.pace is None
    watch.keep()
    assert read_pace(pace_path(session.plan(), session.student)) is None


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{", "null", '{"tiles_per_s": 0, "start_s": 0}', "[" * 3000,
        '{"tiles_per_s": "x"}', '{"tiles_per_s": NaN, "start_s": 0}',
        '{"tiles_per_s": 5, "start_s": -1}',
    ],
)  # fmt: skip
def test_a_damaged_pace_is_ignored(content):
    session = open_session()
    path = pace_path(session.plan(), session.student)
    path.write_text(content)
    assert read_pace(path) is None
    assert session.estimate.seconds is None


def test_blocks_are_computed_whole_and_windows_of_tokens_too():
    session = open_session()
    plan = session.plan()
    missing = np.zeros(plan.grid.shape, bool)
    missing[1, 1] = missing[5, 6] = True
    needed = np.zeros_like(missing)
    needed[:8, :8] = True
    assert computed_with(missing, needed, 4).sum() == 32
    assert tiles_worth(missing, 4, plan) == 2
    tokens = replace(plan, mode="tokens")
    one = np.zeros_like(missing)
    one[1, 1] = True
    worth = tiles_worth(one, 4, tokens)
    stride = plan.grid.stride_px / plan.grid.tile_px
    assert worth == pytest.approx((4 * stride + 1 - stride + 1) ** 2)
    assert tiles_worth(needed, 4, tokens) == 4 * worth, "four windows are touched"


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
def test_as_many_squares_are_computed_as_were_estimated(mode):
    session = open_session()
    session.choose_mode(mode)
    whole = session.estimate
    assert whole.is_counted
    session.choose_region(RegionChoice.VIEW)
    session.look_at(Region(y=150, x=200, height=130, width=170))
    part = session.estimate
    assert 0 < part.squares == part.missing < whole.squares
    run(session)
    assert session.live.cells_done == part.squares
    assert session.estimate.missing == 0
    session.choose_region(RegionChoice.WHOLE)
    rest = session.estimate
    assert rest.squares == whole.squares
    assert rest.missing == whole.squares - session.live.cells_done
    run(session)
    assert session.live.cells_done == whole.squares


def test_what_is_left_is_said_of_a_map_that_is_there():
    def words(missing, seconds=8.0, **known):
        return RunEstimate(
            squares=1200,
            missing=missing,
            seconds=seconds,
            **{"is_counted": True, "is_timed": True} | known,
        ).in_words()

    assert words(1200) == "1,200 squares · 8 s"
    assert words(1200, is_timed=False) == "1,200 squares · about 8 s"
    assert words(1200, None) == "1,200 squares"
    assert words(300) == "300 of 1,200 squares to do · 8 s"
    assert words(0) == "1,200 squares, all computed"
    assert words(1200, is_counted=False) == "at most 1,200 squares"


def test_a_run_keeps_its_pace(monkeypatch):
    monkeypatch.setattr(estimating, "_ENOUGH_S", 0.0)
    session = open_session()
    run(session)
    pace = read_pace(pace_path(session.plan(), session.student))
    assert isinstance(pace, Pace)
    assert pace.tiles_per_s > 0
    began = time.perf_counter()
    run(session, restart=True)
    spent = time.perf_counter() - began
    assert pace.seconds(session.live.cells_done) < 20 * spent
