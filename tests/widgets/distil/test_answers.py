"""What is asked beside layers: one section or two, who approves, classes to learn."""

from __future__ import annotations

import gc
import shutil

import numpy as np
import pytest

pytest.importorskip("napari", reason="the windows need napari and Qt")

from typing import TYPE_CHECKING

from napari._qt.qt_resources import get_stylesheet
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.align.approval import read_approver
from napari_histodistill.distill.pairs.provenance import SectionRelation
from napari_histodistill.distill.runs.process import RunProcess
from napari_histodistill.widgets.distil.bench import SAME, Turns
from napari_histodistill.widgets.distil.residuals import Residuals
from napari_histodistill.widgets.distil.train.helping import HelpTable
from tests.controllers.distil.test_helping import (
    FIRST,
    plan,
    runs,
    say_always,
    say_the_truth,
)
from tests.widgets.conftest import wait_until
from tests.widgets.distil.test_flow import (
    MPP,
    add_pair,
    open_distil,
    painted,
    preview,
    tick,
)

if TYPE_CHECKING:
    from qtpy.QtGui import QColor

__all__ = ["open_distil", "painted", "plan", "runs"]

pytestmark = pytest.mark.gui


def choose(combo, value):
    combo.setCurrentIndex(combo.findData(value))
    combo.activated.emit(combo.currentIndex())


def sign(step, name):
    step.approver.setText(name)
    step.approver.textEdited.emit(name)
    step.approver.editingFinished.emit()


def test_sections_are_related_approved_and_their_classes_learned(
    open_distil, qtbot, painted
):
    viewer, widget = open_distil()
    _he, marker = add_pair(viewer, painted)
    classes = np.repeat(np.repeat([[1, 2], [2, 0]], 320, 0), 320, 1)
    viewer.add_labels(classes, name="tissue", scale=(MPP.y, MPP.x), units=("um", "um"))
    step, session = widget.align_step, widget.session
    widget.pairing.tick(SAME)
    assert not step.relation_row.isVisibleTo(widget), "there is no other section"
    widget.pairing.tick()
    tick(widget, "marker")
    tick(widget, "tissue")
    assert step.relation.currentData() is SectionRelation.UNKNOWN
    assert not step.approved.isEnabled()
    assert "Type a name first" in step.approved.toolTip()
    choose(step.relation, SectionRelation.SAME)
    sign(step, "Dr. A.")
    assert read_approver() == "Dr. A."
    assert not step.approved.isChecked(), "the name is kept, the tick is not"
    step.approved.click()
    assert session.approved_by == "Dr. A."
    for channel in marker:
        channel.translate = np.array(channel.translate) + 5
    widget.pairing.layers_altered()
    assert not step.approved.isChecked(), "it lies otherwise now"
    step.approved.click()
    train = widget.train_step
    assert not train.learn.isVisibleTo(widget)
    preview(qtbot, widget)
    said = session.said.put_into(session.planned).plan.origin
    assert (said.relation, said.approved_by) == (SectionRelation.SAME, "Dr. A.")
    assert train.learn.isVisibleTo(widget)
    assert "class 1, class 2 apart" in train.learn.toolTip()
    train.learn.click()
    recipe = session.recipe("small")
    assert (recipe.arm, recipe.data.labels_from) == ("supervised", "mask")
    assert [one.name for one in recipe.classes] == ["class 1", "class 2"]
    assert [one.kind for one in recipe.dense] == ["channels"], "the mask is the label"
    assert train.alone.isEnabled()
    widget.pairing.tick()
    tick(widget, "tissue")
    preview(qtbot, widget)
    assert session.said.relation is SectionRelation.UNKNOWN, "another partner"
    assert not train.alone.isEnabled()
    assert "no other partner" in train.alone.toolTip()


def test_the_answer_is_a_table(qtbot):
    table = HelpTable()
    qtbot.addWidget(table)
    rows = (("with partner", "0.812", "one seed"), ("without", "0.790", "one seed"))
    table.show_rows(rows)
    assert table.rows == rows
    assert table.isVisibleTo(None)
    table.show_rows(())
    assert not table.isVisibleTo(None)


def test_the_button_judges_both_students_on_held_out_pairs(open_distil, qtbot, runs):
    say_the_truth(runs / "with")
    say_always(runs / "without", FIRST)
    _viewer, widget = open_distil()
    helping = widget.helping
    assert not helping.here.isEnabled()
    assert "no model yet" in helping.here.toolTip()
    widget.session.run = RunProcess(runs / "with")
    widget.bench.changed.emit()
    assert helping.here.isEnabled(), helping.here.toolTip()
    helping.here.click()
    assert not helping.here.isEnabled()
    assert "being judged" in helping.here.toolTip()
    wait_until(qtbot, lambda: bool(helping.table.rows), 60)
    assert helping.table.rows[:2] == (
        ("with partner", "1.000", "one seed"),
        ("without", "0.250", "one seed"),
    )
    assert "Does the partner help? It helps." in helping.answer.text()
    wait_until(qtbot, helping.here.isEnabled)
    shutil.rmtree(runs / "without")
    widget.bench.changed.emit()
    assert not helping.here.isEnabled()
    assert "Train both first" in helping.here.toolTip()
    assert not helping.table.rows, "an answer of another question is taken away"


def test_the_search_for_garbage_waits_until_all_is_done(qtbot):
    parent, seen = QObject(), []
    turns = Turns(parent)
    turns.start(*[lambda: seen.append(gc.isenabled())] * 2)
    wait_until(qtbot, gc.isenabled)
    assert seen == [False, False]
    assert not turns.active


def contrast(one: QColor, other: QColor) -> float:
    """Return the contrast ratio of two colours (WCAG 2.1)."""
    bright = []
    for color in (one, other):
        srgb = np.array(color.getRgbF()[:3])
        linear = np.where(
            srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4
        )
        bright.append(float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05)
    return max(bright) / min(bright)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_worst_landmark_stands_out_in_either_theme(theme, qtbot):
    listed = Residuals()
    qtbot.addWidget(listed)
    listed.setStyleSheet(get_stylesheet(theme))
    listed.ensurePolished()
    listed.show_residuals(np.array([1.0, 9.0]), np.array([True, True]), worst=1)
    text = listed.item(1).foreground().color()
    behind = listed.palette().color(listed.backgroundRole())
    # What the Web Content Accessibility Guidelines ask of bold text.
    assert contrast(text, behind) > 3
