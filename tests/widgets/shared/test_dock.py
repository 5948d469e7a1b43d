"""Panels beside the canvas: tabs of one place, long names that keep both ends."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QDockWidget

from napari_histodistill.widgets.compare.dock import CompareWidget
from napari_histodistill.widgets.shared.controls import wide_combo

pytestmark = pytest.mark.gui


def test_panels_of_the_plugin_are_tabs_of_one_place(explore, qtbot):
    viewer, widget = explore()
    beside = CompareWidget(viewer)
    window = viewer.window._qt_window
    dock = viewer.window.add_dock_widget(beside, area="right", name="Compare students")
    first = widget.parentWidget()
    while not isinstance(first, QDockWidget):
        first = first.parentWidget()
    qtbot.waitUntil(lambda: first in window.tabifiedDockWidgets(dock))
    qtbot.waitUntil(lambda: beside.is_in_front and not widget.is_in_front)
    first.raise_()
    qtbot.waitUntil(lambda: widget.is_in_front and not beside.is_in_front)
    # Taken apart by hand, they stay apart.
    dock.setFloating(True)
    dock.hide()
    dock.show()
    qtbot.wait(50)
    assert dock.isFloating()


def test_a_long_name_keeps_both_its_ends(qtbot):
    combo = wide_combo("Which slide.")
    qtbot.addWidget(combo)
    combo.addItem("begin " + 20 * "middle " + "end.svs")
    combo.resize(160, 24)
    with qtbot.waitExposed(combo):
        combo.show()
    drawn = combo.fitting()
    assert drawn.startswith("begin")
    assert drawn.endswith(".svs")
    assert len(drawn) < len(combo.currentText())
