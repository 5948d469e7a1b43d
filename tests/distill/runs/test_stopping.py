"""A stop is obeyed from the first moment of a training on, in steps of .1 s."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from napari_histodistill.distill.runs import process as process_module
from napari_histodistill.distill.runs import run as run_module
from napari_histodistill.distill.runs.events import read_events
from napari_histodistill.distill.runs.folder import (
    LOCK,
    PAUSE,
    STOP,
    STUDENT,
    start_run,
)
from napari_histodistill.distill.runs.process import RunProcess, look_at, start_process
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.training.sharing import Alone
from napari_histodistill.errors import Cancelled
from napari_histodistill.lock import WriterLock, is_held
from napari_histodistill.running import CancelToken
from tests.distill.small_runs import small_config, write_textures

LONG = {"steps": 4000, "checkpoint_every": 5, "report_every": 1}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


@pytest.fixture
def run(tiles, tmp_path):
    made = RunProcess(start_run(small_config(schedule=LONG), tmp_path / "run", tiles))
    yield made
    made.kill()


@pytest.fixture
def quick(monkeypatch):
    """Replace what a process does after it has taken the lock by something quick."""
    monkeypatch.setattr(process_module, "_MODULE", "tests.distill.runs.quick_training")
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[3]}{os.pathsep}{known}")


def survive(folder, seconds=5.0):
    """Whether a process still works on a run; one that just ended may take a moment."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        everyone = psutil.process_iter(["cmdline"])
        if not any(str(folder) in (p.info["cmdline"] or ()) for p in everyone):
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("tenths", range(14))
def test_a_stop_is_obeyed_whenever_it_comes(run, quick, tenths):
    """Before the process exists, while it imports, builds, and takes its steps."""
    starter = threading.Thread(target=lambda: run.start(device="cpu", threads=1))
    starter.start()
    time.sleep(tenths / 10)
    run.stop()
    starter.join()
    assert run.wait(15)
    assert run.view().state == "stopped"
    assert not survive(run.folder)
    assert all(e["kind"] != "step" for e in read_events(run.folder)) or tenths > 3


def test_a_stop_before_the_start_starts_nothing(run, quick):
    run.stop()
    run.start(device="cpu", threads=1)
    assert run.view().state == "stopped"
    assert not survive(run.folder)
    # To start again is another wish, and the old request no longer counts.
    run.forget_requests()
    run.start(device="cpu", threads=1)
    assert run.view().works
    run.stop()
    assert run.view().stopping
    assert run.wait(15)


def test_a_run_that_starts_is_seen_by_every_window(run, quick):
    run.start(device="cpu", threads=1)
    seen = look_at(run.folder)
    assert seen.works, "another window would start a second process, and forget a stop"
    RunProcess(run.folder).stop()  # that window stops it
    assert run.wait(15)
    assert look_at(run.folder).state == "stopped"


def test_a_process_that_takes_long_to_start_is_starting_and_can_be_stopped(
    run, quick, monkeypatch
):
    monkeypatch.setattr(process_module, "_WAIT_S", 0.0)
    run.start(device="cpu", threads=1)
    assert run.view().state == "starting"
    run.stop()
    assert run.view().stopping
    assert run.wait(15)
    assert run.view().state == "stopped"


def test_waiting_for_the_start_ends_when_asked(run, quick):
    token = CancelToken()
    token.cancel()
    begun = time.monotonic()
    run.start(device="cpu", threads=1, cancel=token)
    assert time.monotonic() - begun < 0.3
    assert run.view().state == "starting"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.4, 2.5])
def test_a_real_training_obeys_while_it_imports(run, seconds):
    run.start(device="cpu", threads=1)
    time.sleep(seconds)
    run.stop()
    assert run.wait(60)
    view = run.view()
    assert view.state == "stopped"
    if not view.step:
        assert "before the first step: nothing was trained" in view.message
        assert not (run.folder / STUDENT).exists(), "nobody learned anything"
    assert not survive(run.folder)


@pytest.mark.parametrize("moment", ["load_pairs", "_build", "_resume", "_obey"])
def test_a_stop_during_any_part_of_the_start_is_obeyed(
    tiles, tmp_path, monkeypatch, moment
):
    folder = start_run(small_config(schedule=LONG), tmp_path / "run", tiles)
    place = run_module._Run
    if moment == "load_pairs":
        import napari_histodistill.distill.pairs.loading as place
    inner = getattr(place, moment)

    def stopped(*args, **kwargs):
        RunProcess(folder).stop()
        return inner(*args, **kwargs)

    monkeypatch.setattr(place, moment, stopped)
    with pytest.raises(Cancelled):
        list(train(folder, device="cpu"))
    assert not [e for e in read_events(folder) if e["kind"] == "step"]
    assert look_at(folder).state == "stopped"
    assert not (folder / STUDENT).exists()
    assert not is_held(folder / LOCK)


def test_who_holds_the_lock_already_obeys_what_was_asked_since(tiles, tmp_path):
    folder = start_run(small_config(schedule=LONG), tmp_path / "run", tiles)
    lock = WriterLock(folder / LOCK)
    RunProcess(folder).stop()
    with pytest.raises(Cancelled, match="nothing was trained"):
        list(train(folder, device="cpu", lock=lock))
    assert not is_held(folder / LOCK)
    # A command of the user is not stopped by a request to a process before it.
    assert (folder / STOP).exists()
    reports = train(folder, device="cpu")
    assert [next(reports).kind for _ in range(2)] == ["started", "step"]
    reports.close()


def test_a_run_that_was_killed_keeps_its_best_when_stopped_at_its_start(
    tiles, tmp_path
):
    folder = start_run(small_config(schedule=LONG), tmp_path / "run", tiles)
    reports = train(folder, device="cpu")
    while next(reports).kind != "checkpoint":
        pass
    reports.close()  # as a kill: there is a checkpoint and no student
    lock = WriterLock(folder / LOCK)
    (folder / PAUSE).touch()
    RunProcess(folder).stop()
    with pytest.raises(Cancelled):
        list(train(folder, device="cpu", lock=lock))
    assert (folder / STUDENT / "spec.json").is_file()


def test_a_started_process_forgets_what_the_last_was_asked(run, quick):
    run.stop()
    (run.folder / PAUSE).touch()
    again = start_process(run.folder, device="cpu", threads=1)
    try:
        assert again.view().works
        assert not (run.folder / STOP).exists()
        assert not (run.folder / PAUSE).exists()
    finally:
        again.stop()
        assert again.wait(15)


@pytest.mark.parametrize(("world", "asked"), [(1, 3 + 20), (2, 3 + 3)])
def test_several_processes_agree_only_now_and_then(tiles, tmp_path, world, asked):
    """Each time waits for every card: thrice at the start, then every eighth step."""

    class Counting(Alone):
        def agree(self, value: int) -> int:
            values.append(value)
            return super().agree(value)

    values: list[int] = []
    group = Counting()
    group.world = world
    schedule = {"steps": 20, "checkpoint_every": 20}
    folder = start_run(small_config(schedule=schedule), tmp_path / "run", tiles)
    for _ in train(folder, device="cpu", processes=group):
        pass
    assert len(values) == asked
