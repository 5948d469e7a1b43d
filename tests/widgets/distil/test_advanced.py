"""The advanced form: every setting has an editor, and what is typed arrives."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QCheckBox, QComboBox, QLineEdit

from napari_histodistill.controllers.distil.settings import Draft
from napari_histodistill.distill.recipes.form import describe, read, text_of, value_at
from napari_histodistill.distill.recipes.presets import (
    PRESETS,
    PartnerInput,
    recipe_for,
)
from napari_histodistill.widgets.distil.train.advanced import AdvancedForm

pytestmark = pytest.mark.gui


MARKER = PartnerInput("marker", "channels", 48)


def recipe(key="quick", partners=(MARKER,)):
    return recipe_for(
        key, name="student", source="a", mpp=0.5, tile_px=64, student_px=64,
        pairs=200, partners=partners,
    )  # fmt: skip


@pytest.fixture
def form(qtbot):
    made = AdvancedForm()
    qtbot.addWidget(made)
    drafts = [Draft(recipe(), pairs=200)]

    def typed(field, text):
        drafts.append(drafts[-1].type(field, text))
        made.show_draft(drafts[-1])

    def reset(path):
        drafts.append(drafts[-1].reset(path))
        made.show_draft(drafts[-1])

    made.typed.connect(typed)
    made.reset.connect(reset)
    made.drafts = drafts
    made.show_draft(drafts[0])
    made.resize(340, 900)
    made.show()
    return made


def enter(qtbot, form, *path_and_text):
    *path, text = path_and_text
    editor = form.row_of(*path).editor.native
    editor.clear()
    qtbot.keyClicks(editor, text)


def test_every_setting_has_the_editor_of_its_kind(form):
    kinds = {"switch": QCheckBox, "choice": QComboBox}
    base = form.drafts[0].base
    for field in form.drafts[0].form.all_fields():
        line = form.row_of(*field.path)
        assert isinstance(line.editor.native, kinds.get(field.kind, QLineEdit))
        assert line.text() == text_of(field, value_at(base, field.path))
        assert line.editor.tooltip
        assert not line.back.isVisibleTo(form)
    assert "more than 0" in form.row_of("schedule", "lr").editor.tooltip.lower()
    assert form.summary.text() == "Nothing changed from the preset."
    assert not form.reset_all.isEnabled()


@pytest.mark.parametrize("key", [p.key for p in PRESETS])
def test_every_setting_of_the_schema_stands_in_the_form_and_reads_back(form, key):
    config = recipe(key, (MARKER, PartnerInput("", "image", 128)))
    form.show_draft(Draft(config, pairs=200))
    every = {f.path: f for f in describe(config).all_fields()}
    assert form._rows.keys() == every.keys()
    read_back = {k: read(f, form.row_of(*k).text()) for k, f in every.items()}
    assert read_back == {k: value_at(config, k) for k in every}
    assert len(form.drafts) == 1, "what the program puts there was not typed"


def test_groups_are_folded_and_show_what_is_inside(form, qtbot):
    assert all(not step.is_open for step, _ in form._groups)
    enter(qtbot, form, "schedule", "lr", "0.01")
    enter(qtbot, form, "schedule", "batch", "0")
    shown = {s.title: step.line.text() for step, s in form._groups}
    assert shown["Schedule"] == "2 settings changed. ▲ 1 cannot be used."
    assert shown["Objective"] == ""


@pytest.mark.either_qt
def test_what_is_typed_arrives_and_goes_back(form, qtbot):
    enter(qtbot, form, "schedule", "lr", "0.0007")
    form.row_of("objective", "kind").editor.value = "vicreg"
    form.row_of("schedule", "compile").editor.value = True
    config = form.drafts[-1].config()
    assert config.schedule.lr == 0.0007
    assert config.objective.kind == "vicreg"
    assert config.schedule.compile
    assert form.summary.text() == "3 settings changed from the preset."
    line = form.row_of("schedule", "lr")
    assert line.label.text().startswith("●")
    assert "0.003" in line.back.toolTip()
    line.back.click()
    assert line.text() == "0.003"
    form.reset_all.click()
    assert form.drafts[-1].config() == form.drafts[0].base
    assert form.row_of("objective", "kind").text() == "infonce"
    assert form.row_of("schedule", "compile").text() == "no"


def test_what_is_wrong_is_said_at_its_field(form, qtbot):
    enter(qtbot, form, "schedule", "batch", "1x")
    line = form.row_of("schedule", "batch")
    assert line.complaint.text() == "▲ '1x' is not a whole number."
    assert not line.complaint.isHidden()
    assert line.text() == "1x", "what somebody types is left alone"
    enter(qtbot, form, "schedule", "batch", "16")
    assert line.complaint.isHidden()
    form.row_of("arm").editor.value = "unprivileged"
    assert form.summary.text().startswith("▲ Arm 'unprivileged' has no dense partner")


def test_other_partners_make_another_form(form):
    before = form.row_of("dense", 0, "input_px")
    form.show_draft(Draft(recipe(partners=()), pairs=200))
    assert not any(path[0] == "dense" for path in form._rows)
    form.show_draft(Draft(recipe("careful"), pairs=200))
    assert form.row_of("dense", 0, "input_px") is not before
    assert form.row_of("sparse", "encoder", "start").text() == "imagenet-lite0"


def test_scrolling_past_a_setting_changes_nothing(form, qtbot):
    editor = form.row_of("augmentation").editor
    turn = QWheelEvent(
        QPointF(5, 5), QPointF(5, 5), QPoint(0, -120), QPoint(0, -120),
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(editor.native, turn)
    assert not turn.isAccepted()
    assert editor.value == "histology"
