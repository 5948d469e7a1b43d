"""*Stop* and every way of closing, while a training starts: nothing trains unseen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from qtpy.QtWidgets import QApplication

from napari_histodistill.distill.runs import process as process_module
from napari_histodistill.distill.runs.events import read_events
from napari_histodistill.distill.runs.process import RunProcess
from napari_histodistill.widgets.distil.dock import DistilWidget, OnClose
from tests.widgets.conftest import close_viewer, wait_until
from tests.widgets.distil import test_flow as flow
from tests.widgets.distil.test_training import SMALL

pytestmark = pytest.mark.gui

open_distil, painted = flow.open_distil, flow.painted


SAID = "Stopped", "It has not been started"


def survive(folder, seconds=8.0):
    """Whether a process still works on a run; one that just ended may take a moment."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        everyone = psutil.process_iter(["cmdline"])
        lines = [" ".join(p.info["cmdline"] or ()) for p in everyone]
        if not any(str(folder) in line for line in lines):
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def quick(monkeypatch):
    """Replace what a process does after it has taken the lock by something quick."""
    monkeypatch.setattr(process_module, "_MODULE", "tests.distill.runs.quick_training")
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[3]}{os.pathsep}{known}")


@pytest.fixture
def panel(open_distil, qtbot, painted, quick):
    """Return a function that opens a window with pairs that wait to be trained on."""

    def open_one():
        viewer, widget = open_distil()
        flow.add_pair(viewer, painted)
        flow.tick(widget, "marker")
        flow.preview(qtbot, widget)
        widget.session.typed = dict(SMALL)
        widget.refresh()
        return viewer, widget

    return open_one


def at_rest(widget):
    training = widget.distilling
    return not (training.is_writing or training.is_starting or widget.session.works)


def reach(qtbot, widget, moment):
    """Press *Start* and wait until pairs are written, or a process starts or trains."""
    widget.train_step.start.click()
    training = widget.distilling
    there = {
        "writing": lambda: training.is_writing,
        "starting": lambda: training.is_starting,
        "training": lambda: widget.session.works,
    }[moment]
    wait_until(qtbot, there, 30)


def test_stop_is_obeyed_in_steps_of_a_tenth_of_a_second(panel, qtbot):
    _viewer, widget = panel()
    step = widget.train_step
    for tenths in range(12):
        assert step.start.isEnabled(), step.start.toolTip()
        step.start.click()
        qtbot.wait(100 * tenths)
        assert step.stop.isEnabled(), f"no stop after {tenths / 10} s"
        step.stop.click()
        assert not step.stop.isEnabled()
        wait_until(qtbot, lambda: at_rest(widget), 30)
        assert not survive(widget.bench.runs)
        wait_until(qtbot, lambda: step.line.text().startswith(SAID))


@pytest.mark.parametrize("moment", ["writing", "starting", "training"])
@pytest.mark.parametrize("how", ["panel", "layer", "viewer", "quit"])
def test_closing_after_stop_lets_nothing_train_on(panel, qtbot, moment, how):
    viewer, widget = panel()
    reach(qtbot, widget, moment)
    widget.train_step.stop.click()
    widget.ask_close = lambda: OnClose.STOP
    if how == "panel":
        viewer.window.remove_dock_widget(widget)
    elif how == "layer":
        viewer.layers.clear()
        wait_until(qtbot, lambda: at_rest(widget), 30)
    elif how == "viewer":
        close_viewer(qtbot, viewer, widget)
    else:
        QApplication.instance().aboutToQuit.emit()
    assert not survive(widget.bench.runs)
    assert widget.is_closed is (how != "layer")


@pytest.mark.parametrize("moment", ["writing", "starting"])
def test_a_panel_closed_before_the_training_was_seen_trains_nothing(
    panel, qtbot, moment
):
    viewer, widget = panel()
    reach(qtbot, widget, moment)
    viewer.window.remove_dock_widget(widget)
    assert widget.is_closed
    assert not survive(widget.bench.runs)
    # Opened again, the panel says so, and can go on with it.
    again = DistilWidget(viewer, runs=widget.bench.runs)
    viewer.window.add_dock_widget(again, area="right", name="Distil a student")
    assert not again.session.works


@pytest.mark.parametrize("answer", list(OnClose))
def test_napari_asks_before_it_closes_on_a_training_that_starts(panel, qtbot, answer):
    viewer, widget = panel()
    reach(qtbot, widget, "starting")
    folder = widget.distilling._starting.folder
    asked = []
    widget.ask_close = lambda: asked.append(1) or answer
    if answer is OnClose.STAY:
        viewer.window._qt_window.close()
        assert not widget.is_closed
    else:
        close_viewer(qtbot, viewer, widget)
    assert asked[0] == 1
    if answer is OnClose.STOP:
        assert not survive(folder)
        return
    run = RunProcess(folder)
    wait_until(qtbot, lambda: run.view().step >= 1, 30)
    run.stop()
    assert run.wait(15)
    if answer is OnClose.STAY:
        wait_until(qtbot, lambda: at_rest(widget), 30)


def test_a_panel_opened_while_a_training_starts_finds_it(panel, qtbot):
    viewer, widget = panel()
    reach(qtbot, widget, "training")
    viewer.window.remove_dock_widget(widget)
    again = DistilWidget(viewer, runs=widget.bench.runs)
    viewer.window.add_dock_widget(again, area="right", name="Distil a student")
    assert again.session.works, "it would offer to go on, and forget a stop"
    assert not again.train_step.start.isEnabled()
    again.train_step.stop.click()
    wait_until(qtbot, lambda: at_rest(again), 30)
    assert not survive(widget.bench.runs)
    assert read_events(again.session.run.folder)[-1]["kind"] == "stopped"


def test_a_run_whose_disk_is_away_says_so_and_is_found_again(panel, qtbot):
    _viewer, widget = panel()
    reach(qtbot, widget, "training")
    widget.train_step.stop.click()
    wait_until(qtbot, lambda: at_rest(widget), 30)
    runs, away = widget.bench.runs, widget.bench.runs.with_name("away")
    runs.rename(away)
    widget.distilling.look()
    assert "is not there" in widget.train_step.line.text()
    assert not widget.train_step.stop.isEnabled()
    widget.refresh()
    away.rename(runs)
    widget.distilling._timer.start()
    wait_until(qtbot, lambda: "is not there" not in widget.train_step.line.text())
    assert widget.train_step.start.text() == "Go on"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_napari_that_sleeps_beside_a_training_catches_up(panel, qtbot):
    _viewer, widget = panel()
    reach(qtbot, widget, "training")
    run = widget.session.run
    wait_until(qtbot, lambda: run.view().step >= 1, 30)
    before = run.view().step
    me = os.getpid()
    sleep = f"sleep .3; kill -STOP {me}; sleep 2; kill -CONT {me}"
    waker = subprocess.Popen(["/bin/sh", "-c", sleep])
    wait_until(qtbot, lambda: waker.poll() is not None, 30)
    wait_until(qtbot, lambda: run.view().step > before + 20, 30)
    shown = widget.train_step.curves
    wait_until(qtbot, lambda: shown._lines[0][2][-1][0] > before + 20)
    widget.train_step.stop.click()
    wait_until(qtbot, lambda: at_rest(widget), 30)
    assert not survive(widget.bench.runs)
