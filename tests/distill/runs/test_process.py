"""A run in a process of its own: watched, paused, stopped, killed and found again."""

from __future__ import annotations

import os
import sys
import time

import pytest

from napari_histodistill.distill.runs.events import (
    EVENTS,
    EventLog,
    TrainingReport,
    append_event,
    read_events,
)
from napari_histodistill.distill.runs.folder import LOCK, STUDENT, start_run
from napari_histodistill.distill.runs.process import (
    RunProcess,
    RunView,
    look_at,
    start_process,
    threads_beside_a_window,
)
from napari_histodistill.distill.runs.run import train
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.lock import WriterLock, is_held
from tests.distill.small_runs import small_config, write_textures

LONG = {"steps": 4000, "checkpoint_every": 5, "report_every": 1}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


def until(what, seconds=90.0):
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < seconds, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow(15)
def test_a_run_lives_in_its_own_process(tiles, tmp_path):
    """Started, paused, continued, killed, resumed, stopped: one story, one process."""
    folder = start_run(small_config(schedule=LONG), tmp_path / "run", tiles)
    assert look_at(folder).state == "stopped"
    run = start_process(folder, device="cpu", threads=1)
    assert run.view().state in {"starting", "running"}
    until(lambda: run.view().step >= 7)
    with pytest.raises(InputError, match="is being trained already"):
        start_process(folder)
    with pytest.raises(InputError, match="another run is writing to it"):
        next(train(folder, device="cpu"))
    run.pause()
    until(lambda: run.view().state == "paused")
    held = run.view().step
    time.sleep(0.6)
    assert run.view().step == held
    run.go_on()
    until(lambda: run.view().step > held)
    assert look_at(folder).state == "running", (
        "a watcher that did not start it sees it too"
    )
    run.kill()
    dead = run.view()
    assert dead.state == "dead"
    assert dead.resumable
    assert "can continue from its last checkpoint" in dead.message
    again = start_process(folder, device="cpu", threads=1)
    until(lambda: again.view().step > dead.step)
    # A watcher that never saw the process stops it: the best so far is kept.
    RunProcess(folder).stop()
    assert again.wait(60)
    ended = again.view()
    assert ended.state == "stopped"
    assert ended.resumable
    assert (folder / STUDENT / "spec.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("forked_trainings")
def test_what_a_process_complains_of_is_said(tiles, tmp_path):
    config = small_config(schedule={"steps": 3, "batch": 500})
    run = start_process(start_run(config, tmp_path / "run", tiles), device="cpu")
    assert run.wait(90)
    view = run.view()
    assert view.state == "failed"
    assert "schedule.batch: there are 36 pairs" in view.message


def test_pause_and_stop_are_obeyed_in_this_process_too(tiles, tmp_path):
    folder = start_run(small_config(schedule=LONG), tmp_path / "run", tiles)
    run, kinds = RunProcess(folder), []

    def follow():
        for report in train(folder, device="cpu"):
            kinds.append(report.kind)
            if report.kind == "step" and report.step == 3:
                run.pause()
            if report.kind == "paused":
                run.stop()

    with pytest.raises(Cancelled):
        follow()
    assert [k for k in kinds if k != "saving"][-1] == "paused"
    run.go_on()
    assert look_at(folder).state == "stopped"
    # The request to stop was for the process that is gone.
    reports = train(folder, device="cpu")
    assert [next(reports).kind for _ in range(2)] == ["started", "step"]
    reports.close()
    assert not is_held(folder / LOCK), "a generator that is closed lets go"


def test_looking_at_a_lock_does_not_take_it(tmp_path):
    assert not is_held(tmp_path / "lock")
    lock = WriterLock(tmp_path / "lock")
    assert is_held(tmp_path / "lock")
    assert (tmp_path / "lock").read_text().startswith("process ")
    lock.release()
    assert not is_held(tmp_path / "lock")
    WriterLock(tmp_path / "lock").release()


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 3), (16, 15)])
def test_a_core_is_left_to_the_window(monkeypatch, cores, threads):
    asked = []

    def count(*, only_physical_cores):
        asked.append(only_physical_cores)
        return cores

    monkeypatch.setattr("joblib.cpu_count", count)
    assert threads_beside_a_window() == threads
    assert asked == [True]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_trainings")
def test_a_process_takes_no_more_threads_and_steps_back(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda **_: 2)
    folder = start_run(small_config(schedule=LONG), tmp_path / "run", tiles)
    run = start_process(folder, device="cpu")
    try:
        if sys.platform != "win32":
            own = os.getpriority(os.PRIO_PROCESS, 0)
            given = os.getpriority(os.PRIO_PROCESS, run._process.pid)
            assert given == min(19, own + 5)
        until(lambda: run.view().step >= 1)
        assert run.view().events[0]["threads"] == 1
    finally:
        run.kill()


def test_a_log_reads_only_what_is_new(tmp_path):
    log = EventLog(tmp_path)
    assert log.read() == ()
    for step in (1, 2):
        append_event(tmp_path, TrainingReport("step", step, 9, total=float(step)))
    assert [e["step"] for e in log.read()] == [1, 2]
    path = tmp_path / EVENTS
    place = log._place
    assert place == path.stat().st_size
    with path.open("a") as file:
        file.write('{"kind": "step", "st')  # a line half written
    assert len(log.read()) == 2
    with path.open("a") as file:
        file.write('ep": 2, "total": 7.0, "message": ""}\nnonsense\n')
    assert [e["total"] for e in log.read()] == [1.0, 7.0]
    assert list(log.read()) == read_events(tmp_path)
    path.write_text("")
    append_event(tmp_path, TrainingReport("started", 0, 9))
    assert [e["kind"] for e in log.read()] == ["started"]


@pytest.mark.parametrize(
    ("view", "may"),
    [
        (RunView("failed", reason="memory"), True),
        (RunView("dead"), True),
        (RunView("failed"), False),
        (RunView("running"), False),
    ],
)
def test_who_may_have_lacked_memory(view, may):
    assert view.may_lack_memory is may
