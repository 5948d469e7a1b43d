"""Blocks in flight: none waits for another, and what was computed is stored."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from napari_histodistill.errors import Cancelled, DiskError
from napari_histodistill.maps import EmbeddingStore, EmbedOptions, embed_slide
from napari_histodistill.running import CancelToken
from napari_histodistill.slides.pyramid.resample import read_resampled
from tests.fakes import array_slide, colour_student

READ = "napari_histodistill.maps.block_reading.read_resampled"
OPTIONS = EmbedOptions(block=4, readers=2)


def corners_of(reports) -> list[tuple[int, int]]:
    return [(r.block[0].start, r.block[1].start) for r in reports if r.block]


def wait_for_squares(path, wanted):
    """Return once so many squares are stored."""
    before, stored = time.monotonic(), 0
    while stored < wanted:
        assert time.monotonic() - before < 10, "nothing is written meanwhile"
        time.sleep(0.01)
        with EmbeddingStore.open(path) as store:
            stored = int(np.count_nonzero(store.status))


def test_a_block_that_is_slow_to_read_holds_up_no_other(tmp_path, monkeypatch):
    others = threading.Event()

    def slow(slide, region, *, height, width):
        if region.y <= 0 and region.x <= 0:
            others.wait(5)
        return read_resampled(slide, region, height=height, width=width)

    monkeypatch.setattr(READ, slow)
    steps = embed_slide(
        array_slide(), colour_student(), tmp_path / "s", tissue=None, options=OPTIONS
    )
    met = []
    for report in steps:
        met.append(report)
        if len(corners_of(met)) == 2:
            others.set()
    corners = corners_of(met)
    assert len(corners) == len(set(corners)) > 4
    assert corners.index((0, 0)) >= 2
    assert met[-1].done == met[-1].total


def test_blocks_are_written_while_the_caller_does_something_else(tmp_path):
    steps = embed_slide(
        array_slide(), colour_student(), tmp_path / "s", tissue=None, options=OPTIONS
    )
    for report in steps:
        if report.block:
            break
    wait_for_squares(tmp_path / "s", 2 * 16)  # the reported block, and another
    steps.close()


def test_a_cancelled_run_has_told_of_all_that_it_stored(tmp_path):
    cancel, told = CancelToken(), []

    def cancelled_while_more_is_stored():
        for report in embed_slide(
            array_slide(),
            colour_student(),
            tmp_path / "s",
            tissue=None,
            options=OPTIONS,
            cancel=cancel,
        ):
            told.append(report)
            if len(corners_of(told)) == 1 and not cancel.cancelled:
                wait_for_squares(tmp_path / "s", 2 * 16)
                cancel.cancel()

    with pytest.raises(Cancelled):
        cancelled_while_more_is_stored()
    with EmbeddingStore.open(tmp_path / "s") as store:
        assert told[-1].done == np.count_nonzero(store.status) > 16
    assert len(corners_of(told)) == len(set(corners_of(told)))


def test_a_disk_that_refuses_ends_the_run(tmp_path, monkeypatch):
    write, calls = EmbeddingStore.write_block, []

    def refuse(self, *block):
        calls.append(threading.current_thread())
        if len(calls) > 1:
            msg = "no space left"
            raise DiskError(msg)
        write(self, *block)

    monkeypatch.setattr(EmbeddingStore, "write_block", refuse)
    with pytest.raises(DiskError, match="no space left"):
        list(
            embed_slide(
                array_slide(),
                colour_student(),
                tmp_path / "s",
                tissue=None,
                options=OPTIONS,
            )
        )
    assert threading.current_thread() not in calls, "the caller writes nothing"
    assert len(set(calls)) == 1
    with EmbeddingStore.open(tmp_path / "s") as store:
        assert np.count_nonzero(store.status)
