"""Folders that move, disks that go and come back, windows beside each other, sleep."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

from napari_histodistill.controllers.distil.run import run_to_show
from napari_histodistill.distill.runs import run as run_module
from napari_histodistill.distill.runs.events import read_events
from napari_histodistill.distill.runs.folder import LOCK, start_run
from napari_histodistill.distill.runs.preview import Previews, ask_for_previews
from napari_histodistill.distill.runs.process import RunProcess, look_at
from napari_histodistill.distill.runs.run import train
from napari_histodistill.errors import Cancelled, ComputeError, HistodistillError
from napari_histodistill.lock import WriterLock
from napari_histodistill.maps import EmbeddingStore
from napari_histodistill.running import CancelToken
from tests.distill.small_runs import small_config
from tests.faults.killing import fingerprint
from tests.faults.test_disk import embedded, embedding, here, numbers

__all__ = ["embedded"]

SCHEDULE = {"steps": 8, "checkpoint_every": 2, "report_every": 1}
LONG = {"steps": 4000, "checkpoint_every": 5, "report_every": 1}


def begin(place, folder, schedule=SCHEDULE):
    return start_run(small_config("triplet", schedule=schedule), folder, place.tiles)


def finish(folder):
    list(train(folder, device="cpu"))
    return fingerprint("distill", folder)


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """Return the bytes of an undisturbed run."""
    return finish(begin(place, tmp_path_factory.mktemp("whole") / "run"))


def until(what, seconds=60.0):
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < seconds, "it took too long"
        time.sleep(0.02)


@contextmanager
def away(folder):
    """Let a folder be gone, as a disk that was pulled out."""
    aside = folder.with_name(f"{folder.name} (away)")
    folder.rename(aside)
    try:
        yield
    finally:
        if folder.exists():
            left = [str(p.relative_to(folder)) for p in folder.rglob("*")]
            shutil.rmtree(folder)
            aside.rename(folder)
            pytest.fail(f"written where the disk should be: {left}")
        aside.rename(folder)


# --- folders that move ----------------------------------------------------------------


def test_a_run_that_was_moved_goes_on(place, tmp_path, whole):
    folder = begin(place, tmp_path / "run")
    token = CancelToken()
    with pytest.raises(Cancelled):  # noqa: PT012 - the loop is what raises
        for report in train(folder, device="cpu", cancel=token):
            if report.step == 3:
                token.cancel()
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "another name")
    assert look_at(folder).state == "gone"
    assert "is not there" in look_at(folder).message
    assert look_at(moved).resumable
    assert finish(moved) == whole


def test_tiles_that_were_moved_are_named(place, tmp_path, whole):
    tiles = shutil.copytree(place.tiles, tmp_path / "tiles")
    config = small_config("triplet", schedule=SCHEDULE)
    folder = start_run(config, tmp_path / "run", tiles)
    with away(tiles), pytest.raises(HistodistillError, match="tiles"):
        finish(folder)
    assert read_events(folder)[-1]["kind"] == "failed"
    assert finish(folder) == whole


def test_a_slide_that_was_moved_goes_on(place, tmp_path, embedded):
    first = tmp_path / "slide.ome.tif"
    shutil.copy(place.slide, first)
    out = tmp_path / "out"
    outcome = here("embed", first, *embedding(place, out)[2:])
    assert outcome.code == 0, outcome.err
    (tmp_path / "archive").mkdir()
    moved = first.rename(tmp_path / "archive" / "slide.ome.tif")
    outcome = here("embed", moved, *embedding(place, out)[2:])
    assert outcome.code == 0, outcome.err
    assert numbers(fingerprint("embed", out)) == numbers(embedded)


# --- disks that vanish and come back --------------------------------------------------


def test_a_run_whose_disk_vanishes_goes_on_when_it_is_back(place, tmp_path, whole):
    folder = begin(place, tmp_path / "disk")
    reports = train(folder, device="cpu")
    for report in reports:
        if report.step == 3:
            break
    with away(folder):
        with pytest.raises(ComputeError, match=r"events\.jsonl cannot be written"):
            list(reports)
        assert look_at(folder).state == "gone"
    view = look_at(folder)
    assert view.resumable
    assert finish(folder) == whole


def test_tiles_whose_disk_vanishes_in_mid_run(place, tmp_path, whole):
    """They are in memory by then, or the run ends, with an error of this package."""
    tiles = shutil.copytree(place.tiles, tmp_path / "tiles")
    config = small_config("triplet", schedule=SCHEDULE)
    folder = start_run(config, tmp_path / "run", tiles)
    reports = train(folder, device="cpu")
    for report in reports:
        if report.step == 3:
            break
    with away(tiles), suppress(HistodistillError):
        list(reports)
    assert finish(folder) == whole


def test_a_store_whose_disk_vanishes_goes_on_when_it_is_back(
    place, tmp_path, monkeypatch, embedded
):
    out = tmp_path / "disk"
    blocks = []
    write = EmbeddingStore.write_block

    def vanish(self, *args, **kwargs):
        blocks.append(1)
        if len(blocks) == 2:
            gone.__enter__()
        return write(self, *args, **kwargs)

    gone = away(out)
    monkeypatch.setattr(EmbeddingStore, "write_block", vanish)
    outcome = here(*embedding(place, out))
    monkeypatch.undo()
    gone.__exit__(None, None, None)
    assert outcome.code == 1, outcome.err
    assert "slide.ome.zarr: cannot be written (it is not there" in outcome.sentence
    outcome = here(*embedding(place, out))
    assert outcome.code == 0, outcome.err
    assert numbers(fingerprint("embed", out)) == numbers(embedded)


class Stick:
    """A small disk that can be pulled out, whoever uses it, and put in again."""

    def __init__(self, folder):
        self.inside, self.path = folder / "inside", folder / "stick"
        for place in (self.inside, self.path):
            place.mkdir(parents=True)
        self._do("mount", "-t", "tmpfs", "-o", "size=99m", "tmpfs", self.inside)
        try:
            self.put_in()
        except subprocess.CalledProcessError:
            self._do("umount", self.inside)
            raise

    @staticmethod
    def _do(*command):
        subprocess.run([str(x) for x in command], check=True, capture_output=True)

    def put_in(self):
        self._do("mount", "--bind", self.inside, self.path)

    def pull_out(self):
        assert any(self.path.iterdir())
        self._do("umount", "-l", self.path)
        assert not any(self.path.iterdir())

    def throw_away(self):
        for place in (self.path, self.inside):
            if os.path.ismount(place):
                self._do("umount", "-l", place)


@pytest.fixture
def stick(tmp_path):
    """Return a disk that can be pulled out, where this user may mount one."""
    try:
        made = Stick(tmp_path / "usb")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    yield made
    made.throw_away()


def pulled_out_at(monkeypatch, stick, count):
    """Pull a disk out as so many blocks of a store were written."""
    blocks, write = [], EmbeddingStore.write_block

    def pull(self, *args, **kwargs):
        blocks.append(1)
        if len(blocks) == count:
            stick.pull_out()
        return write(self, *args, **kwargs)

    monkeypatch.setattr(EmbeddingStore, "write_block", pull)


def test_a_store_on_a_disk_that_is_pulled_out(
    place, stick, monkeypatch, embedded, tmp_path
):
    pulled_out_at(monkeypatch, stick, 2)
    outcome = here(*embedding(place, stick.path))
    monkeypatch.undo()
    assert outcome.code == 1, outcome.err
    assert "slide.ome.zarr: cannot be written (it is not there" in outcome.sentence
    assert not any(stick.path.iterdir()), "nothing is written where the disk was"
    stick.put_in()
    outcome = here(*embedding(place, stick.path))
    assert outcome.code == 0, outcome.err
    assert numbers(fingerprint("embed", stick.path)) == numbers(embedded)


def test_a_slide_on_a_disk_that_is_pulled_out(
    place, stick, monkeypatch, embedded, tmp_path
):
    """The system keeps what is open; after that the slide is not there, and said so."""
    slide = stick.path / "slide.ome.tif"
    shutil.copy(place.slide, slide)
    command = ("embed", slide, *embedding(place, tmp_path / "out")[2:])
    pulled_out_at(monkeypatch, stick, 2)
    outcome = here(*command)
    monkeypatch.undo()
    assert outcome.code == 0, outcome.err
    again = here(*command)
    assert again.code == 2
    assert "slide.ome.tif: there is no such file" in again.sentence
    stick.put_in()
    assert here(*command).code == 0
    assert numbers(fingerprint("embed", tmp_path / "out")) == numbers(embedded)


WRITES = {
    "an event": (run_module, "append_event", 5),
    "a checkpoint": (run_module._Run, "_save", 2),
    "a preview": (Previews, "write", 1),
    "the student": (run_module._Run, "_finish", 1),
}
"""What a training writes; and before which of them the disk is pulled out."""


@pytest.mark.parametrize("first", WRITES)
def test_a_training_on_a_disk_that_is_pulled_out(
    place, stick, whole, first, monkeypatch
):
    folder = begin(place, stick.path / "run")
    if first == "a preview":
        ask_for_previews(folder, 2)
    where, name, count = WRITES[first]
    write, calls = getattr(where, name), []

    def pull(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            stick.pull_out()
        return write(*args, **kwargs)

    monkeypatch.setattr(where, name, pull)
    with pytest.raises(ComputeError, match=r"cannot be written"):
        finish(folder)
    monkeypatch.undo()
    assert look_at(folder).state == "gone"
    assert not any(stick.path.iterdir()), "nothing is written where the disk was"
    stick.put_in()
    assert look_at(folder).resumable
    assert finish(folder) == whole


# --- two windows, and clocks ----------------------------------------------------------


def test_a_training_that_works_is_found_whatever_the_clock_said(place, tmp_path):
    runs = tmp_path / "runs"
    works, old = begin(place, runs / "works"), begin(place, runs / "old")
    future = time.time() + 86400
    os.utime(old, (future, future))  # made before the clock was set back
    lock = WriterLock(works / LOCK)
    try:
        assert run_to_show(runs).folder == works
    finally:
        lock.release()
    assert run_to_show(runs).folder == old


# --- sleep ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("forked_trainings")
def test_a_training_that_sleeps_goes_on(place, tmp_path, whole):
    folder = begin(place, tmp_path / "run")
    run = RunProcess(folder)
    run.start(device="cpu", threads=1)
    until(lambda: run.view().step >= 1 or not run.view().works)
    run._process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    assert run.view().state in {"running", "finished"}, "asleep, it still holds its run"
    run._process.send_signal(signal.SIGCONT)
    assert run.wait(60)
    assert run.view().state == "finished"
    assert fingerprint("distill", folder) == whole


@pytest.mark.slow
@pytest.mark.usefixtures("forked_trainings")
def test_a_stop_that_was_asked_for_during_sleep_is_obeyed(place, tmp_path):
    run = RunProcess(begin(place, tmp_path / "run", LONG))
    run.start(device="cpu", threads=1)
    until(lambda: run.view().step >= 1)
    run._process.send_signal(signal.SIGSTOP)
    run.stop()
    time.sleep(0.5)
    assert run.view().stopping
    run._process.send_signal(signal.SIGCONT)
    assert run.wait(60)
    assert run.view().state == "stopped"
