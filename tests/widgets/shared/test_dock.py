"""Panels beside the canvas: tabs of one place, long names that keep both ends."""

from __future__ import annotations

import gc
import weakref

import pytest
from qtpy.QtWidgets import QDockWidget, QPushButton, QScrollArea

from napari_histodistill.widgets.compare.dock import CompareWidget
from napari_histodistill.widgets.distil.dock import DistilWidget
from napari_histodistill.widgets.shared.controls import wide_combo
from tests.fakes import array_slide
from tests.widgets.conftest import close_viewer, wait_until
from tests.widgets.explore.test_flow import add_slide, ready

pytestmark = pytest.mark.gui


@pytest.mark.either_qt
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
    # In a window of its own, too, a panel is asked before napari's closes.
    asked = []
    beside.may_close = lambda: asked.append("beside")
    window.close()
    assert asked == ["beside"]
    assert window.isVisible()


@pytest.mark.either_qt
@pytest.mark.parametrize("how", ["dock", "window"])
def test_a_panel_that_was_closed_is_freed_with_its_slide(explore, qtbot, how):
    viewer, widget = explore()
    slide = array_slide()
    layer = add_slide(viewer, slide)
    wait_until(qtbot, ready(widget))
    left = {"panel": weakref.ref(widget), "slide": weakref.ref(slide)}
    if how == "dock":
        viewer.layers.clear()
        viewer.window.remove_dock_widget(widget)
    else:
        close_viewer(qtbot, viewer, widget)
    del viewer, widget, slide, layer
    # Qt deletes what nobody shows once it comes round to it.
    wait_until(qtbot, lambda: gc.collect() >= 0 and not any(r() for r in left.values()))


def test_nothing_in_a_panel_is_cut_off(explore, qtbot):
    viewer, widget = explore()
    panels = [widget, CompareWidget(viewer), DistilWidget(viewer)]
    for panel in panels[1:]:
        viewer.window.add_dock_widget(panel, area="right")
    wait_until(qtbot, lambda: panels[-1].is_in_front)
    columns = [panel.findChild(QScrollArea) for panel in panels]
    wait_until(
        qtbot,
        lambda: all(
            c.viewport().width() >= c.widget().minimumSizeHint().width()
            for c in columns
        ),
    )
    # What comes later has room, too, and its room stays when it goes.
    inside, shown = columns[-1].widget(), columns[-1].viewport()
    before = shown.width()
    late = QPushButton("a caption that is wider than all that there was before it")
    inside.layout().addWidget(late)
    wait_until(qtbot, lambda: shown.width() >= late.minimumSizeHint().width() > before)
    wide = shown.width()
    late.hide()
    qtbot.wait(50)
    assert shown.width() == wide
    for panel in panels[1:]:
        viewer.window.remove_dock_widget(panel)


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
