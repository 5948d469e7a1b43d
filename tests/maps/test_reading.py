"""Processes that read for a run: the same bytes, and nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_histodistill.errors import (
    Cancelled,
    ComputeError,
    InputError,
    SlideError,
)
from napari_histodistill.maps import (
    EmbeddingStore,
    EmbedOptions,
    embed_slide,
    plan_grid,
)
from napari_histodistill.maps.block_reading import PixelWindow, Raster, read_window
from napari_histodistill.maps.reading import choice, processes
from napari_histodistill.maps.reading.choice import BlockReader
from napari_histodistill.maps.reading.processes import ReadingPool
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.opening import open_again
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.students.student import DeviceChoice
from tests.fakes import ColourBackend, array_slide, colour_student
from tests.maps.test_engine import same_bytes, textured
from tests.maps.test_left_to_a_device import student_of
from tests.slides.pyramid.test_damage import damaged_slide
from tests.slides.tissue.test_icc import SWAPPED
from tests.slides.tissue.test_icc import write as write_with_profile

BY_PROCESSES = EmbedOptions(block=4, readers=2, reading="processes")
BY_THREADS = EmbedOptions(block=4, readers=2, reading="threads")
SHARED = Path("/dev/shm")


shared: list[str] = []
"""Names of the memory that the test at hand shared; other tests run beside it."""


def our_memory() -> set[str]:
    return {name for name in shared if (SHARED / name).exists()}


@pytest.fixture
def begun(monkeypatch):
    """Give the processes that were started; none, and no memory, may be left."""
    made = []
    popen, memory = processes.subprocess.Popen, processes.SharedMemory
    shared.clear()

    def noted(*args, **how):
        made.append(popen(*args, **how))
        return made[-1]

    def noted_memory(*args, **how):
        found = memory(*args, **how)
        shared.append(found.name)
        return found

    monkeypatch.setattr(processes.subprocess, "Popen", noted)
    monkeypatch.setattr(processes, "SharedMemory", noted_memory)
    yield made
    assert all(process.poll() is not None for process in made)
    assert not our_memory()
    left = [t.name for t in threading.enumerate() if t.name.startswith("histodistill")]
    assert not left


@pytest.fixture
def file(tmp_path):
    return write_pyramid(tmp_path / "slide.ome.tif", textured(700, 900), mpp=0.37)


def embedded(path, store, options, student=None, mode="tiles"):
    student = student or colour_student(tile_px=16)
    with open_slide(path) as slide:
        grid = plan_grid(slide, student, stride_um=16, mode=mode)
        how = {"grid": grid, "mode": mode, "tissue": None, "options": options}
        reports = list(embed_slide(slide, student, store, **how))
        return reports, slide.unreadable


def after_a_block(steps, action) -> None:
    """Run to the end; do something whenever a block is there."""
    for report in steps:
        if report.block:
            action()


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
@pytest.mark.parametrize("resamples", [False, True], ids=["here", "left to a device"])
def test_a_store_has_the_bytes_that_threads_give(
    tmp_path, begun, file, mode, resamples
):
    student = student_of(resamples=resamples)
    one, _ = embedded(file, tmp_path / "p", BY_PROCESSES, student, mode)
    assert len(begun) == 2
    other, _ = embedded(file, tmp_path / "t", BY_THREADS, student, mode)
    assert len(begun) == 2
    assert same_bytes(tmp_path / "p", tmp_path / "t")
    assert (one[-1].reading, other[-1].reading) == ("processes", "threads")
    assert bool(student.backend.laid) == resamples


def test_colours_and_resolution_are_as_they_were_opened(tmp_path, begun):
    """A profile that swaps colours, and a resolution that was typed."""
    student = colour_student(tile_px=16)
    path = write_with_profile(tmp_path / "swapped.tif", SWAPPED).path
    stores = {}
    for how in (BY_PROCESSES, BY_THREADS):
        for icc in (False, True):
            store = stores[how.reading, icc] = tmp_path / f"{how.reading}-{icc}"
            with open_slide(path, icc=icc, mpp=0.7) as slide:
                list(embed_slide(slide, student, store, tissue=None, options=how))
    assert len(begun) == 4
    for icc in (False, True):
        assert same_bytes(stores["processes", icc], stores["threads", icc])
    assert not same_bytes(stores["processes", False], stores["processes", True])


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
def test_damage_is_reported_as_by_threads(tmp_path, begun, mode):
    path, _ = damaged_slide(tmp_path, 8)
    student = colour_student(tile_px=16, mpp=0.7)
    one, met = embedded(path, tmp_path / "p", BY_PROCESSES, student, mode)
    other, expected = embedded(path, tmp_path / "t", BY_THREADS, student, mode)
    assert same_bytes(tmp_path / "p", tmp_path / "t")
    assert one[-1].unreadable == other[-1].unreadable > 0
    assert one[-1].message == other[-1].message
    assert "row 1, column 2 is damaged" in one[-1].message
    assert met == expected
    assert met


def test_a_window_grows_and_its_memory_with_it(begun, file):
    with open_slide(file) as slide:
        grid = plan_grid(slide, colour_student(tile_px=16))
        pool = ReadingPool(slide, grid, count=1, leave=False)
        pool.begin()
        try:
            for edge in (20, 200, 90, 260):
                window = PixelWindow(-5, 7, edge, edge + 3)
                found = pool.read(window)
                expected = read_window(slide, grid, window, threading.Event())
                np.testing.assert_array_equal(found.pixels, expected.pixels)
                assert found.bad is None
                assert len(our_memory()) <= 1
        finally:
            pool.close()


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")
def test_a_process_that_dies_ends_the_run_in_one_sentence(tmp_path, begun, file):
    with open_slide(file) as slide:
        steps = embed_slide(
            slide,
            colour_student(tile_px=16),
            tmp_path / "s",
            tissue=None,
            options=BY_PROCESSES,
        )
        with pytest.raises(ComputeError) as caught:
            after_a_block(steps, lambda: [process.kill() for process in begun])
    assert str(caught.value) == (
        "slide.ome.tif: a process that reads the slide ended unexpectedly (status -9; "
        "memory may have run out). Finished work is kept; let threads read it "
        "(--reading threads, or the menu beside Run)."
    )
    with EmbeddingStore.open(tmp_path / "s") as store:
        assert (store.status == 1).any()
    embedded(file, tmp_path / "t", BY_THREADS)
    embedded(file, tmp_path / "s", BY_THREADS)
    assert same_bytes(tmp_path / "s", tmp_path / "t")


@pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by signals")
@pytest.mark.parametrize("how", ["cancel", "close"])
def test_a_run_stops_while_processes_hang(tmp_path, begun, file, how):
    """As over a network drive that does not answer."""
    token = CancelToken()
    with open_slide(file) as slide:
        steps = embed_slide(
            slide,
            colour_student(tile_px=16),
            tmp_path / "s",
            tissue=None,
            options=BY_PROCESSES,
            cancel=token,
        )
        for report in steps:
            if report.block:
                break
        for process in begun:
            os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        if how == "cancel":
            token.cancel()
            with pytest.raises(Cancelled):
                list(steps)
        else:
            steps.close()
        assert time.monotonic() - began < 5
    assert len(begun) == 2


def test_a_slide_that_was_closed_stops_the_run(tmp_path, begun, file):
    """Processes have it open still."""
    with open_slide(file) as slide:
        steps = embed_slide(
            slide,
            colour_student(tile_px=16),
            tmp_path / "s",
            tissue=None,
            options=BY_PROCESSES,
        )
        with pytest.raises(SlideError, match="closed"):
            after_a_block(steps, slide.close)


def test_another_file_of_that_name_is_not_read(tmp_path, begun, file):
    with open_slide(file) as slide:
        file.unlink()
        write_pyramid(file, textured(700, 900, seed=1), mpp=0.37)
        with pytest.raises(SlideError, match="has changed since it was opened"):
            list(
                embed_slide(
                    slide,
                    colour_student(tile_px=16),
                    tmp_path / "s",
                    tissue=None,
                    options=BY_PROCESSES,
                )
            )


def test_processes_share_the_cores(begun, file, monkeypatch):
    """Each would otherwise decode by as many threads as there are cores."""
    monkeypatch.setattr(processes, "cores", lambda: 16)
    with open_slide(file) as slide:
        for count, each in ((1, 16), (5, 3), (20, 1)):
            pool = ReadingPool(slide, None, count=count, leave=False)
            assert pool._task.threads == each


def test_too_little_shared_memory_is_said(tmp_path, begun, file, monkeypatch):
    monkeypatch.setattr(processes, "shared_room", lambda: 1000.0)
    with pytest.raises(ComputeError, match="MiB more of shared memory than there is"):
        embedded(file, tmp_path / "s", BY_PROCESSES)


def test_what_no_other_process_can_open_is_refused(tmp_path, begun):
    with pytest.raises(InputError, match="opened from a file of this machine"):
        list(
            embed_slide(
                array_slide(),
                colour_student(),
                tmp_path / "s",
                tissue=None,
                options=BY_PROCESSES,
            )
        )
    assert not begun
    with pytest.raises(InputError, match="'fast' is not one of auto, threads, proc"):
        EmbedOptions(reading="fast")


def test_a_slide_remembers_how_its_pixels_are_opened(file):
    with open_slide(file) as slide:
        other = slide.with_mpp(slide.mpp).with_info(slide.info)
        assert other.opened == slide.opened
        assert slide.opened.path == file
        with open_again(other.opened) as again:
            assert again.info == slide.info
        assert slide.seen_through(lambda source: source).opened is None
        assert slide.with_info(slide.info, slide.source).opened is None
    assert array_slide().opened is None


def test_a_finished_store_starts_no_process(tmp_path, begun, file):
    embedded(file, tmp_path / "s", BY_THREADS)
    embedded(file, tmp_path / "s", BY_PROCESSES)
    assert not begun


# --- auto ----------------------------------------------------------------------------


class Fake:
    """Processes that take as long as they are told."""

    def __init__(self, slide, grid, *, count, leave) -> None:
        self.count, self.calls, self.stopped, self.closed = count, 0, False, False
        self.is_ready, self.error = True, None
        Fake.last = self

    def begin(self) -> None:
        pass

    def read(self, window):
        self.calls += 1
        if self.error is not None:
            raise self.error
        Clock.now += Clock.by_process
        return None if self.stopped else Raster(window, np.zeros((1, 1, 3), np.uint8))

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


class Clock:
    now, by_thread, by_process = 0.0, 1.0, 1.0


WINDOW, NEVER = PixelWindow(0, 0, 10, 10), threading.Event()


@pytest.fixture
def many_cores(monkeypatch, file):
    def read(*_, **__):
        Clock.now += Clock.by_thread
        return Raster(WINDOW, np.ones((2, 2, 3), np.uint8))

    Fake.last = None
    monkeypatch.setattr(choice, "ReadingPool", Fake)
    monkeypatch.setattr(choice, "read_window", read)
    monkeypatch.setattr(choice, "cores", lambda: 16)
    monkeypatch.setattr(choice, "shared_room", lambda: float("inf"))
    monkeypatch.setattr(choice, "time", SimpleNamespace(perf_counter=lambda: Clock.now))
    with open_slide(file) as slide:
        yield slide


def reader_of(slide, **how) -> BlockReader:
    wish = {"reading": "auto", "readers": 4, "blocks": 16, "is_fast": True} | how
    return BlockReader(slide, None, leave=False, **wish)


@pytest.mark.parametrize(
    ("by_process", "kept"), [(0.5, "processes"), (0.9, "threads"), (2.0, "threads")]
)
def test_auto_keeps_what_is_faster_by_a_margin(
    many_cores, monkeypatch, by_process, kept
):
    monkeypatch.setattr(Clock, "by_process", by_process)
    reader = reader_of(many_cores)
    for _ in range(8):
        assert reader.used == "threads"
        assert not reader.take_note()
        reader.read(WINDOW, NEVER)
    assert Fake.last.calls == 4
    assert reader.used == kept
    assert f"{1 / by_process:.1f} × as fast" in reader.take_note()
    assert not reader.take_note()
    found = reader.read(WINDOW, NEVER)
    assert Fake.last.calls == 4 + (kept == "processes")
    assert found.pixels.shape[0] == (1 if kept == "processes" else 2)
    assert Fake.last.stopped == (kept == "threads")
    reader.close()
    assert Fake.last.closed


def test_auto_reads_by_threads_until_processes_are_ready(many_cores):
    reader = reader_of(many_cores)
    Fake.last.is_ready = False
    for _ in range(20):
        reader.read(WINDOW, NEVER)
    assert not Fake.last.calls
    Fake.last.is_ready = True
    for _ in range(5):
        reader.read(WINDOW, NEVER)
    assert Fake.last.calls == 1


def test_threads_are_not_timed_while_processes_start(many_cores, monkeypatch):
    """They share the cores then; nor is a read timed that began at that time."""

    def read(*_, **__):
        Clock.now += 3 if len(reads) < 20 else 1
        reads.append(1)
        Fake.last.is_ready = len(reads) >= 20
        return Raster(WINDOW, np.ones((2, 2, 3), np.uint8))

    reads: list[int] = []
    monkeypatch.setattr(choice, "read_window", read)
    monkeypatch.setattr(Clock, "by_process", 0.9)
    reader = reader_of(many_cores)
    Fake.last.is_ready = False
    for k in range(28):
        assert Fake.last.calls == max(0, k - 24), "threads are timed first, afterwards"
        reader.read(WINDOW, NEVER)
    assert reader.used == "threads"
    assert reader.take_note() == "read by threads; processes were 1.1 × as fast"


def test_auto_goes_on_by_threads_where_processes_fail_and_says_so(many_cores):
    reader = reader_of(many_cores)
    for _ in range(4):
        reader.read(WINDOW, NEVER)
    Fake.last.error = ComputeError("no more memory")
    assert reader.read(WINDOW, NEVER).pixels.shape[0] == 2
    assert reader.used == "threads"
    assert reader.take_note() == (
        "read by threads; processes could not do it: no more memory"
    )
    # Another thread was at it when they failed.
    Fake.last.error = None
    assert reader.read(WINDOW, NEVER).pixels.shape[0] == 2


def test_once_kept_processes_that_fail_are_an_error(many_cores, monkeypatch):
    monkeypatch.setattr(Clock, "by_process", 0.1)
    reader = reader_of(many_cores)
    for _ in range(8):
        reader.read(WINDOW, NEVER)
    Fake.last.error = ComputeError("no more memory")
    with pytest.raises(ComputeError, match="no more memory"):
        reader.read(WINDOW, NEVER)


@pytest.mark.parametrize(
    "why",
    ["few cores", "slow device", "few blocks", "no file", "little memory", "asked"],
)
def test_auto_tries_no_processes_where_they_cannot_help(many_cores, monkeypatch, why):
    slide, how = many_cores, {}
    if why == "few cores":
        monkeypatch.setattr(choice, "cores", lambda: 4)
    elif why == "slow device":
        how["is_fast"] = False
    elif why == "few blocks":
        how["blocks"] = 15
    elif why == "no file":
        slide = array_slide()
    elif why == "little memory":
        monkeypatch.setattr(choice, "shared_room", lambda: 2.0**30)
    else:
        how["reading"] = "threads"
    reader = reader_of(slide, **how)
    for _ in range(20):
        assert reader.read(WINDOW, NEVER).pixels.shape[0] == 2
    assert Fake.last is None
    assert reader.used == "threads"
    reader.close()


def test_here_a_run_on_the_cpu_starts_none(tmp_path, begun, file):
    reports, _ = embedded(file, tmp_path / "s", EmbedOptions(block=2, readers=2))
    assert reports[-1].reading == "threads"
    assert not begun


class SlowBackend(ColourBackend):
    """On a device that is none of the CPU, and never ahead of starting processes."""

    device = DeviceChoice("cuda:0", "CUDA · fake", "a test's encoder")

    def embed(self, tiles):
        time.sleep(0.03)
        return super().embed(tiles)


@pytest.mark.parametrize(("margin", "kept"), [(0, "processes"), (1e9, "threads")])
def test_a_run_goes_over_to_what_was_measured(
    tmp_path, begun, file, monkeypatch, margin, kept
):
    monkeypatch.setattr(choice, "cores", lambda: 16)
    monkeypatch.setattr(choice, "MARGIN", margin)
    student = colour_student(tile_px=16)
    student.backend = SlowBackend()
    options = EmbedOptions(block=2, readers=2)
    reports, _ = embedded(file, tmp_path / "auto", options, student)
    assert len(begun) == 2
    assert reports[0].reading == "threads"
    assert reports[-1].reading == kept
    notes = [r.message for r in reports if "read by" in r.message]
    assert len(notes) == 1
    assert f"read by {'2 processes' if margin == 0 else 'threads'}" in notes[0]
    quick = EmbedOptions(block=2, reading="threads")
    embedded(file, tmp_path / "t", quick, colour_student(tile_px=16))
    assert same_bytes(tmp_path / "auto", tmp_path / "t")
