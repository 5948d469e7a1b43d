"""Live teaching on a real canvas: brush, eraser, undo, questions, annotations."""

from __future__ import annotations

import json
from threading import Event

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

pytest.importorskip("napari", reason="the windows need napari and Qt")

from napari_histodistill.controllers.shared.exporting import Exported, ExportKey
from napari_histodistill.students.bundle import load_spec
from napari_histodistill.widgets.explore.teach import teaching
from tests.fakes import array_slide, tissue_image
from tests.widgets.conftest import wait_until
from tests.widgets.explore.test_flow import (
    GLAND,
    STROMA,
    add_slide,
    click,
    drag,
    idle,
    ran,
    ready,
)

__all__ = ["add_slide", "ran"]

pytestmark = pytest.mark.gui

GLANDS = (GLAND, (390, 360), (210, 520))
STROMAS = ((300, 640), (130, 400), (450, 500))


class NoWeights:
    def state_dict(self):
        import torch

        return {"nothing": torch.zeros(1)}


def learned(qtbot, widget):
    """Wait until nothing is computed; return what was taught."""
    qtbot.wait(teaching.SETTLE_MS + 10)
    wait_until(qtbot, idle(widget))
    return widget.session.taught


def stroke(viewer, layer, place, half=12):
    y, x = place
    drag(viewer, layer, (y, x - half), (y, x + half))


def label_at(widget, place):
    live = widget.session.live
    label = int(live.labels[live.grid.cell_at(*place)])
    return live.classes[label - 1].name if label else ""


def names(widget):
    return [spec.name for spec in widget.session.live.classes]


@pytest.mark.either_qt
def test_every_stroke_is_learned_and_the_brush_stays_in_hand(ran, qtbot, tmp_path):
    viewer, widget, layer = ran()
    panel, session = widget.teach_panel, widget.session
    assert not panel.save_button.isEnabled()
    assert "two classes" in panel.save_button.toolTip()
    QTest.mouseClick(panel.paint_button, Qt.MouseButton.LeftButton)
    strokes = widget.teaching.layer
    stroke(viewer, layer, GLAND)
    assert learned(qtbot, widget) is None
    assert panel.words.text() == (
        "Only 'tissue A' is painted: paint a stroke of a second class."
    )
    QTest.mouseClick(panel.chips[1].name, Qt.MouseButton.LeftButton)
    stroke(viewer, layer, STROMA, 40)
    first = learned(qtbot, widget)
    assert names(widget) == ["tissue A", "tissue B"]
    assert label_at(widget, GLAND) == "tissue A"
    assert label_at(widget, STROMA) == "tissue B"
    assert viewer.layers["Class map"].data is session.live.shown
    assert not panel.words.text()
    assert panel.score.text().startswith("Too few strokes to say")
    assert "%" not in panel.score.text()

    # In hand: the next stroke needs no press of a button.
    assert viewer.layers.selection.active is strokes
    assert str(strokes.mode) == "paint"
    assert panel.paint_button.isChecked()
    stroke(viewer, layer, (300, 640))
    more = learned(qtbot, widget)
    assert more is not first
    assert more.cells > first.cells
    strokes.undo()
    assert learned(qtbot, widget).cells == first.cells
    strokes.redo()
    assert learned(qtbot, widget).cells == more.cells
    # What changes no pixel teaches nothing again.
    same = session.taught
    strokes.visible = False
    strokes.visible = True
    strokes.refresh()
    assert learned(qtbot, widget) is same

    # A name is that of the legend, and the model's.
    widget.teaching.rename(1, "my stroma")
    learned(qtbot, widget)
    assert names(widget) == ["tissue A", "my stroma"]
    session.student.backend.module = NoWeights()
    panel.title.setText("Glands of mine")
    widget.teaching.save(tmp_path / "mine")
    learned(qtbot, widget)
    assert load_spec(tmp_path / "mine").title == "Glands of mine"
    card = (tmp_path / "mine" / "README.md").read_text("utf-8")
    assert "too few strokes to say" in card

    # Erasing counts, down to nothing.
    QTest.mouseClick(panel.erase_button, Qt.MouseButton.LeftButton)
    assert str(strokes.mode) == "erase"
    assert panel.erase_button.isChecked()
    assert not panel.paint_button.isChecked()
    strokes.brush_size = 40
    stroke(viewer, layer, GLAND, 30)
    assert learned(qtbot, widget) is None
    assert "Only 'my stroma'" in panel.words.text()
    assert names(widget) == ["stroma", "gland"], "the model's own classes"
    assert (session.live.labels > 0).any()
    strokes.undo()
    assert learned(qtbot, widget) is not None, "undone: taught again"


