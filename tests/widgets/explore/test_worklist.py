"""A folder of slides as a worklist, looked through with real clicks and keys."""

from __future__ import annotations

from threading import Event

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from scipy.ndimage import gaussian_filter

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.worklist import RowState
from napari_histodistill.controllers.shared.student_list import StudentChoice
from napari_histodistill.slides import open_slide
from napari_histodistill.widgets.explore.dock import ExploreWidget
from napari_histodistill.widgets.shared import slide_chooser
from napari_histodistill.widgets.shared.overlays import OverlayKind
from tests.controllers.explore.test_judging import student
from tests.fakes import array_slide, colour_student, tissue_image
from tests.weaves import TILE, woven
from tests.widgets.conftest import wait_until
from tests.widgets.explore.test_flow import add_slide, idle, ready, slow_student

pytestmark = pytest.mark.gui

NAMES = [
    f"case {k} of a study with a name that no panel is wide enough for, {what}.tif"
    for k, what in ((1, "HE"), (2, "HE"), (9, "brown"), (10, "silent"), (11, "broken"))
]


def brown(height, width):
    """Return what DAB would stain: brown on pale blue."""
    noise = gaussian_filter(np.random.default_rng(3).normal(size=(height, width)), 1.5)
    share = (1 / (1 + np.exp(-3 * noise / noise.std())))[..., np.newaxis]
    pale, dab = np.array([205, 205, 220]), np.array([120, 75, 40])
    return (pale + share * (dab - pale)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five slides: two alike, one brown, one without µm/px, one broken."""
    made = tmp_path_factory.mktemp("study")
    spots = [woven("spots", 6 * TILE, 8 * TILE, case=k) for k in (501, 502, 503)]
    pictures = (spots[0], spots[1], brown(6 * TILE, 8 * TILE), spots[2])
    for name, picture in zip(NAMES, pictures, strict=False):
        says = {} if "silent" in name else {"resolution": (1e4, 1e4)}
        tifffile.imwrite(
            made / name, picture, photometric="rgb", tile=(256, 256),
            resolutionunit="CENTIMETER" if says else None, **says,
        )  # fmt: skip
    (made / NAMES[-1]).write_bytes(b"II*\0rubbish")
    (made / "notes.txt").touch()
    return made


def rows(widget):
    return widget.choosing.worklist.rows


def badges(widget):
    """Return what the list shows beside each name."""
    shown = widget.slide_panel.slide
    items = [shown.topLevelItem(k) for k in range(shown.topLevelItemCount())]
    return [item.text(1) for item in items]


def click_row(widget, index):
    """Click a row of the list."""
    shown = widget.slide_panel.slide
    item = shown.topLevelItem(index)
    shown.scrollToItem(item)
    where = shown.visualItemRect(item).center()
    QTest.mouseClick(shown.viewport(), Qt.MouseButton.LeftButton, pos=where)


def looks_at(widget, name):
    """Return whether a slide is the one on the bench, with nothing going on."""
    return lambda: (
        widget.bench.slide_layer is not None
        and widget.bench.slide_layer.name == name
        and idle(widget)()
    )


def press_key(viewer, key):
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    QTest.keyClick(canvas, key)


def visible_slides(viewer):
    return [x.name for x in viewer.layers if x.visible and x.name in NAMES]


def run_on(widget, qtbot):
    wait_until(qtbot, lambda: ready(widget)() and widget.run_panel.button.isEnabled())
    QTest.mouseClick(widget.run_panel.button, Qt.MouseButton.LeftButton)
    wait_until(qtbot, idle(widget), timeout_s=40)


def fits(viewer, layer):
    """Return whether a layer fills the canvas and is all in it."""
    low, high = layer.extent.world[:, -2:]
    extent = (high - low) * viewer.scene.camera.zoom
    share = (extent / np.array(viewer.canvas.size)).max()
    centre = np.array(viewer.scene.camera.center[-2:])
    return 0.7 < share <= 1.01 and np.allclose(centre, (low + high) / 2, atol=2)


def test_a_folder_is_looked_through_from_end_to_end(explore, folder, qtbot):
    viewer, widget = explore(student())
    widget.choosing.open_worklist(folder)
    wait_until(qtbot, looks_at(widget, NAMES[0]))
    assert [row.name for row in rows(widget)] == NAMES, "in the order that people count"
    assert widget.slide_panel.slide.topLevelItem(0).toolTip(0).count(NAMES[0]) == 1
    run_on(widget, qtbot)
    assert badges(widget)[0] == "● like"
    live = widget.session.live
    assert widget.run_panel.message.text().startswith("Done")

    press_key(viewer, Qt.Key.Key_N)
    wait_until(qtbot, looks_at(widget, NAMES[1]))
    assert visible_slides(viewer) == [NAMES[1]]
    assert fits(viewer, widget.bench.slide_layer)
    assert "Done" not in widget.run_panel.message.text(), "that was of the other slide"
    first_map = next(x for x in viewer.layers if x.data is live.shown)
    assert not first_map.visible
    widget.mapping.choose_step(0)
    QTest.keyClick(widget.slide_panel.slide, Qt.Key.Key_Down)
    wait_until(qtbot, looks_at(widget, NAMES[2]))
    run_on(widget, qtbot)
    assert badges(widget)[2] == "▲ unlike"
    assert "brown stain" in widget.trust_panel.where.text()
    assert "▲ Not like" in widget.trust_panel.headline.text()

    click_row(widget, 3)
    wait_until(qtbot, looks_at(widget, NAMES[3]))
    assert badges(widget)[3] == "▲ µm/px?"
    assert widget.slide_panel.mpp.isVisible()
    assert not widget.run_panel.button.isEnabled()
    assert {str(u) for x in viewer.layers for u in x.units} == {"micrometer"}
    widget.choosing.give_mpp(1.0)
    wait_until(qtbot, ready(widget))
    assert badges(widget)[3] == ""

    press_key(viewer, Qt.Key.Key_N)
    wait_until(qtbot, lambda: rows(widget)[4].state is RowState.BROKEN)
    assert badges(widget)[4] == "▲ broken"
    assert NAMES[4] in rows(widget)[4].badge.tip
    assert widget.bench.slide_layer.name == NAMES[3], "the last one stays"
    click_row(widget, 4)
    assert widget.bench.slide_layer.name == NAMES[3]

    click_row(widget, 0)
    wait_until(qtbot, looks_at(widget, NAMES[0]))
    assert widget.session.live is live, "nothing was computed again"
    assert first_map.visible
    assert visible_slides(viewer) == [NAMES[0]]
    assert badges(widget)[:3] == ["● like", "", "▲ unlike"]
    press_key(viewer, Qt.Key.Key_P)
    assert "first of the list" in widget.run_panel.message.text()

    QTest.keyClick(widget.slide_panel.slide, Qt.Key.Key_Delete)
    wait_until(qtbot, looks_at(widget, NAMES[1]))
    assert NAMES[0] not in [row.name for row in rows(widget)]
    assert NAMES[0] not in viewer.layers
    assert first_map not in viewer.layers


def test_a_stored_map_is_seen_before_its_slide_is_opened(explore, folder, qtbot):
    _, widget = explore(student())
    widget.choosing.open_path(folder / NAMES[1])
    wait_until(qtbot, looks_at(widget, NAMES[1]))
    run_on(widget, qtbot)
    QTest.keyClick(widget.slide_panel.slide, Qt.Key.Key_Delete)
    wait_until(qtbot, lambda: not rows(widget))
    widget.choosing.open_worklist(folder)
    wait_until(qtbot, looks_at(widget, NAMES[0]))
    assert rows(widget)[1].state is RowState.WAITING
    assert badges(widget)[1:3] == ["● like", ""]
    assert "is stored" in widget.slide_panel.slide.topLevelItem(1).toolTip(0)


def test_a_slide_that_is_removed_while_it_opens_does_not_come_back(
    explore, folder, qtbot, monkeypatch
):
    viewer, widget = explore()
    widget.choosing.open_worklist(folder)
    wait_until(qtbot, looks_at(widget, NAMES[0]))
    may_go_on, began, ended = Event(), Event(), Event()

    def slow_opening(path, **known):
        began.set()
        may_go_on.wait(20)
        try:
            return open_slide(path, **known)
        finally:
            ended.set()

    monkeypatch.setattr(slide_chooser, "open_slide", slow_opening)
    click_row(widget, 1)
    wait_until(qtbot, began.is_set)
    assert rows(widget)[1].state is RowState.OPENING
    widget.slide_panel.slide.removed.emit(1)
    names = [name for name in NAMES if name != NAMES[1]]
    assert [row.name for row in rows(widget)] == names
    may_go_on.set()
    wait_until(qtbot, ended.is_set)
    wait_until(qtbot, idle(widget))
    qtbot.wait(200)
    assert [row.name for row in rows(widget)] == names
    assert NAMES[1] not in viewer.layers
    assert widget.bench.slide_layer.name == NAMES[0]
    assert "Opening" not in widget.run_panel.message.text()


def test_a_run_goes_on_while_another_slide_is_looked_at(explore, qtbot):
    viewer, widget = explore(slow_student())
    first = add_slide(viewer, array_slide())
    wait_until(qtbot, ready(widget))
    widget.run_panel.button.click()
    wait_until(qtbot, lambda: widget.session.live.cells_done > 0)
    live = widget.session.live
    add_slide(viewer, array_slide(tissue_image(400, 500)))
    assert widget.bench.slide_layer is not first, "what is opened is looked at"
    assert widget.bench.pump.is_active(ExploreJob.RUN)
    assert not widget.session.runs_here
    done = live.cells_done
    wait_until(qtbot, lambda: live.cells_done > done)
    assert badges(widget)[0].startswith("◐")
    assert widget.run_panel.message.text().startswith("array: ")
    assert widget.session.live is None or not widget.session.live.cells_done
    # Removed, it ends at once, and takes along what lay over it.
    viewer.layers.remove(first)
    qtbot.wait(50)
    assert not widget.bench.pump.is_active(ExploreJob.RUN)
    assert not widget.session.running
    assert all(x.data is not live.shown for x in viewer.layers)
    wait_until(qtbot, ready(widget))
    assert widget.run_panel.button.isEnabled()


def test_what_a_person_added_is_neither_hidden_nor_moved(explore, qtbot):
    viewer, widget = explore()
    mine = viewer.add_image(tissue_image(300, 300), rgb=True, name="mine")
    wait_until(qtbot, lambda: widget.session.slide is not None)
    slide = add_slide(viewer, array_slide())
    wait_until(qtbot, lambda: widget.bench.slide_layer is slide)
    assert mine.visible
    viewer.layers.move(viewer.layers.index(mine), len(viewer.layers))
    other = add_slide(viewer, array_slide(tissue_image(400, 500)))
    wait_until(qtbot, lambda: widget.bench.slide_layer is other)
    widget.choosing.choose_layer(slide)
    assert mine.visible
    assert not other.visible
    assert "mine lies over it" in widget.run_panel.message.text()


def test_two_viewers_keep_to_themselves(explore, open_viewer, qtbot):
    viewer, widget = explore()
    second = open_viewer()
    student_ = colour_student()
    beside = ExploreWidget(
        second,
        load=lambda name, device="auto": student_,
        students=[StudentChoice("colour", student_.spec)],
    )
    second.window.add_dock_widget(beside, area="right", name="Explore slide")
    layer = add_slide(viewer, array_slide())
    run_on(widget, qtbot)
    assert beside.session.slide is None
    assert rows(beside) == ()
    other = add_slide(second, array_slide(tissue_image(400, 500)))
    run_on(beside, qtbot)
    press_key(second, Qt.Key.Key_N)
    assert "last of the list" in beside.run_panel.message.text()
    assert "last" not in widget.run_panel.message.text()
    assert widget.bench.slide_layer is layer
    assert beside.bench.slide_layer is other
    for panel in (widget, beside):
        assert panel.bench.overlays.get(OverlayKind.CLASSES).visible
