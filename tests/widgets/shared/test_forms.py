"""Forms: what stands in them is the model, as a person typed it and as plain text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path

import pytest
from qtpy.QtCore import QLocale, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QComboBox, QDialog, QLabel, QWidget

from napari_histodistill.controllers.distil.spots import Positions
from napari_histodistill.widgets.distil.steps import PreviewWish, TileSize
from napari_histodistill.widgets.distil.unit_question import SpotUnits, UnitQuestion
from napari_histodistill.widgets.shared import forms
from napari_histodistill.widgets.shared.controls import fill_combo, wide_combo
from napari_histodistill.widgets.shared.forms import Form, ask, asked, editor
from napari_histodistill.widgets.shared.saving import ModelTitle
from napari_histodistill.widgets.shared.slide_chooser import KnownLength
from napari_histodistill.widgets.shared.slide_rows import MppRow, PixelSize
from tests.widgets.shared.test_plain_text import IMAGE, obeyed, says

pytestmark = pytest.mark.gui

OTHERS = (
    KnownLength(250.5),
    ModelTitle("Glands of mine"),
    PixelSize(0.2525),
    PreviewWish(wanted=True, steps=7),
    SpotUnits(Positions.OTHER_PIXELS, 0.65),
    TileSize(96, 1.25),
)
"""A value of every form of the window, each unlike what it begins with."""


def names(model):
    return type(model).__name__


@dataclass(frozen=True)
class FromStranger:
    name: str = asked(IMAGE, "", label=IMAGE)
    length: float = asked(IMAGE, 1.0, suffix=f" {IMAGE}")
    which: str = asked(IMAGE, IMAGE, choices=[(IMAGE, IMAGE)])


@pytest.mark.parametrize("other", OTHERS, ids=names)
def test_every_form_shows_its_model_and_gives_it_back(other, qtbot):
    kind = type(other)
    form = Form(kind())
    qtbot.addWidget(form.native)
    sent = []
    form.changed.connect(sent.append)
    assert form.model == kind()
    form.show_model(other)
    assert form.model == other
    assert asdict(form.model) != asdict(kind())
    assert [type(x) for x in asdict(form.model).values()] == [
        type(x) for x in asdict(other).values()
    ]
    assert not sent, "what the program puts there is no wish of a person"
    assert len(form.natives) == len(fields(kind))
    assert all(native.toolTip() for native in form.natives)


@pytest.mark.either_qt
def test_what_a_person_changes_is_sent(qtbot):
    form = Form(PreviewWish())
    qtbot.addWidget(form.native)
    wanted, steps = form.natives
    with qtbot.waitSignal(wanted.toggled):
        wanted.click()
    steps.stepUp()
    assert form.model.wanted
    assert form.model.steps > PreviewWish().steps


def test_a_form_is_locked_with_the_reason(qtbot):
    form = Form(TileSize())
    qtbot.addWidget(form.native)
    before = [native.toolTip() for native in form.natives]
    form.lock("All sections <b>alike</b>.")
    assert not any(native.isEnabled() for native in form.natives)
    assert all("&lt;b&gt;alike" in native.toolTip() for native in form.natives)
    form.lock("")
    assert all(native.isEnabled() for native in form.natives)
    assert [native.toolTip() for native in form.natives] == before


@pytest.mark.parametrize("labels", [True, False])
def test_a_form_obeys_nothing(labels, qtbot):
    form = Form(FromStranger(), layout="vertical", labels=labels)
    qtbot.addWidget(form.native)
    assert says(form.native, "bold")
    assert not obeyed(form.native)


@pytest.mark.parametrize("language", ["C", "German"])
@pytest.mark.parametrize("typed", ["0.5", "0,5"])
def test_comma_and_full_stop_are_the_decimal_point(language, typed, qtbot):
    before = QLocale()
    QLocale.setDefault(QLocale(getattr(QLocale.Language, language)))
    try:
        row = MppRow()
    finally:
        QLocale.setDefault(before)
    qtbot.addWidget(row)
    row.show()
    given = []
    row.given.connect(given.append)
    # Into the middle of the words that stand for a number that is not known.
    qtbot.mouseClick(row.field.lineEdit(), Qt.MouseButton.LeftButton)
    qtbot.keyClicks(row.field, typed)
    row.use.click()
    assert given == [0.5]


def test_the_usual_scans_are_a_key_away(qtbot):
    row = MppRow()
    qtbot.addWidget(row)
    values = []
    for _ in range(4):
        row.field.stepUp()
        values.append(row.form.model.um_per_px)
    assert values == [0.25, 0.5, 0.75, 1.0]


def turn_wheel_over(native):
    turn = QWheelEvent(
        QPointF(5, 5), QPointF(5, 5), QPoint(0, -120), QPoint(0, -120),
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(native, turn)
    assert not turn.isAccepted(), "the panel scrolls"


@pytest.mark.parametrize("which", range(len(OTHERS)), ids=map(names, OTHERS))
def test_scrolling_past_a_form_changes_nothing(which, qtbot):
    form = Form(OTHERS[which])
    qtbot.addWidget(form.native)
    for native in form.natives:
        turn_wheel_over(native)
    assert form.model == OTHERS[which]


def test_scrolling_past_a_list_of_layers_changes_nothing(qtbot):
    combo = wide_combo("Layers")
    qtbot.addWidget(combo)
    fill_combo(combo, ["a", "b"], 0, empty="")
    turn_wheel_over(combo)
    assert combo.currentText() == "a"


def test_choices_are_shown_in_words_and_mean_their_values(qtbot):
    class Colour(Enum):
        RED = 1
        BLUE = 2

    made = editor(Colour, "", choices=[("rosy", Colour.RED), ("sky", Colour.BLUE)])
    qtbot.addWidget(made.native)
    assert isinstance(made.native, QComboBox)
    assert made.value is Colour.RED
    made.native.setCurrentText("sky")
    assert made.value is Colour.BLUE
    assert made.native.currentData() is Colour.BLUE


def test_a_property_that_qt_does_not_have_is_a_mistake(qtbot):
    with pytest.raises(AttributeError, match="ending"):
        editor(int, "", ending=" px")


def test_the_question_of_units_begins_anew_with_every_file(qtbot):
    question = UnitQuestion()
    qtbot.addWidget(question)
    answered = []
    question.answered.connect(answered.append)
    question.ask("One.", tuple(Positions), 0.5)
    question.choice.setCurrentIndex(2)
    assert question.add.isEnabled()
    question.choice.setCurrentIndex(0)
    assert not question.add.isEnabled(), "back to nothing chosen"
    question.choice.setCurrentIndex(2)
    question.mpp.setValue(0.65)
    question.add.click()
    assert answered == [SpotUnits(Positions.OTHER_PIXELS, 0.65)]
    question.ask("Another.", (Positions.HE_PIXELS,), None)
    assert question.form.model == SpotUnits()
    assert question.choice.count() == 2
    assert not question.add.isEnabled()


def answer(accept):
    """Press a button of the window that asks, as soon as it is there."""
    seen = []

    def press():
        dialog = QApplication.activeModalWidget()
        assert isinstance(dialog, QDialog)
        assert not obeyed(dialog)
        seen.extend(
            [dialog.windowTitle(), *(x.text() for x in dialog.findChildren(QLabel))]
        )
        (dialog.accept if accept else dialog.reject)()

    QTimer.singleShot(50, press)
    return seen


@pytest.mark.either_qt
def test_a_model_is_asked_for_in_a_window(qtbot):
    parent = QWidget()
    qtbot.addWidget(parent)
    seen = answer(accept=True)
    assert ask(KnownLength(250.5), "Known length", parent) == KnownLength(250.5)
    assert seen == ["Known length", "How long is the line?"]
    answer(accept=False)
    assert ask(KnownLength(), "Known length", parent) is None
    qtbot.waitUntil(lambda: not parent.findChildren(QDialog))


def test_files_are_asked_for_with_the_window_they_belong_to(
    monkeypatch, qtbot, tmp_path
):
    parent = QWidget()
    qtbot.addWidget(parent)
    asked_for, chosen = [], str(tmp_path / "a.csv")

    def show(mode, title, start, files, owner):
        assert owner is parent
        asked_for.append((mode, title, start, files))
        return chosen

    monkeypatch.setattr(forms, "show_file_dialog", show)
    assert forms.ask_file("Open", parent, "Tables (*.csv)") == Path(chosen)
    assert forms.ask_new_file("Save", parent, "b.csv") == Path(chosen)
    assert forms.ask_folder("Folder", parent) == Path(chosen)
    assert asked_for == [
        ("r", "Open", "", "Tables (*.csv)"),
        ("w", "Save", "b.csv", ""),
        ("d", "Folder", "", ""),
    ]
    for nothing in (None, ""):
        chosen = nothing
        assert forms.ask_file("Open", parent) is None
