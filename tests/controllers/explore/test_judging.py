"""The verdict on a map: judged after it is there, said first, and heeded."""

from __future__ import annotations

import csv
import dataclasses
import json
import threading
import time

import numpy as np
import pytest

from napari_histodistill.controllers.explore.judging import (
    Judged,
    JudgeProgress,
    MapTrust,
)
from napari_histodistill.controllers.explore.session import ExploreSession
from napari_histodistill.controllers.explore.shown import canvas_legend
from napari_histodistill.controllers.explore.teach.teaching import Strokes
from napari_histodistill.controllers.explore.trust import (
    CARE,
    GOOD,
    hatching_tip,
    headline_on,
    like_only_tip,
    notes_on,
    where_on,
)
from napari_histodistill.controllers.shared.exporting import ExportKey, export_work
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.errors import Cancelled, ComputeError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.maps import trust as core
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.students.spec import CalibrationSpec, ClassSpec
from napari_histodistill.students.trust import NO_REFERENCE, Oddity, Verdict
from tests.fakes import colour_student
from tests.weaves import TILE, reference, woven

OWN = woven("spots", 8 * TILE, 10 * TILE, case=500)
OTHER = woven("stripes", 8 * TILE, 10 * TILE, case=501)
HALVES = np.concatenate([OWN[:, : 5 * TILE], OTHER[:, 5 * TILE :]], axis=1)


def student(*, known=True):
    found = colour_student(tile_px=TILE)
    found.trust = reference() if known else None
    return found


def session_on(image, who=None, *, mode="tiles", step=0):
    session = ExploreSession()
    slide = slide_from_arrays([image], name="woven", mpp=Mpp(1.0, 1.0, "a test"))
    session.choose_slide(slide)
    session.choose_student(who or student(), tiles_per_s=100.0)
    session.choose_every_square(every=True)
    session.choose_mode(mode)
    session.choose_step(step)
    return run(session)


def run(session):
    for update in session.run_work()(CancelToken()):
        session.take_update(update)
    session.run_ended()
    return session


def judge(session):
    reports = list(session.judge_work()(CancelToken()))
    for report in reports:
        session.take_judged(report)
    session.judging_ended("")
    return reports


def test_before_a_comparison_nothing_good_is_said():
    session = ExploreSession()
    assert headline_on(session).text == "Nothing to judge yet."
    session = session_on(OWN)
    assert headline_on(session).sign == CARE
    assert headline_on(session).text.startswith("Not yet compared")


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
def test_other_tissue_is_not_to_be_read(mode):
    session = session_on(OTHER, mode=mode)
    *compared, last = judge(session)
    assert isinstance(last, Judged)
    assert compared
    assert all(isinstance(report, JudgeProgress) for report in compared)
    note = headline_on(session)
    assert note.sign == CARE
    assert (
        note.text == "Not like mean colour (a test's student): do not read the classes"
    )
    assert where_on(session).startswith("100% of 80 squares compared")
    assert session.trust.verdict is Verdict.UNLIKE
    warning = canvas_legend(session, ()).warning
    assert warning.startswith("▲ Not like")
    assert warning.endswith("do not read the classes")
    assert session.hatching
    assert session.hatching_in_words == "Unlike the training: 80 of 80 squares"
    assert "Areas" not in hatching_tip(session)
    reasons = [n.text for n in notes_on(session)]
    assert session.trust.reasons[0] in reasons
    assert "unlike what the model learned from" in session.describe(100, 100)


def test_of_a_student_without_classes_what_looks_alike_is_not_to_be_trusted():
    without = colour_student(tile_px=TILE, with_head=False)
    without.trust = reference()
    session = session_on(OTHER, without)
    judge(session)
    assert session.trust.verdict is Verdict.UNLIKE
    assert headline_on(session).text.endswith("do not trust what looks alike")


def test_own_tissue_is_like_as_far_as_squares_tell():
    session = session_on(OWN)
    judge(session)
    note = headline_on(session)
    assert note.sign == GOOD
    assert note.text == "Like what the model learned from, as far as 80 squares tell"
    assert session.judge_work() is None, "once is enough"


