"""Sessions driven without a window: work is run here, its reports handed back."""

from __future__ import annotations

import time

import pytest

from napari_histodistill.controllers.explore.session import ExploreSession
from napari_histodistill.controllers.shared.map_work import tissue_work
from napari_histodistill.errors import Cancelled
from napari_histodistill.running import CancelToken
from tests.fakes import array_slide, colour_student

GLAND, OTHER_GLAND = (210.0, 240.0), (390.0, 360.0)
STROMA, GLASS = (300.0, 640.0), (20.0, 20.0)
"""Places on :func:`tests.fakes.tissue_image`, level-0 px."""


def drive(work):
    """Run work to its end, as a job does; return its reports."""
    return list(work(CancelToken()))


def open_session(slide=None, student=None, *, tissue=True) -> ExploreSession:
    """Return a session that can run."""
    session = ExploreSession()
    session.choose_slide(array_slide() if slide is None else slide)
    session.choose_student(colour_student() if student is None else student)
    if tissue:
        session.take_tissue(find_once(session.slide))
    return session


_FOUND = {}


def find_once(slide):
    """Return a slide's tissue; finding it is what takes longest in these tests."""
    if slide.info.digest not in _FOUND:
        (found,) = drive(tissue_work(slide))
        _FOUND[slide.info.digest] = found.tissue  # frozen, so it can be shared
    return _FOUND[slide.info.digest]


def run(session, *, restart=False):
    """Press Run and wait; return the last report."""
    report = None
    for update in session.run_work(restart=restart)(CancelToken()):
        session.take_update(update)
        report = update.report
    session.run_ended()
    return report


def stop_after_the_first_block(session):
    """Press Run, and Cancel when the first part of the map appears."""
    token = CancelToken()

    def until_cancelled():
        for update in session.run_work()(token):
            session.take_update(update)
            if update.patch is not None:
                token.cancel()

    with pytest.raises(Cancelled):
        until_cancelled()
    session.run_ended()


def finish(job):
    """Start a job and poll it to its end; return its reports."""
    reports, stop = [], time.monotonic() + 20
    job.start()
    while job.is_active:
        reports += job.poll()
        assert time.monotonic() < stop
        time.sleep(0.002)
    return reports


def computed(session) -> int:
    """Return how many tiles the session's student has looked at."""
    return sum(session.student.backend.batches)


def ran_session(slide=None, student=None) -> ExploreSession:
    """Return a session whose map is complete."""
    session = open_session(slide, student)
    run(session)
    return session


def show_stored(session):
    """Read the stored map, as the panel does when a slide is opened again."""
    for patch in drive(session.stored_work()):
        session.live.apply(patch)


def ask(session):
    """Answer the present prompts; return what was reported."""
    answers = drive(session.query_work())
    for answer in answers:
        session.take_answer(answer)
    return answers
