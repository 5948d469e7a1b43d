"""What belongs to a slide comes and goes with it."""

from __future__ import annotations

import gc
from weakref import ref

import numpy as np

from napari_histodistill.controllers.shared.map_choice import RegionChoice
from tests.controllers.driving import GLAND, ask, drive, ran_session, run
from tests.fakes import array_slide, coarse_student, tissue_image


def other_slide():
    return array_slide(tissue_image(400, 500))


def busy_session():
    """Return a session with all that can belong to a slide."""
    session = ran_session()
    session.choose_region(RegionChoice.SHAPE)
    session.take_shapes((np.array([(0.0, 0.0), (0, 300), (300, 300)]),))
    session.show_at_least(0.6)
    session.add_prompt(*GLAND, like=True)
    ask(session)
    return session


def test_all_of_a_slide_waits_for_it():
    session = busy_session()
    first = session.slide
    live, similar, prompts = session.live, session.similar, session.prompts
    tissue, shapes, trust = session.tissue, session.shapes, session.map_trust
    session.choose_slide(other_slide())
    assert session.live is None
    assert session.tissue is None
    assert session.similar is None
    assert not session.prompts.items
    assert session.region is RegionChoice.WHOLE
    assert session.shapes == ()
    assert session.showing.at_least == 0, "a filter must not hide another slide's map"
    assert session.map_trust is not trust
    session.choose_slide(first)
    assert session.live is live
    assert live.min_confidence == session.showing.at_least == 0.6
    assert session.similar is similar
    assert session.prompts is prompts
    assert session.tissue is tissue
    assert session.region is RegionChoice.SHAPE
    assert session.shapes is shapes
    assert session.map_trust is trust
    assert session.cells_missing == 0


def test_another_student_s_map_is_not_given_back():
    session = busy_session()
    first, step = session.slide, session.step
    session.choose_slide(other_slide())
    session.choose_student(coarse_student())
    session.choose_slide(first)
    assert session.live is None
    assert not session.prompts.items
    assert session.shapes, "what was drawn is the slide's, whoever looks"
    assert session.tissue is not None
    assert session.step == step, "the default of both"


def test_a_run_fills_the_map_of_its_own_slide():
    session = ran_session()
    live = session.live
    work = session.run_work(restart=True)
    begun = session.live
    assert begun is not live
    other = other_slide()
    session.choose_slide(other)
    assert session.running
    assert not session.runs_here
    assert "another slide" in session.why_not_start
    assert session.why_not_run == ""
    for update in drive(work):
        session.take_update(update)
    assert session.live is None, "nothing of it is drawn here"
    assert begun.cells_done == live.cells_done
    session.run_ended()
    assert session.why_not_start == ""
    run(session)
    assert session.live.cells_done


def test_a_closed_slide_is_forgotten():
    session = busy_session()
    slide = ref(session.slide)
    session.choose_slide(other_slide())
    gc.collect()
    assert slide() is None