def test_a_view_of_few_squares_gets_no_good_word():
    session = ExploreSession()
    slide = slide_from_arrays([OWN], name="woven", mpp=Mpp(1.0, 1.0, "a test"))
    session.choose_slide(slide)
    session.choose_student(student())
    session.choose_every_square(every=True)
    session.choose_step(0)
    session.choose_region(RegionChoice.VIEW)
    session.look_at(Region(y=0, x=0, height=4 * TILE, width=5 * TILE))
    run(session)
    judge(session)
    assert session.map_trust.trust.squares == 20
    assert session.trust.verdict is Verdict.TOO_LITTLE
    assert headline_on(session).text.startswith("Too little seen to say:")
    assert session.live.snapshot().trust.verdict is Verdict.TOO_LITTLE


def test_between_like_and_unlike_is_not_said_to_be_too_little_seen():
    session = session_on(OWN)
    judge(session)
    between = dataclasses.replace(
        session.map_trust.judged.trust,
        verdict=Verdict.TOO_LITTLE,
        oddities=(Oddity.BETWEEN,),
        reasons=("The squares lie farther out.",),
    )
    judged = dataclasses.replace(session.map_trust.judged, trust=between)
    session.map_trust.judged = judged
    said = headline_on(session).text
    assert said == "Between like and unlike: the squares lie farther out."


def test_a_student_without_a_reference_says_so():
    session = session_on(OWN, student(known=False))
    judge(session)
    assert headline_on(session).sign == CARE
    said = headline_on(session).text.casefold()
    assert NO_REFERENCE.casefold() in said
    assert session.why_not_leave_out == NO_REFERENCE
    assert session.judge_work() is None


def test_classes_taught_by_strokes_are_too_little_and_not_hatched():
    session = session_on(HALVES, step=1)
    judge(session)
    assert session.hatching
    classes = (
        ClassSpec(name="one", color="#e69f00"),
        ClassSpec(name="two", color="#56b4e9"),
    )
    labels = np.zeros((80, 100), np.uint8)
    labels[:, :30], labels[:, 70:] = 1, 2
    strokes = Strokes(labels, classes)
    for taught in session.teach_work(strokes)(CancelToken()):
        session.take_taught(taught)
    assert session.trust.verdict is Verdict.TOO_LITTLE
    assert headline_on(session).text.startswith("Too little seen to say: the classes")
    assert session.hatching == ()
    assert "strokes" in session.why_not_leave_out
    assert session.live.snapshot().trust.verdict is Verdict.TOO_LITTLE


def test_unlike_squares_are_left_out_of_map_areas_and_exports(tmp_path):
    session = session_on(HALVES)
    judge(session)
    before = session.class_rows()
    session.leave_out_unlike(wanted=True)
    assert sum(row.cells for row in session.class_rows()) == 80, "not yet compared all"
    assert session.judge_work() is not None
    judge(session)
    assert session.trust.every
    right = session.live.shown[:, 5:]
    assert (right == 0).mean() > 0.9
    assert (session.live.shown[:, :5] > 0).mean() > 0.9
    rows = session.class_rows()
    assert sum(row.mm2 for row in rows) < 0.6 * sum(row.mm2 for row in before)
    assert sum(row.all_mm2 for row in rows) == pytest.approx(
        sum(row.mm2 for row in before)
    )
    assert "left out" in session.hatching_in_words
    assert "Areas in the list" in hatching_tip(session)

    snapshot = session.live.snapshot()
    assert snapshot.left_out.sum() > 0
    table, outlines = tmp_path / "areas.csv", tmp_path / "map.geojson"
    for key, path in (
        (ExportKey.CLASS_AREAS, table),
        (ExportKey.CLASS_OUTLINES, outlines),
    ):
        list(export_work(key, path, classes=snapshot, similar=None)(CancelToken()))
    written = list(csv.DictReader(table.read_text("utf-8").splitlines()))
    assert {row["verdict"] for row in written} == {session.trust.verdict.value}
    assert sum(float(row["all_mm2"]) for row in written) > 1.5 * sum(
        float(row["mm2"]) for row in written
    )
    facts = json.loads(outlines.read_text("utf-8"))["trust"]
    assert facts["verdict"] == session.trust.verdict.value
    assert facts["every_square"]

    session.leave_out_unlike(wanted=False)
    assert session.class_rows() == tuple(
        row for row in session.class_rows() if row.mm2 == row.all_mm2
    )
    assert sum(row.cells for row in session.class_rows()) == 80


