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


def test_no_control_moves_through_a_run(explore, qtbot):
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
    widget.run_panel.button.click()
    seen = []

    def watch():
        jumps = moved(before, places(widget))
        seen.append(jumps)
        assert not jumps
        return idle(widget)()

    wait_until(qtbot, watch, timeout_s=60)
    assert widget.session.live.cells_done == 80
    assert widget.session.trust is not None
    assert len(seen) > 10