def test_what_was_saved_and_written_goes_with_its_slide(ran, qtbot, tmp_path):
    viewer, widget, layer = ran()
    panel = widget.teach_panel
    QTest.mouseClick(panel.paint_button, Qt.MouseButton.LeftButton)
    stroke(viewer, layer, GLAND)
    QTest.mouseClick(panel.chips[1].name, Qt.MouseButton.LeftButton)
    stroke(viewer, layer, STROMA, 40)
    assert learned(qtbot, widget) is not None
    widget.session.student.backend.module = NoWeights()
    widget.teaching.save(tmp_path / "mine")
    learned(qtbot, widget)
    widget.export(ExportKey.CLASS_AREAS, tmp_path / "areas.csv")
    wait_until(qtbot, idle(widget))
    written = widget.saved_row
    assert panel.words.text() == "Saved: mine."
    assert written.where.path == tmp_path / "areas.csv"
    assert written.where.text().startswith("Wrote ")
    assert written.open.isVisible()
    other = add_slide(viewer, array_slide(tissue_image(400, 500)))
    wait_until(qtbot, ready(widget))
    assert widget.bench.slide_layer is other
    for _ in range(2):
        assert "Saved" not in panel.words.text()
        assert written.where.path is None
        assert written.where.text() == ""
        assert not written.open.isVisible()
        widget.choosing.choose_layer(layer)  # nor do they come back
        wait_until(qtbot, idle(widget))


def test_what_is_saved_late_is_said_of_the_slide_that_it_is_of(ran, qtbot, tmp_path):
    viewer, widget, layer = ran()
    panel, go_on = widget.teach_panel, Event()
    QTest.mouseClick(panel.paint_button, Qt.MouseButton.LeftButton)
    stroke(viewer, layer, GLAND)
    QTest.mouseClick(panel.chips[1].name, Qt.MouseButton.LeftButton)
    stroke(viewer, layer, STROMA, 40)
    assert learned(qtbot, widget) is not None
    first = widget.session.slide

    class Slow(NoWeights):
        def state_dict(self):
            assert go_on.wait(20)
            return super().state_dict()

    widget.session.student.backend.module = Slow()
    widget.teaching.save(tmp_path / "mine")
    add_slide(viewer, array_slide(tissue_image(400, 500)))
    wait_until(qtbot, lambda: widget.session.slide is not first)
    go_on.set()
    wait_until(qtbot, ready(widget))
    assert (tmp_path / "mine" / "spec.json").exists()
    assert "Saved" not in panel.words.text()
    assert f"{first.name}: Saved: mine." in widget.run_panel.message.text()

    widget._exported(first, [Exported(tmp_path / "areas.csv")])
    assert widget.saved_row.where.path is None
    assert f"{first.name}: wrote areas.csv." in widget.run_panel.message.text()


