"""What was painted is kept as a draft, offered again, and asked about if it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari", reason="the windows need napari and Qt")

from qtpy.QtCore import Qt

from napari_histodistill.controllers.shared.student_list import StudentChoice
from napari_histodistill.widgets.explore.dock import ExploreWidget
from tests.fakes import array_slide, colour_student
from tests.widgets.conftest import close_viewer, wait_until
from tests.widgets.explore.test_flow import add_slide, ready
from tests.widgets.explore.test_kept import edit_tissue, other_slide, paint, pick

pytestmark = pytest.mark.gui


def files():
    return sorted(Path(os.environ["HISTODISTILL_DRAFTS"]).glob("*.json"))


def kept(qtbot, widget, count=1):
    """Let time pass until drafts were saved by themselves."""
    wait_until(qtbot, lambda: len(files()) == count)
    wait_until(qtbot, lambda: not widget.keeping.keeper.due(widget.keeping.made()))


@pytest.fixture
def painted(explore, qtbot):
    """A window in which strokes, a class name and tissue were drawn, then closed."""

    def one():
        viewer, widget = explore()
        add_slide(viewer, array_slide())
        wait_until(qtbot, ready(widget))
        strokes = paint(widget)
        widget.teaching.rename(0, "crypt")
        tissue = edit_tissue(widget)
        pixels = strokes.data.copy(), tissue.data.copy()
        kept(qtbot, widget)
        close_viewer(qtbot, viewer, widget)
        return pixels

    return one


def reopened(explore, qtbot):
    viewer, widget = explore()
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    return viewer, widget


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.mark.either_qt
def test_a_closed_window_loses_nothing(explore, painted, qtbot):
    strokes, tissue = painted()
    _, widget = reopened(explore, qtbot)
    row = widget.draft_row
    wait_until(qtbot, row.isVisible)
    assert row.words.text().startswith("Strokes and tissue of ")
    assert row.words.text().endswith("were not saved. Go on with them?")
    click(qtbot, row.restore_button)
    overlays = widget.bench.overlays
    np.testing.assert_array_equal(overlays.get("strokes").data, strokes)
    np.testing.assert_array_equal(overlays.get("tissue").data > 0, tissue > 0)
    assert widget.teach_panel.chips[0].name.text() == "crypt"
    assert not row.isVisible()
    # The old file goes when the new panel has its own.
    old = files()
    wait_until(qtbot, lambda: len(files()) == 1 and files() != old)
    widget.mapping._take_edited_tissue()
    assert widget.session.tissue.mask.shape == tissue.shape


def test_a_discarded_draft_is_gone(explore, painted, qtbot):
    painted()
    viewer, widget = reopened(explore, qtbot)
    wait_until(qtbot, widget.draft_row.isVisible)
    click(qtbot, widget.draft_row.discard_button)
    assert not widget.draft_row.isVisible()
    assert not files()
    close_viewer(qtbot, viewer, widget)
    _, widget = reopened(explore, qtbot)
    qtbot.wait(300)
    assert not widget.draft_row.isVisible()


def test_it_is_offered_on_its_own_slide_only(explore, painted, qtbot):
    painted()
    viewer, widget = explore()
    add_slide(viewer, other_slide())
    wait_until(qtbot, ready(widget))
    qtbot.wait(300)
    assert not widget.draft_row.isVisible()
    layer = add_slide(viewer, array_slide())
    pick(widget, layer)
    wait_until(qtbot, widget.draft_row.isVisible)
    pick(widget, viewer.layers[0])
    assert not widget.draft_row.isVisible()


def test_what_is_painted_beside_an_offer_does_not_cost_it(explore, painted, qtbot):
    strokes, _ = painted()
    viewer, widget = reopened(explore, qtbot)
    wait_until(qtbot, widget.draft_row.isVisible)
    mine = paint(widget)
    mine.data[:] = 0
    mine.data[100:110, 100:110] = 2
    kept(qtbot, widget, count=2)
    click(qtbot, widget.draft_row.restore_button)
    np.testing.assert_array_equal(widget.bench.overlays.get("strokes").data, strokes)
    # Both can be had again: what was painted here, and what was restored over it.
    close_viewer(qtbot, viewer, widget)
    _, widget = reopened(explore, qtbot)
    wait_until(qtbot, widget.draft_row.isVisible)
    offered = [draft.path for draft in widget.keeping._offers]
    assert len(offered) == 2


@pytest.mark.either_qt
def test_a_panel_that_is_opened_again_offers_nothing_that_is_there(
    explore, qtbot, open_viewer
):
    viewer, widget = explore()
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    strokes = paint(widget)
    viewer.window.remove_dock_widget(widget)
    assert widget.is_closed
    assert len(files()) == 1, "the last strokes before closing are kept, too"
    student = colour_student()
    again = ExploreWidget(
        viewer,
        load=lambda name, device="auto": student,
        students=[StudentChoice("colour", student.spec)],
    )
    viewer.window.add_dock_widget(again, area="right", name="Explore slide")
    wait_until(qtbot, ready(again))
    assert again.bench.overlays.get("strokes") is strokes
    kept(qtbot, again)
    assert not again.draft_row.isVisible()


def test_a_saved_model_clears_its_draft_until_something_changes(explore, qtbot):
    viewer, widget = explore()
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    strokes = paint(widget)
    kept(qtbot, widget)
    slide = widget.session.slide
    widget.keeping._save_begun(slide)
    widget.keeping._saved(None, slide)
    assert not files()
    widget.keeping.look()
    qtbot.wait(200)
    assert not files()
    strokes.data[60:70, 60:70] = 2
    kept(qtbot, widget)


def test_a_model_that_is_saved_late_clears_the_draft_of_its_own_slide(explore, qtbot):
    viewer, widget = explore()
    first = add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    strokes = paint(widget)
    slide = widget.session.slide
    kept(qtbot, widget)
    widget.keeping._save_begun(slide)
    strokes.data[60:70, 60:70] = 2  # painted while it is being written
    add_slide(viewer, other_slide())
    wait_until(qtbot, ready(widget))
    paint(widget)
    kept(qtbot, widget, 2)
    there = files()
    widget.keeping._saved(None, slide)
    assert len(files()) == 1, "the draft of the slide that is looked at stays"
    kept(qtbot, widget, 2)
    assert files() == there, "what was painted since is kept"
    pick(widget, first)


def test_where_nothing_can_be_written_it_says_so_once_and_asks(
    explore, qtbot, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HISTODISTILL_DRAFTS", str(tmp_path / "file" / "drafts"))
    viewer, widget = explore()
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    strokes = paint(widget)
    said = []
    widget.bench.said.connect(said.append)
    wait_until(qtbot, lambda: any("not kept as a draft" in x for x in said))
    strokes.data[60:70, 60:70] = 2
    widget.keeping.look()
    wait_until(qtbot, lambda: widget.keeping._saving is None)
    assert len([x for x in said if "not kept as a draft" in x]) == 1
    asked, answers = [], [False, True]

    def ask(titles):
        asked.append(titles)
        return answers.pop(0)

    widget.keeping.ask_close = ask
    window = viewer.window._qt_window
    window.close()
    assert window.isVisible(), "a person may stay and save"
    assert asked == ["what you painted"]
    assert widget.may_close(), "or close all the same"
    assert len(asked) == 2


def test_nothing_is_asked_where_drafts_are_kept(explore, qtbot):
    viewer, widget = explore()
    add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    paint(widget)
    widget.keeping.ask_close = pytest.fail
    close_viewer(qtbot, viewer, widget)
    assert len(files()) == 1
