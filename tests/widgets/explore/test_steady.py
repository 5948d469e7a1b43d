"""Rows keep their place: nothing jumps under the cursor while a run goes on."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QAbstractButton, QAbstractSlider, QComboBox, QScrollBar

from tests.controllers.explore.test_judging import HALVES, student
from tests.widgets.conftest import wait_until
from tests.widgets.explore.test_flow import SlowBackend, add_slide, idle, ready
from tests.widgets.explore.test_trust_flow import slide_of

pytestmark = pytest.mark.gui


def places(widget, inside=None):
    """Return where every visible control lies in the panel."""
    kinds = (QAbstractButton, QAbstractSlider, QComboBox)
    controls = [c for kind in kinds for c in widget.findChildren(kind)]
    inside = inside or widget.slide_panel.parentWidget()
    return {
        c: (c.mapTo(inside, QPoint(0, 0)).y(), _called(c))
        for c in controls
        if c.isVisibleTo(widget)
        and inside.isAncestorOf(c)
        and not isinstance(c, QScrollBar)
    }


def _called(control):
    words = getattr(control, "text", lambda: "")() or control.toolTip()[:60]
    return f"{type(control).__name__} {words!r}"


def moved(before, after):
    return {
        name: (y, after[control][0])
        for control, (y, name) in before.items()
        if control in after and after[control][0] != y
    }


def vanished(before, after, *may):
    """Return the names of controls that are not seen any more, but for some."""
    return [
        name
        for control, (_, name) in before.items()
        if control not in after and control not in may
    ]


class RunWatch:
    """Looks at a panel again and again through a run; true once it has ended.

    Faults are collected: an assertion that fails while one waits is tried again, and a
    control that jumps and comes back would go unseen.

    Parameters
    ----------
    look : callable
        Returns :func:`places`; called at once, while Run is seen.
    runner : RunPanel
        Whose Run turns into Cancel, in the same place.
    idle : callable
        Whether the run has ended.
    """

    def __init__(self, look, runner, idle):
        self._look, self._runner, self._idle = look, runner, idle
        self.before = look()
        self.faults, self.looks = [], 0

    def __call__(self):
        if self._idle():
            return True
        after, run, stop = self._look(), self._runner.button, self._runner.stop
        if stop in after:
            self.looks += 1
            jumps = moved(self.before, after)
            self.faults += filter(None, (jumps, vanished(self.before, after, run)))
            if after[stop][0] != self.before[run][0]:
                self.faults.append(f"Cancel lies at {after[stop][0]}")
        return False


def test_no_control_moves_or_vanishes_through_a_run(explore, qtbot):
    who = student()
    who.backend = SlowBackend()
    viewer, widget = explore(who)
    viewer.window._qt_window.resize(1366, 768)
    add_slide(viewer, slide_of(HALVES))
    wait_until(qtbot, ready(widget))
    widget.slide_panel.detail.setValue(0)
    qtbot.wait(50)
    watch = RunWatch(lambda: places(widget), widget.run_panel, idle(widget))
    assert len(watch.before) > 20
    widget.run_panel.button.click()
    wait_until(qtbot, watch, timeout_s=60)
    assert not watch.faults
    assert watch.looks > 10
    after = places(widget)
    assert not moved(watch.before, after)
    assert not vanished(watch.before, after)
    assert widget.session.live.cells_done == 80
    assert widget.session.trust is not None
