"""Regions drawn on the canvas with real clicks; saving; the menu beside Run."""

from __future__ import annotations

import json

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_histodistill.controllers.shared.exporting import ExportKey
from napari_histodistill.widgets.explore.running import NO_MAP
from napari_histodistill.widgets.shared import saving, slide_dock
from tests.fakes import array_slide, colour_student
from tests.widgets.explore.test_flow import add_slide, canvas_point, idle, ready

pytestmark = pytest.mark.gui

DRAWN = 2
CORNERS = ((110, 110), (110, 330), (330, 330), (330, 110))
ELSEWHERE = ((400, 400), (400, 600), (550, 600), (550, 400))


def draw(viewer, layer, corners):
    """Click the corners of a polygon and double-click the last one."""
    native = viewer.window._qt_viewer.canvas.native
    left, plain = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    usual = QApplication.doubleClickInterval()
    QApplication.setDoubleClickInterval(20)
    for corner in corners:
        where = canvas_point(viewer, layer, *corner)
        QTest.mouseMove(native, where)
        QTest.mouseClick(native, left, plain, where, 40)
    QTest.mouseDClick(native, left, plain, where)
    QTest.qWait(20)
    QApplication.setDoubleClickInterval(usual)


def answer(press):
    """Answer the next question by a function of its box; return what it asked."""
    asked = []

    def exec_(box):
        asked.append(box.text())
        press(box)

    return asked, exec_


def by_text(text):
    return lambda box: next(b for b in box.buttons() if text in b.text()).click()


def test_regions_add_to_the_map_and_starting_over_asks(explore, qtbot, monkeypatch):
    viewer, widget = explore()
    layer = add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    drawn, run = widget.slide_panel.regions.button(DRAWN), widget.run_panel
    whole = widget.session.estimate.squares
    assert f"{whole} squares" in widget.slide_panel.detail_words.text()

    QTest.mouseClick(drawn, Qt.MouseButton.LeftButton)
    shapes = widget.mapping.drawing.layer
    assert viewer.layers.selection.active is shapes
    assert shapes.mode == "add_polygon", "the next click draws"
    assert "double-click the last" in run.button.toolTip()
    draw(viewer, layer, CORNERS)
    assert shapes.mode == "pan_zoom", "the tool is put down, as in QuPath"
    assert viewer.layers.selection.active is layer
    assert [len(s) for s in shapes.data] == [4]
    assert shapes.face_color[0][3] == 0, "only an outline"
    assert not widget.session.prompts.items
    first = widget.session.estimate.squares
    QTest.mouseClick(drawn, Qt.MouseButton.LeftButton)
    draw(viewer, layer, ELSEWHERE)
    both = widget.session.estimate.squares
    assert 0 < first < both < whole
    zoom = viewer.scene.camera.zoom
    wide = shapes.edge_width[0]
    viewer.scene.camera.zoom = 4 * zoom
    qtbot.waitUntil(lambda: shapes.edge_width[0] < wide / 3, timeout=2000)
    viewer.scene.camera.zoom = zoom

    run.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert widget.session.live.cells_done == both
    assert not run.button.isEnabled()
    assert "start over" in run.button.toolTip()

    widget.slide_panel.regions.button(0).click()
    assert run.button.text() == "Continue"
    run.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert widget.session.live.cells_done == whole

    drawn.click()
    widget.mapping.drawing.put_down()
    asked, exec_ = answer(by_text("Cancel"))
    monkeypatch.setattr(QMessageBox, "exec", exec_)
    run.again.trigger()
    assert asked[0].startswith(f"Throw away the map of {whole} squares?")
    assert widget.session.live.cells_done == whole, "nothing was thrown away"
    asked, exec_ = answer(by_text("Start over"))
    monkeypatch.setattr(QMessageBox, "exec", exec_)
    run.again.trigger()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert widget.session.live.cells_done == both


def test_saving_proposes_a_place_says_where_and_refuses_what_is_empty(
    explore, qtbot, monkeypatch, tmp_path
):
    viewer, widget = explore()
    add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    panel, saved = widget.trust_panel, widget.saved_row
    assert "run a model first" in panel.figure.toolTip()
    room = saved.height()
    widget.run_panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    asked, opened = [], []

    def ask(title, _parent, name, files=""):
        asked.append(name)
        return tmp_path / "deep folder" / f"a{name[name.rindex('.') :]}"

    monkeypatch.setattr(slide_dock, "ask_new_file", ask)
    monkeypatch.setattr(
        saving.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile())
    )
    assert not saved.open.isVisible()
    panel.figure.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    picture = tmp_path / "deep folder" / "a.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert asked == [str(picture.home() / "array.figure.png")]
    assert "no folder of this computer" in widget.run_panel.message.text()
    assert str(picture) in saved.where.toolTip()
    assert saved.height() == room, "its room was kept"
    saved.open.click()
    assert opened == [str(picture.parent)]

    widget.export(ExportKey.CLASS_OUTLINES)
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert "provenance" in json.loads((picture.parent / "a.geojson").read_text("utf-8"))
    widget.session.live.show_at_least(0.99999)
    widget.export(ExportKey.CLASS_OUTLINES)
    assert len(asked) == 2, "said before a file is asked for"
    assert "no square is at least 100 % sure" in widget.run_panel.message.text()


def test_who_reads_is_chosen_in_the_menu_beside_run(explore, qtbot):
    viewer, widget = explore(colour_student())
    panel, session = widget.run_panel, widget.session
    assert panel.more.isEnabled(), "there is something to choose before there is a map"
    assert not panel.again.isEnabled()
    assert NO_MAP in panel.again.toolTip()
    words = {action.text(): action for action in panel.readers.actions()}
    assert list(words) == ["Automatic", "Threads", "Processes"]
    assert words["Automatic"].isChecked()
    words["Processes"].trigger()
    assert session.reading == "processes"
    assert not words["Automatic"].isChecked()
    add_slide(viewer, array_slide())
    qtbot.waitUntil(ready(widget), timeout=20000)
    panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert "read it by threads" in panel.message.text()
    words["Threads"].trigger()
    panel.button.click()
    qtbot.waitUntil(idle(widget), timeout=20000)
    assert session.live.cells_done
    assert panel.again.isEnabled()