def test_a_verdict_is_of_the_map_on_screen():
    session = session_on(OTHER)
    judge(session)
    session.choose_step(1)
    assert session.trust is None
    assert session.hatching == ()
    assert headline_on(session).text == "Nothing to judge yet."


def test_the_stored_verdict_is_not_computed_again(monkeypatch):
    judge(session_on(OTHER))
    monkeypatch.setattr(core, "judge_slide", None)
    again = session_on(OTHER)
    assert len(judge(again)) == 1
    assert again.trust.verdict is Verdict.UNLIKE


def test_a_comparison_stops_when_it_is_told_to(monkeypatch):
    stopped = threading.Event()

    def endless(*_args, cancel, progress, **_kwargs):
        try:
            while True:
                progress(1, 2)
                time.sleep(0.01)
                cancel.check()
        except Cancelled:
            stopped.set()
            raise

    monkeypatch.setattr(core, "judge_slide", endless)
    session = session_on(OTHER)
    job = Job(session.judge_work(), name="judging", capacity=2)
    job.start()
    while not job.poll():
        time.sleep(0.01)
    job.abandon()
    assert job.join(5)
    assert stopped.is_set()
    job.poll()
    assert job.state is JobState.CANCELLED


def test_a_comparison_that_fails_is_said_and_not_tried_for_ever(monkeypatch):
    def fails(*_args, **_kwargs):
        raise ComputeError("The encoder is gone.")

    monkeypatch.setattr(core, "judge_slide", fails)
    session = session_on(OTHER)
    with pytest.raises(ComputeError):
        list(session.judge_work()(CancelToken()))
    session.judging_ended("The encoder is gone.")
    assert headline_on(session).text == "Not compared: The encoder is gone."
    assert session.judge_work() is None
    session.leave_out_unlike(wanted=True)
    assert session.judge_work() is not None


def test_calibration_is_said_with_the_verdict():
    who = student()
    session = session_on(OWN, who)
    judge(session)
    said = " ".join(n.text for n in notes_on(session))
    assert "was not measured" in said
    measured = CalibrationSpec(
        error=0.031, sure_share=0.6, sure_right=0.95, protocol="120 tiles of 9 cases"
    )
    who.spec = who.spec.model_copy(update={"calibration": measured})
    said = " ".join(n.text for n in notes_on(session))
    assert "calibration error 0.031" in said
    assert "95% were right" in said


def test_how_long_all_squares_take_is_said_before():
    session = session_on(OTHER)
    assert "about 3 s of one processor core" in like_only_tip(session)
    session.running = True
    assert session.why_not_leave_out.startswith("Wait until the run")


def test_what_was_read_with_an_unlike_square_is_hatched_too():
    session = session_on(HALVES, step=1)
    *_, last = judge(session)
    assert not last.trust.every
    columns = session.detail.grid.shape[1]
    finest = last.hatching[0]
    wide = finest.shape[1] // columns
    hatched = finest.any(axis=0).reshape(columns, wide).any(axis=1)
    assert last.unlike.any(axis=0).sum() < hatched.sum()
    assert hatched[columns // 2 + 1 :].all()
    session.leave_out_unlike(wanted=True)
    *_, last = judge(session)
    finest = last.hatching[0]
    rows = session.detail.grid.shape[0]
    marked = finest.reshape(rows, wide, columns, wide).any(axis=(1, 3))
    np.testing.assert_array_equal(marked, last.unlike)


def test_nothing_is_wanted_of_an_empty_map():
    assert not MapTrust().wants(0)
    assert MapTrust().wants(1)