def test_the_score_and_a_stroke_that_contradicts_the_rest(ran, qtbot):
    viewer, widget, _layer = ran()
    panel = widget.teach_panel
    before = {b: b.pos() for b in (panel.save_button, panel.odd, panel.import_button)}
    panel.paint_button.setChecked(True)
    strokes = widget.teaching.layer
    scale = np.array(strokes.data.shape) / (600, 800)
    for label, places in ((1, GLANDS), (2, STROMAS)):
        for place in places:
            y, x = (np.array(place) * scale).astype(int)
            strokes.data[y - 2 : y + 3, x - 2 : x + 3] = label
    strokes.refresh()
    score = learned(qtbot, widget).score
    assert score.share == 1.0
    assert "right on strokes held out (" in panel.score.text()
    assert not panel.go.isEnabled()
    assert "No stroke contradicts" in panel.go.toolTip()
    assert "strokes: about 100 % right" in widget.trust_panel.notes.text()

    wrong = (450, 150)
    y, x = (np.array(wrong) * scale).astype(int)
    strokes.data[y - 2 : y + 3, x - 2 : x + 3] = 1
    strokes.refresh()
    learned(qtbot, widget)
    assert panel.odd.currentText() == "tissue A looks like tissue B"
    viewer.scene.camera.center = (0, 0)
    QTest.mouseClick(panel.go, Qt.MouseButton.LeftButton)
    there = viewer.scene.camera.center[-2:]
    assert there == pytest.approx(np.array(wrong) * 0.5, abs=20)
    assert {b: b.pos() for b in before} == before, "no row has moved"


def test_ask_me_is_answered_by_keys_on_the_canvas(ran, qtbot):
    viewer, widget, layer = ran()
    panel, asking = widget.teach_panel, widget.asking
    native = viewer.window._qt_viewer.canvas.native
    assert "two classes" in panel.ask_button.toolTip()
    panel.paint_button.setChecked(True)
    stroke(viewer, layer, GLAND)
    panel.chips[1].chosen.emit()
    stroke(viewer, layer, STROMA)
    taught = learned(qtbot, widget)
    QTest.mouseClick(panel.ask_button, Qt.MouseButton.LeftButton)
    wait_until(qtbot, lambda: asking.question is not None)
    first = asking.question
    assert panel.words.text().startswith("1 of ")
    assert "Which class is this?" in viewer.layers
    at = np.array(viewer.scene.camera.center[-2:])
    assert at == pytest.approx(np.array(first.region.center) * 0.5, abs=2)
    QTest.keyClick(native, Qt.Key.Key_2)
    assert asking.question is not first
    eyes = [eye.isChecked() for eye in widget.classes_panel.eyes]
    assert all(eyes), "digits answer while it asks"
    more = learned(qtbot, widget)
    assert more.cells == taught.cells + 1
    assert panel.words.text().startswith("2 of ")
    painted = widget.teaching.strokes().labels
    y, x = (np.array(first.region.center) * painted.shape / (600, 800)).astype(int)
    assert painted[y, x] == 2

    second = asking.question
    QTest.keyClick(native, Qt.Key.Key_S)
    assert asking.question is not second
    assert learned(qtbot, widget).cells == more.cells
    QTest.keyClick(panel.ask_button, Qt.Key.Key_1)  # the button's keys do, too
    assert learned(qtbot, widget).cells == more.cells + 1
    QTest.keyClick(native, Qt.Key.Key_Escape)
    assert asking.question is None
    assert not panel.ask_button.isChecked()
    assert "Which class is this?" not in viewer.layers
    QTest.keyClick(native, Qt.Key.Key_2)
    assert not widget.classes_panel.eyes[1].isChecked(), "digits are toggles again"


