"""Every square, not only tissue: what the command line calls ``--all-cells``."""

from __future__ import annotations

from napari_histodistill.controllers.explore.session import RunAction
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.geometry import Region
from napari_histodistill.running import CancelToken
from tests.controllers.explore.test_session import run, session_for


def test_every_square_is_planned_estimated_and_run():
    session = session_for()
    tissue_alone = session.plan().wanted_cells()
    said = session.detail_in_words
    session.choose_step(session.step)  # a person's step stays
    stride = session.detail.stride_um
    session.choose_every_square(every=True)
    assert session.detail.stride_um == stride
    assert session.plan().wanted_cells().all()
    assert session.plan().wanted_cells().sum() > tissue_alone.sum()
    rows, columns = session.detail.grid.shape
    assert session.detail.cells == rows * columns
    assert session.detail_in_words != said
    assert run(session).live.cells_done == rows * columns
    assert session.run_action is RunAction.DONE


def test_the_map_of_tissue_stays_and_continue_adds_the_glass():
    session = run(session_for())
    before = session.live
    assert session.run_action is RunAction.DONE
    session.choose_every_square(every=True)
    assert session.live is before
    assert session.run_action is RunAction.CONTINUE
    assert session.cells_missing == before.status.size - before.cells_done
    run(session)
    assert session.live is before
    assert session.live.cells_done == before.status.size
    session.choose_every_square(every=False)
    assert session.run_action is RunAction.DONE


def test_the_stored_map_of_tissue_is_shown_when_every_square_is_wanted():
    run(session_for())
    later = session_for()
    later.choose_every_square(every=True)
    assert later.wants_stored()
    for patch in later.stored_work()(CancelToken()):
        later.take_patches([patch])
    assert later.run_action is RunAction.CONTINUE


def test_every_square_of_the_view_is_no_more_than_the_view():
    session = session_for()
    session.choose_every_square(every=True)
    session.look_at(Region(y=0, x=0, height=128, width=128))
    session.choose_region(RegionChoice.VIEW)
    wanted = session.plan().wanted_cells()
    assert wanted.any()
    assert wanted.sum() < wanted.size / 4


def test_another_slide_keeps_the_switch():
    session = session_for()
    session.choose_every_square(every=True)
    session.choose_slide(session.slide)
    assert session.every_square
