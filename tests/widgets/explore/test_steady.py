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


def watch_a_run(before, look, runner, idle):
    """Return what to wait for: the end of a run in which all stays where it was.

    Parameters
    ----------
    before : dict
        Of :func:`places`, while Run is seen.
    look : callable
        Returns the same now.
    runner : RunPanel
        Whose Run turns into Cancel, in the same place.
    idle : callable
        Whether the run has ended.
    """
    seen = []

    def watch():
        after = look()
        assert not moved(before, after)
        assert not vanished(before, after, runner.button)
        # One takes the place of the other.
        (there,) = {runner.button, runner.stop} & set(after)
        assert after[there][0] == before[runner.button][0]
        seen.append(there)
        return idle() and seen[-1] is runner.button

    return watch, seen


def test_no_control_moves_or_vanishes_through_a_run(explore, qtbot):
    who = student()
    who.backend = SlowBackend()
    viewer, widget = explore(who)
    viewer.window._qt_window.resize(1366, 768)
    add_slide(viewer, slide_of(HALVES))
    wait_until(qtbot, ready(widget))
    widget.slide_panel.detail.setValue(0)
    qtbot.wait(50)
    before = places(widget)
    assert len(before) > 20
    runner = widget.run_panel
    watch, seen = watch_a_run(before, lambda: places(widget), runner, idle(widget))
    runner.button.click()
    wait_until(qtbot, watch, timeout_s=60)
    assert seen.count(runner.stop) > 10
    assert widget.session.live.cells_done == 80
    assert widget.session.trust is not None