def test_annotations_are_painted_undone_and_written(ran, qtbot, tmp_path):
    _viewer, widget, _layer = ran()
    panel = widget.teach_panel

    def box(y, x, name, side=40):
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        known = {"classification": {"name": name, "color": [1, 2, 3]}} if name else {}
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": known,
        }

    path = tmp_path / "a.geojson"
    features = [box(190, 220, "Gland"), box(480, 180, "Stroma"), box(0, 0, "")]
    path.write_text(json.dumps(features), "utf-8")
    widget.annotating.read(path)
    taught = learned(qtbot, widget)
    assert [c.name for c in taught.classes] == ["Gland", "Stroma"]
    assert [chip.name.text() for chip in panel.chips] == ["Gland", "Stroma"]
    assert label_at(widget, GLAND) == "Gland"
    assert panel.words.text() == (
        "Painted 2 shapes of a.geojson. Left out: 1 shape without a class."
    )
    strokes = widget.teaching.strokes().labels
    out = tmp_path / "out.geojson"
    widget.annotating.write(out)
    learned(qtbot, widget)
    assert panel.words.text() == f"Written: {out}"
    widget.teaching.layer.undo()
    assert learned(qtbot, widget) is None
    assert names(widget) == ["stroma", "gland"]
    widget.annotating.read(out)
    learned(qtbot, widget)
    np.testing.assert_array_equal(widget.teaching.strokes().labels, strokes)
    (tmp_path / "bad.geojson").write_text("{", "utf-8")
    widget.annotating.read(tmp_path / "bad.geojson")
    learned(qtbot, widget)
    assert panel.words.text().startswith("bad.geojson: is not JSON")


def test_classes_are_renamed_coloured_and_removed(ran, qtbot, monkeypatch):
    viewer, widget, layer = ran()
    panel = widget.teach_panel
    widget.teaching.add_class()
    panel.chips[0].chosen.emit()
    panel.paint_button.setChecked(True)
    stroke(viewer, layer, GLAND)
    panel.chips[2].chosen.emit()
    assert widget.teaching.layer.selected_label == 3
    stroke(viewer, layer, STROMA)
    learned(qtbot, widget)
    assert names(widget) == ["tissue A", "tissue C"]
    assert "is painted" in panel.remove.toolTip()

    monkeypatch.setattr(teaching, "choose_color", lambda *_: "#123456")
    QTest.mouseClick(panel.chips[2].swatch, Qt.MouseButton.LeftButton)
    assert widget.session.live.classes[1].color == "#123456"
    strokes = viewer.layers["Teach: strokes"].colormap.color_dict
    drawn = viewer.layers["Class map"].colormap.color_dict
    assert np.allclose(strokes[3], drawn[2])
    widget.showing.recolour(0, "#654321")  # in the legend
    assert widget.teaching.classes.all[0].color == "#654321"

    QTest.mouseDClick(panel.chips[2].name, Qt.MouseButton.LeftButton)
    panel.chips[2].editor.setText("crypt")
    QTest.keyClick(panel.chips[2].editor, Qt.Key.Key_Return)
    learned(qtbot, widget)
    assert names(widget) == ["tissue A", "crypt"]
    panel.chips[1].chosen.emit()
    widget.teaching.show()
    QTest.mouseClick(panel.remove, Qt.MouseButton.LeftButton)
    assert [chip.name.text() for chip in panel.chips] == ["tissue A", "crypt"]
    assert set(np.unique(widget.teaching.layer.data)) == {0, 1, 2}
    learned(qtbot, widget)
    assert label_at(widget, STROMA) == "crypt"


def test_strokes_painted_before_a_run_are_learned_after_it(explore, qtbot):
    from tests.fakes import array_slide
    from tests.widgets.explore.test_flow import ready

    viewer, widget = explore()
    layer = add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    panel = widget.teach_panel
    panel.paint_button.setChecked(True)
    stroke(viewer, layer, GLAND)
    panel.chips[1].chosen.emit()
    stroke(viewer, layer, STROMA)
    assert learned(qtbot, widget) is None
    assert "once the model has run" in panel.words.text()
    QTest.mouseClick(widget.run_panel.button, Qt.MouseButton.LeftButton)
    wait_until(qtbot, lambda: widget.session.taught is not None)
    learned(qtbot, widget)
    assert label_at(widget, GLAND) == "tissue A"

    widget.classes_panel.back.click()
    learned(qtbot, widget)
    assert names(widget) == ["stroma", "gland"]
    click(viewer, layer, GLAND)
    assert widget.session.taught is None, "looked at until the brush is taken again"
    panel.paint_button.setChecked(True)
    assert learned(qtbot, widget) is not None
