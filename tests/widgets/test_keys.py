"""Keys of *Explore slide*: chosen, kept, and refused in a sentence."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLabel, QLineEdit, QMessageBox

from napari_histodistill.cache import settings_dir
from napari_histodistill.errors import InputError
from napari_histodistill.widgets import keys as keys_module
from napari_histodistill.widgets import opening
from napari_histodistill.widgets.compare.dock import CompareWidget
from napari_histodistill.widgets.keys import (
    FIXED,
    ExploreKeys,
    read_keys,
    write_keys,
)
from tests.widgets.conftest import wait_until

pytestmark = pytest.mark.gui


def test_keys_come_back_as_they_were_chosen():
    assert read_keys() == ExploreKeys()
    chosen = replace(ExploreKeys(), next_slide="right", fainter="control-f").checked()
    assert (chosen.next_slide, chosen.fainter) == ("Right", "Ctrl+F")
    write_keys(chosen)
    assert read_keys() == chosen


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"next_slide": "foo"}, "next slide: 'foo' is not a key"),
        ({"next_slide": ""}, "is not a key"),
        ({"next_slide": "p"}, "P means next slide already"),
        ({"fainter": "3"}, "fainter: 3 is an answer"),
        ({"bare_tissue": "s"}, "S is an answer"),
        ({"flicker": "n"}, "flicker: N means next slide already"),
    ],
)
def test_what_cannot_be_a_key_is_refused(other, said):
    with pytest.raises(InputError, match=said):
        replace(ExploreKeys(), **other).checked()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"next_slide": 5}', '{"next_slide": "P"}', "x" * 70_000]
)
def test_a_damaged_file_is_named(content):
    settings_dir().mkdir(parents=True, exist_ok=True)
    (settings_dir() / "keys.json").write_text(content)
    with pytest.raises(InputError, match=r"keys\.json: the keys in it cannot be used"):
        read_keys()


def test_other_keys_hold_at_once_and_for_the_next_panel(explore):
    viewer, panel = explore()
    usual = {*asdict(ExploreKeys()).values(), *FIXED} - {ExploreKeys().flicker}
    assert {str(key) for key in viewer.keymap} == usual
    steps = []
    panel.choosing.step = steps.append
    refused = []

    def type_keys():
        """Type a key that is taken; then, into what was typed, one that is free."""
        box = QApplication.activeModalWidget()
        if not refused or box is None or isinstance(box, QMessageBox):
            QTimer.singleShot(10, type_keys)
        if box is None:  # between two of them
            return
        if isinstance(box, QMessageBox):
            refused.append(box.text())
            box.accept()
            return
        notes = [label.text() for label in box.findChildren(QLabel)]
        assert keys_module.NOTE in notes
        texts = [edit.text() for edit in box.findChildren(QLineEdit)]
        if refused:
            assert "P" in texts
        row = list(asdict(ExploreKeys())).index("next_slide")
        box.findChildren(QLineEdit)[row].setText("F6" if refused else "P")
        box.accept()

    QTimer.singleShot(0, type_keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "_panel", lambda: panel)
        opening.show_keys()
    assert refused == [
        "previous slide: P means next slide already: choose another key."
    ]
    assert {str(key) for key in viewer.keymap} == usual - {"N"} | {"F6"}
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.keyClick(canvas, "N")
    assert not steps
    QTest.keyClick(canvas, Qt.Key.Key_F6)
    assert steps == [1]
    assert read_keys().next_slide == "F6"


def test_the_key_of_compare_is_listed_and_changed_at_once(
    explore, open_viewer, qtbot, monkeypatch
):
    viewer, panel = explore()
    assert ExploreKeys().flicker == "G"
    compare = CompareWidget(viewer, students=[])
    viewer.window.add_dock_widget(compare, area="left", name="Compare students")
    wait_until(qtbot, lambda: compare.is_in_front)
    seen = []
    monkeypatch.setattr(compare.comparing, "flicker", seen.append)
    chosen = replace(ExploreKeys(), flicker="F7").checked()
    monkeypatch.setattr(opening, "_panel", lambda: panel)
    monkeypatch.setattr(keys_module, "choose_keys", lambda *_: chosen)
    opening.show_keys()
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.keyClick(canvas, "G")
    assert not seen
    QTest.keyClick(canvas, Qt.Key.Key_F7)
    assert seen == [True, False]
    compare.difference_panel.show_flicker("")
    assert "Hold F7 to" in compare.difference_panel.flicker.text()
    # The next panel knows it, too.
    other = open_viewer()
    beside = CompareWidget(other, students=[])
    other.window.add_dock_widget(beside, area="right", name="Compare students")
    assert "F7" in {str(key) for key in other.keymap}
    assert "G" not in {str(key) for key in other.keymap}
