"""What a training allows: to start, go on, pause, use it; curves; the newest run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_histodistill.controllers.distil.pairs import Planned, inputs_of
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.controllers.distil.preview import (
    Colouring,
    Sight,
    may_be_wanted,
    newest_student,
    say_preview,
)
from napari_histodistill.controllers.distil.run import (
    controls_of,
    curves_of,
    free_run,
    goes_on,
    learns_elsewhere,
    origins_of,
    run_to_show,
    say_run,
    share_done,
)
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.exchange.transforms import without_evidence
from napari_histodistill.distill.pairs.provenance import (
    AlignedBy,
    ImageOrigin,
    PartnerOrigin,
    SectionOrigin,
)
from napari_histodistill.distill.runs.folder import (
    PREVIEW,
    REPORT,
    STUDENT,
    start_run,
)
from napari_histodistill.distill.runs.process import OUTPUT, RunProcess, RunView
from napari_histodistill.errors import StoreError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import slide_from_arrays
from tests.distill.small_runs import small_config, write_textures

MPP = Mpp(0.5, 0.5, "test")


class Run:
    """A run in some state, without a process."""

    def __init__(self, folder, state="running", **known):
        self.folder, self._view = folder, RunView(state, **known)

    def view(self):
        return self._view


@pytest.fixture(scope="module")
def pairs():
    """Pairs of a painted section, laid out once."""
    painted = paint_pair(512)
    session = DistilSession()
    sparse = slide_from_arrays(painted.sparse, name="H&E", mpp=MPP)
    dense = slide_from_arrays(painted.dense, name="mif", mpp=MPP, channels=CHANNELS)
    session.choose(sparse, [Partner("mif", PartnerKind.PICTURE, slide=dense)])
    session.sample(0.5, 32)
    return sparse, session.partners, list(session.plan_work()(CancelToken()))[-1]


@pytest.fixture
def session(pairs):
    """A session with pairs that no run was started with."""
    sparse, partners, planned = pairs
    made = DistilSession()
    made.choose(sparse, partners)
    made.sample(0.5, 32)
    made.take_pairs(planned)
    return made


def controls(session, *, writing=False, starting=False):
    view = None if session.run is None else session.run.view()
    return controls_of(session, view, writing=writing, starting=starting)


def test_without_pairs_nothing_starts_and_says_why():
    can = controls(DistilSession())
    assert "No H&E yet" in can.why_no_start
    assert "There is no model yet" in can.why_no_use
    assert not (can.goes_on)
    assert not (can.works)
    assert not (can.has_run)
    assert not (can.has_report)


def test_a_run_that_is_found_again_says_whose_pairs_it_learns_from(session, tmp_path):
    for _ in session.write_work(tmp_path / "run", "run")(CancelToken()):
        pass
    run = RunProcess(tmp_path / "run")
    again = DistilSession()
    again.follow(run)
    again.know_origins(origins_of(run))
    assert learns_elsewhere(again) == "From H&E with mif. "
    again.choose(session.sparse, [])
    assert learns_elsewhere(again) == "From H&E with mif. "
    other = slide_from_arrays(paint_pair(64).sparse, name="other", mpp=MPP, digest="o")
    again.choose(other, [])
    assert learns_elsewhere(again) == "From H&E with mif, not from this slide. "
    again.follow(RunProcess(tmp_path / "run"))  # it goes on
    assert "H&E with mif" in learns_elsewhere(again)
    again.follow(RunProcess(tmp_path / "next"))
    assert learns_elsewhere(again) == ""


def test_of_many_sections_the_first_are_named():
    session, he = DistilSession(), ImageOrigin("he.svs")
    partner = PartnerOrigin.of(
        ImageOrigin("ihc.svs"), AlignedBy.PLACED, without_evidence(np.eye(3))
    )
    both = SectionOrigin(he, (partner, partner))
    session.know_origins((both, SectionOrigin(he, ()), both, both, both))
    assert learns_elsewhere(session) == (
        "From he.svs with ihc.svs, he.svs, he.svs with ihc.svs and 2 more. "
    )


def test_where_pairs_come_from_is_not_known_or_damaged(session, tmp_path):
    for _ in session.write_work(tmp_path / "run", "run")(CancelToken()):
        pass
    run, about = RunProcess(tmp_path / "run"), tmp_path / "run" / "pairs.zarr/zarr.json"
    content = json.loads(about.read_text())
    content["attributes"]["histodistill"]["origins"] = [None]
    about.write_text(json.dumps(content))
    assert origins_of(run) == ()
    content["attributes"]["histodistill"]["origins"] = [{"he": 3}]
    about.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="the pairs are damaged"):
        origins_of(run)
    about.unlink()  # they are elsewhere now
    assert origins_of(run) == ()


def test_a_run_from_here_says_which_slide_it_is_of(session, tmp_path):
    sparse = session.sparse
    session.mark_trained(session.sections)
    session.follow(RunProcess(tmp_path))
    session.call_student("another title")  # as for the next training
    assert learns_elsewhere(session) == ""
    other = slide_from_arrays(paint_pair(64).sparse, name="other", mpp=MPP, digest="o")
    session.choose(other, [])
    assert learns_elsewhere(session) == "From H&E, not from this slide. "
    session.choose(sparse.with_mpp(Mpp(0.25, 0.25, "typed")), [])
    assert learns_elsewhere(session) == "", "the same section"


def test_pairs_that_wait_can_be_started_once(session, tmp_path):
    assert session.has_new_pairs
    assert controls(session).why_no_start == ""
    assert "being written" in controls(session, writing=True).why_no_start
    assert "being started" in controls(session, starting=True).why_no_start
    session.mark_trained(session.sections)
    assert not session.has_new_pairs
    session.follow(Run(tmp_path))
    can = controls(session)
    assert (can.works, can.paused, can.goes_on) == (True, False, False)
    assert "is running" in can.why_no_start
    session.follow(Run(tmp_path, "paused"))
    assert controls(session).paused


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_run_that_ended_early_goes_on_unless_new_pairs_wait(session, tmp_path, state):
    session.follow(Run(tmp_path, state))
    assert not goes_on(session), "the pairs on the screen are others"
    session.mark_trained(session.sections)
    assert goes_on(session)
    assert controls(session).why_no_start == ""
    assert "being started" in controls(session, starting=True).why_no_start
    session.follow(Run(tmp_path, "finished"))
    assert not goes_on(session)


def test_changed_settings_make_the_pairs_new_again(session):
    asked = next(
        f for f in session.draft().form.all_fields() if f.path == ("schedule", "lr")
    )
    for change in (
        lambda: session.type_setting(asked, "0.01"),
        lambda: session.reset_settings(asked.path),
        lambda: session.train_with_partner(use=False),
        lambda: session.choose_preset("careful"),
    ):
        session.mark_trained(session.sections)
        change()
        assert session.has_new_pairs
    assert session.recipe("x").arm == "unprivileged"


def test_changed_settings_are_counted_where_there_is_a_recipe(session, pairs):
    asked = list(session.draft().form.all_fields())
    by_path = {f.path: f for f in asked}
    session.type_setting(by_path["schedule", "lr"], "0.01")
    session.type_setting(by_path["schedule", "batch"], "8")
    assert session.changed_settings == 2
    session.reset_settings()
    assert session.changed_settings == 0
    session.type_setting(by_path["schedule", "batch"], "8")
    session.choose(*pairs[:2])
    assert session.changed_settings == 0, "there are no pairs"
    assert "Preview the pairs first" in session.why_no_settings
    assert "Preview this section's pairs" in session.why_no_keep


def test_a_student_is_used_and_reported_when_nothing_trains_it(session, tmp_path):
    (tmp_path / STUDENT).mkdir()
    (tmp_path / STUDENT / "spec.json").write_text("{}")
    (tmp_path / REPORT).write_text("<html>")
    session.follow(Run(tmp_path))
    assert session.student == tmp_path / STUDENT
    assert session.ready_student is None
    assert (controls(session).why_no_use != "", controls(session).has_report) == (
        True,
        False,
    )
    session.follow(Run(tmp_path, "finished"))
    assert session.ready_student == tmp_path / STUDENT
    assert session.report == tmp_path / REPORT
    assert (controls(session).why_no_use, controls(session).has_report) == ("", True)


def test_half_the_batch_is_offered_where_memory_may_have_lacked(session, tmp_path):
    config = small_config("unprivileged")
    folder = start_run(config, tmp_path / "run", write_textures(tmp_path / "tiles"))
    session.follow(Run(folder, "stopped"))
    assert controls(session).smaller is None
    session.follow(Run(folder, "failed", reason="memory"))
    offer = controls(session).smaller
    batch = config.schedule.batch
    assert f"{batch // 2} pairs a step in place of {batch}" in offer.words


def event(kind, step, **more):
    return {"kind": kind, "step": step, "steps": 10, "total": 1.0, **more}


def test_curves_have_the_steps_the_validation_and_the_rank():
    curves = curves_of(
        [
            event("step", 1, effective_rank=None),
            event("step", 2, effective_rank=7.0),
            event("validation", 2, effective_rank=None),
            event("checkpoint", 2, effective_rank=None),
            event("step", 3, effective_rank=8.0) | {"total": None},
        ]
    )
    assert curves.steps == 10
    assert curves.loss == ((1, 1.0), (2, 1.0))
    assert curves.validation == ((2, 1.0),)
    assert curves.rank == ((2, 7.0),)
    assert curves_of([]).steps == 1


def test_the_share_of_a_run_is_that_of_its_last_step():
    assert share_done(RunView("running")) is None
    steps = event("step", 2), event("step", 4), event("validation", 9)
    assert share_done(RunView("running", steps)) == 0.4


def test_the_newest_run_is_shown_if_it_could_go_on(tmp_path):
    assert run_to_show(tmp_path) is None
    config = small_config("unprivileged")
    tiles = write_textures(tmp_path / "tiles")
    folder = start_run(config, tmp_path / "runs" / "one", tiles)
    assert run_to_show(tmp_path / "runs").folder == folder
    (folder / OUTPUT).write_text("")
    line = '{"kind": "finished", "step": 3, "steps": 3, "message": "done"}\n'
    (folder / "events.jsonl").write_text(line)
    assert run_to_show(tmp_path / "runs") is None, "it has ended as it should"


def test_a_preview_is_of_the_newest_student_and_says_of_which_step(session, tmp_path):
    assert newest_student(session) is None
    session.follow(Run(tmp_path))
    assert newest_student(session) is None
    for step in (5, 12):
        (tmp_path / PREVIEW / f"step-{step:08}").mkdir(parents=True)
    assert newest_student(session) == (12, tmp_path / PREVIEW / "step-00000012")
    region = Region(y=0, x=0, height=9, width=9)
    step, bundle = newest_student(session)
    sight = Sight(bundle, region, Colouring.ALIKE, step)
    assert say_preview(sight).startswith("After step 12: places of one colour")
    last = Sight(tmp_path, region, Colouring.CENTRE)
    assert say_preview(last).startswith("At the end: yellow is most similar")


def test_the_runs_own_student_is_shown_once_it_has_ended(session, tmp_path):
    (tmp_path / STUDENT).mkdir()
    (tmp_path / STUDENT / "spec.json").write_text("{}")
    session.follow(Run(tmp_path))
    assert newest_student(session) is None, "it may be replaced at any moment"
    session.follow(Run(tmp_path, "finished"))
    assert newest_student(session) == (None, tmp_path / STUDENT)


def test_a_preview_may_be_wanted_from_pairs_to_the_end_of_a_training(session, tmp_path):
    assert may_be_wanted(session, starting=False)
    session.mark_trained(session.sections)
    assert not may_be_wanted(session, starting=False)
    assert may_be_wanted(session, starting=True)
    session.follow(Run(tmp_path))
    assert may_be_wanted(session, starting=False)
    session.follow(Run(tmp_path, "finished"))
    assert not may_be_wanted(session, starting=False)


def test_a_view_is_the_same_whoever_the_student(tmp_path):
    region = Region(y=0, x=0, height=9, width=9)
    one = Sight(tmp_path / "a", region, Colouring.ALIKE, 1)
    other = Sight(tmp_path / "b", region, Colouring.ALIKE, 2)
    assert one.is_same_view(other)
    assert not one.is_like(other)
    assert not one.is_like(None)
    assert one.is_like(Sight(tmp_path / "a", region, Colouring.ALIKE))
    assert not one.is_same_view(Sight(tmp_path / "a", region, Colouring.CENTRE))


def test_student_is_explained_once_whatever_teaches(session):
    same = Partner("same", PartnerKind.SAME)
    session.choose(session.sparse, [*session.partners, same])
    said = session.say_meaning()
    assert said.count("student") == 1
    assert "what these channels show" in said
    assert "low magnification" in said
    session.choose(session.sparse, [])
    assert session.say_meaning() == ""


def test_partners_are_named_to_a_recipe_by_their_place(pairs):
    _, (partner,), planned = pairs
    same = Partner("same", PartnerKind.SAME)
    both = Planned(planned.plan, planned.twins, (same, partner))
    first, second = inputs_of(both)
    assert (first.name, first.kind, first.tile_px) == ("", "image", 32)
    assert (second.name, second.kind) == ("image", "channels")


def test_a_name_is_free_also_for_a_second_run_in_one_second(tmp_path, monkeypatch):
    monkeypatch.setattr("time.localtime", lambda _at: (2026, 11, 3, 9, 0, 0, 1, 307, 0))
    names = []
    for _ in range(3):
        names.append(free_run(tmp_path))
        (tmp_path / names[-1]).mkdir()
    first = "model-20261103-090000"
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_what_leads_to_a_training_can_be_stopped(session, tmp_path):
    assert not controls(session).may_stop
    assert controls(session, writing=True).may_stop
    assert controls(session, starting=True).may_stop
    session.follow(Run(tmp_path, "starting"))
    assert controls(session).may_stop
    session.follow(Run(tmp_path, "gone"))
    assert not controls(session).may_stop


def test_a_run_that_is_asked_to_stop_or_gone_says_so():
    step = {"kind": "step", "step": 3, "steps": 9, "seconds_left": 60.0}
    starting = RunView("starting", stopping=True)
    assert say_run(starting) == "Stopping, before the first step…"
    training = RunView("running", (step,), stopping=True)
    assert say_run(training) == "Stopping, step 3 of 9…"
    nothing = "Stopped on request before the first step: nothing was trained."
    stopped = RunView("stopped", ({"kind": "stopped"},), message=nothing)
    assert say_run(stopped) == nothing
    assert say_run(RunView("gone", message="It is not there.")) == "It is not there."
