"""What the Explore session promises: no work lost, none done twice, no riddle said."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from napari_histodistill.controllers.explore.session import RunAction
from napari_histodistill.controllers.explore.trust import notes_on
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.slide_session import why_stay
from napari_histodistill.errors import Cancelled, InputError, SlideError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.tissue import TissueMask
from napari_histodistill.students.student import Student
from tests.controllers.driving import (
    GLAND,
    GLASS,
    STROMA,
    ExploreSession,
    computed,
    finish,
    open_session,
    ran_session,
    run,
    show_stored,
    stop_after_the_first_block,
)
from tests.fakes import array_slide, colour_student, tissue_image

LEFT = Region(y=0, x=0, height=600, width=300)


def other_student():
    colour = colour_student()
    return Student(colour.spec, colour.backend, head=colour.head, digest="d1" * 16)


# --- what can be done, and why not ----------------------------------------------------


def test_each_missing_thing_is_named_in_turn():
    session = ExploreSession()
    assert "Open a slide" in session.why_not_run
    with pytest.raises(InputError, match="Open a slide"):
        session.plan()
    session.choose_slide(array_slide())
    assert "Choose a model" in session.why_not_run
    session.lose_student("There is no student 'x'.")
    assert session.why_not_run == "There is no student 'x'."
    session.choose_student(colour_student())
    assert session.why_not_run == ""
    assert session.plan().store_path.suffix == ".zarr"


def test_a_student_that_is_being_loaded_is_waited_for():
    session = open_session()
    session.await_student()
    assert session.student is None
    assert "is being loaded" in session.why_not_run
    with pytest.raises(InputError, match="is being loaded"):
        session.plan()
    session.choose_student(colour_student())
    assert session.why_not_run == ""
    session.await_student()
    session.lose_student("There is no student 'x'.")
    assert session.why_not_run == "There is no student 'x'."


def test_a_stored_map_is_looked_for_once_for_each_choice():
    session = open_session()
    assert session.wants_stored()
    assert not session.wants_stored(), "there was none, and there is none now"
    session.choose_step(session.step + 1)
    assert session.wants_stored(), "another grid"
    session.put_map_away()
    assert session.wants_stored(), "what was put away may be shown again"
    run(session)
    assert not session.wants_stored(), "a map is on screen"
    session.drop_map()
    assert session.wants_stored()


@pytest.mark.parametrize("lacks", ["tissue", "student", "slide"])
def test_no_stored_map_is_looked_for_before_all_is_chosen(lacks):
    session = open_session(tissue=lacks != "tissue")
    if lacks == "student":
        session.choose_student(None)
    if lacks == "slide":
        session.choose_slide(None)
    assert not session.wants_stored()


def test_a_run_locks_the_choice_and_says_how_it_ended():
    session = open_session()
    assert not session.why_locked
    assert "run a model" in session.why_not_export
    assert "Run the model" in session.why_not_teach
    work = session.run_work()
    assert "Cancel the run" in session.why_locked
    assert "cancel it" in session.why_not_teach
    job = Job(work, name="Run")
    job.start()
    while job.is_active:
        for update in job.poll():
            session.take_update(update)
        time.sleep(0.01)
    session.run_ended()
    done = session.live.cells_done
    assert (
        session.say_run_ended(job) == f"Done: {done:,} squares, stored for next time."
    )
    assert session.say_stored("12:30") == (
        f"Stored map from 12:30: {done:,} squares. All of it is computed."
    )
    assert not session.why_locked
    assert not session.why_not_export
    assert not session.why_not_teach
    assert "two classes first" in session.why_not_save


def test_a_run_that_failed_or_was_stopped_says_so():
    session = open_session()

    def fails(cancel):
        raise SlideError("The file is gone.")
        yield

    def stops(cancel):
        raise Cancelled
        yield

    said = []
    for work in (fails, stops):
        job = Job(work, name="Run")
        job.start()
        job.join()
        job.poll()
        said.append(session.say_run_ended(job))
    assert said == [
        "The file is gone.",
        "Stopped. 0 squares are kept; Continue goes on.",
    ]


def test_strokes_need_a_slide_whose_scale_is_known():
    session = ExploreSession()
    assert session.why_not_paint
    session.choose_slide(array_slide(mpp=None))
    assert session.why_not_paint
    session.type_mpp(0.5)
    assert not session.why_not_paint


def test_a_slide_stays_chosen_while_it_is_worked_on():
    assert "run on HE goes on" in why_stay("HE", running=True, has_drawn=True)
    assert "you have painted" in why_stay("HE", running=False, has_drawn=True)
    assert why_stay("HE", running=False, has_drawn=False) == ""


@pytest.mark.parametrize("mpp", [None, 352.9])
def test_a_missing_or_absurd_scale_is_asked_for(mpp):
    session = open_session(array_slide(mpp=mpp), tissue=False)
    assert session.needs_mpp
    assert "µm per pixel" in session.why_not_run
    with pytest.raises(InputError, match="µm per pixel"):
        session.run_work()
    assert session.steps == ()
    session.type_mpp(0.5)
    assert not session.needs_mpp
    assert session.why_not_run == ""
    assert session.plan().grid.slide_mpp == Mpp.given(0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), 0.01, 300.0])
def test_a_scale_that_cannot_be_is_refused_and_nothing_changes(value):
    session = open_session(array_slide(mpp=None), tissue=False)
    with pytest.raises(InputError, match="µm per pixel"):
        session.type_mpp(value)
    assert session.slide.mpp is None
    assert session.needs_mpp


def test_a_scale_without_a_slide_is_refused():
    session = ExploreSession()
    with pytest.raises(InputError, match="Open a slide first"):
        session.type_mpp(0.5)


def test_fluorescence_is_not_for_students():
    image = np.zeros((300, 300, 2), np.uint16)
    slide = slide_from_arrays([image], name="cells", mpp=Mpp(0.5, 0.5, "a test"))
    session = open_session(slide, tissue=False)
    assert "H&E" in session.why_not_run


def test_a_slide_too_coarse_does_not_spoil_the_next_one():
    session = open_session(array_slide(mpp=8.0), tissue=False)
    assert "too coarse" in session.why_not_run
    assert session.detail_in_words == ""
    session.choose_slide(array_slide())
    assert session.why_not_run == ""


def test_the_plan_says_stride_cells_and_time():
    session = open_session()
    session.choose_student(session.student, tiles_per_s=10.0)
    words = session.detail_in_words
    found = re.fullmatch(r"(\d+) µm · (\d+) squares · about (\d+) s", words)
    assert found, words
    stride, cells, seconds = map(int, found.groups())
    assert stride == session.detail.stride_um
    wanted = int(session.plan().wanted_cells().sum())
    assert cells == wanted
    assert seconds == pytest.approx(cells / 10, abs=1)


def test_the_slider_stays_on_its_steps():
    session = open_session()
    session.choose_step(99)
    assert session.detail is session.steps[-1]
    session.choose_step(-3)
    assert session.detail is session.steps[0]
    assert session.detail.stride_um == session.student.spec.tile_um


def test_a_student_without_tokens_returns_the_choice_to_tiles():
    session = open_session()
    session.choose_student(session.student, tiles_per_s=10.0)
    assert "about" in session.detail_in_words
    session.choose_mode("tokens")
    assert session.plan().mode == "tokens"
    assert "about" in session.detail_in_words, "tokens have a time, too"
    colour = colour_student()
    spec = colour.spec.model_copy(update={"token_stride_px": None})
    session.choose_student(
        Student(spec, colour.backend, head=colour.head, digest="e2" * 16)
    )
    assert session.mode == "tiles"
    assert session.why_not_run == ""


# --- no work lost, none done twice ----------------------------------------------------


def test_a_run_looks_at_each_wanted_tile_once():
    session = open_session()
    wanted = session.plan().wanted_cells()
    report = run(session)
    assert report.done == report.total == wanted.sum()
    assert np.array_equal(session.live.status == 1, wanted)
    assert computed(session) == wanted.sum()
    assert not session.running
    assert session.store_path.is_dir()


def test_running_again_computes_everything_anew():
    session = ran_session()
    first, cells = session.live.labels.copy(), computed(session)
    run(session, restart=True)
    assert computed(session) == 2 * cells
    assert np.array_equal(session.live.labels, first)


def test_cancel_keeps_the_work_and_continue_computes_only_the_rest():
    session = open_session()
    wanted = session.plan().wanted_cells()
    stop_after_the_first_block(session)
    kept = session.live.cells_done
    assert 0 < kept < wanted.sum()
    assert session.cells_missing == wanted.sum() - kept
    assert session.run_action is RunAction.CONTINUE

    report = run(session)
    assert report.done == wanted.sum()
    assert computed(session) == wanted.sum(), "not a tile was looked at twice"
    assert session.run_action is RunAction.DONE
    whole = ran_session(student=other_student())
    assert np.array_equal(session.live.labels, whole.live.labels)
    assert np.array_equal(session.live.confidence, whole.live.confidence)


def test_cancel_before_the_first_tile_leaves_a_session_that_can_run():
    session = open_session()
    token = CancelToken()
    token.cancel()
    work = session.run_work()(token)
    with pytest.raises(Cancelled):
        list(work)
    session.run_ended()
    assert session.run_action is RunAction.RUN
    assert computed(session) == 0
    run(session)
    assert session.cells_missing == 0


def test_what_a_person_looks_at_comes_first():
    session = open_session()
    session.choose_step(len(session.steps) - 1)
    session.look_at(Region(y=400, x=600, height=50, width=50))
    work = session.run_work()(CancelToken())
    first = next(update.patch for update in work if update.patch is not None)
    work.close()
    rows, columns = session.detail.grid.cells_in(session.view)
    assert first.rows.start < rows.stop
    assert first.rows.stop > rows.start
    assert first.columns.start < columns.stop
    assert first.columns.stop > columns.start


def test_the_stored_map_is_found_again_with_its_time():
    first = open_session()
    assert first.stored_since == ""
    assert first.stored_work() is None
    before = time.localtime()
    run(first)

    again = open_session()
    assert again.stored_since in {
        time.strftime("%H:%M", before),
        time.strftime("%H:%M", time.localtime()),
    }
    show_stored(again)
    assert computed(again) == 0
    assert again.run_action is RunAction.DONE
    assert np.array_equal(again.live.labels, first.live.labels)
    assert np.array_equal(again.live.confidence, first.live.confidence)


def test_an_interrupted_map_is_found_again_and_goes_on():
    first = open_session()
    stop_after_the_first_block(first)
    again = open_session()
    show_stored(again)
    kept = again.live.cells_done
    assert kept == first.live.cells_done
    assert again.run_action is RunAction.CONTINUE
    run(again)
    assert computed(again) + kept == again.live.cells_done
    assert again.cells_missing == 0


def test_run_shows_also_what_was_stored_before_and_not_looked_at():
    """A region can hide that a map is stored, until Run continues it."""
    first = open_session()
    stop_after_the_first_block(first)
    again = open_session()
    run(again)
    assert again.cells_missing == 0
    assert again.live.cells_done == again.plan().wanted_cells().sum()


def test_every_choice_has_a_store_of_its_own():
    session = ran_session()
    paths = [session.store_path]
    session.choose_student(other_student())
    assert session.live is None, "the other student has seen nothing"
    assert session.stored_since == ""
    paths.append(session.plan().store_path)
    session.choose_student(colour_student())
    assert session.stored_since
    assert session.plan().store_path == paths[0]
    session.choose_step(0)
    paths.append(session.plan().store_path)
    session.choose_mode("tokens")
    paths.append(session.plan().store_path)
    session.choose_mode("tiles")
    session.type_mpp(0.4)
    paths.append(session.plan().store_path)
    session.choose_slide(array_slide(tissue_image()[::-1].copy()))
    paths.append(session.plan().store_path)
    assert len(set(paths)) == len(paths)


def test_another_slide_drops_what_belonged_to_the_old_one():
    session = ran_session()
    session.add_prompt(*GLAND, like=True)
    session.look_at(LEFT)
    session.choose_slide(array_slide(tissue_image(400, 400)))
    assert session.live is None
    assert session.tissue is None
    assert session.view is None
    assert session.prompts.items == ()
    assert session.run_action is RunAction.RUN


# --- regions and tissue ---------------------------------------------------------------


def test_the_view_limits_the_run_and_the_whole_slide_goes_on_from_there():
    session = open_session()
    everything = session.plan().wanted_cells().sum()
    promised = session.detail_in_words
    session.choose_region(RegionChoice.VIEW)
    assert "view shows no part" in session.why_not_run
    session.look_at(LEFT)
    assert session.detail_in_words != promised
    run(session)
    inside = np.zeros(session.live.grid.shape, bool)
    inside[session.live.grid.cells_in(LEFT)] = True
    done = session.live.status == 1
    assert done.any()
    assert not (done & ~inside).any()
    assert session.run_action is RunAction.DONE

    session.choose_region(RegionChoice.WHOLE)
    assert session.run_action is RunAction.CONTINUE
    assert session.cells_missing == everything - done.sum()
    run(session)
    assert session.live.cells_done == everything
    # Blocks of 8 × 8 cells are computed whole: only those on the border of the view
    # are looked at again.
    again = int(done[:, 8:].sum())
    assert computed(session) == everything + again


def test_a_drawn_shape_limits_the_run():
    session = open_session()
    session.choose_region(RegionChoice.SHAPE)
    assert "Draw a region" in session.why_not_run
    session.take_shapes((np.array([[100.0, 100], [100, 700], [500, 100]]),))
    run(session)
    rows, columns = np.nonzero(session.live.status == 1)
    y, x = session.live.grid.centers()
    right_of = (x[columns] - 100) / 600 + (y[rows] - 100) / 400
    assert len(rows) > 20
    assert right_of.max() <= 1, "nothing beyond the slanted side"
    assert session.run_action is RunAction.DONE


def test_a_drawn_region_adds_to_the_map_and_shapes_add_up():
    session = open_session()
    wanted = session.plan().wanted_cells()
    corner = np.array([[100.0, 100], [100, 300], [300, 300], [300, 100]])
    session.choose_region(RegionChoice.SHAPE)
    session.take_shapes((corner, np.add(corner, (250, 350))))
    both = int(session.plan().wanted_cells().sum())
    session.take_shapes((corner,))
    one = int(session.plan().wanted_cells().sum())
    assert 0 < one < both
    run(session)
    first = session.live.status == 1
    session.take_shapes((corner, np.add(corner, (250, 350))))
    assert session.run_action is RunAction.CONTINUE
    assert session.estimate.missing == both - one
    run(session)
    assert session.live.cells_done == both
    assert (session.live.status[first] == 1).all(), "nothing is lost"

    session.choose_region(RegionChoice.WHOLE)
    run(session)
    seen = computed(session)
    session.choose_region(RegionChoice.SHAPE)
    assert session.run_action is RunAction.DONE
    run(session)
    assert session.live.cells_done == wanted.sum(), "the map of the slide is kept"
    assert computed(session) == seen


def test_starting_over_says_what_it_throws_away_and_what_it_costs():
    session = open_session()
    session.choose_student(session.student, tiles_per_s=10.0)
    assert session.start_over_question == "", "there is nothing to throw away"
    run(session)
    done = session.live.cells_done
    assert session.start_over_question == (
        f"Throw away the map of {done} squares? To compute again: {done} squares, "
        f"about {done // 10} s."
    )
    session.choose_region(RegionChoice.VIEW)
    session.look_at(LEFT)
    assert session.start_over_question.endswith("The rest of the map is not computed.")
    inside = int(session.plan().wanted_cells().sum())
    run(session, restart=True)
    assert session.live.cells_done == inside < done


def test_a_shape_between_the_cells_is_explained():
    session = open_session()
    session.choose_region(RegionChoice.SHAPE)
    session.take_shapes((np.array([[200.0, 200], [200, 201], [201, 200]]),))
    assert "draw a larger region" in session.why_not_run
    with pytest.raises(InputError, match="draw a larger region"):
        session.plan()
    with pytest.raises(InputError, match="draw a larger region"):
        run(session)


def test_a_shape_between_the_cells_leaves_a_map_that_is_there_alone():
    session = ran_session()
    session.choose_region(RegionChoice.SHAPE)
    session.take_shapes((np.array([[200.0, 200], [200, 201], [201, 200]]),))
    assert session.cells_missing == 0
    assert session.run_action is RunAction.RUN
    assert "draw a larger region" in session.why_not_run
    session.take_shapes((np.array([[200.0, 200], [200, 300], [300, 200]]),))
    assert session.why_not_run == ""


def test_a_step_that_was_chosen_survives_what_is_learned_of_the_tissue():
    session = open_session(tissue=False)
    assert session.step != 0
    session.choose_step(0)
    session.take_tissue(TissueMask(np.ones((6, 8), bool), session.slide.shape))
    assert session.step == 0, "found after the step was chosen"
    mask = np.zeros((6, 8), bool)
    mask[2:4, 2:4] = True
    session.take_tissue(TissueMask.from_array(mask, session.slide.shape))
    assert session.step == 0, "edited before anything was run"


def test_editing_tissue_does_not_change_a_step_that_nobody_touched():
    session = open_session()
    stride = session.detail.stride_um
    mask = np.zeros((60, 80), bool)
    mask[20:24, 20:24] = True
    session.take_tissue(TissueMask.from_array(mask, session.slide.shape))
    assert session.detail.stride_um == stride


@pytest.mark.parametrize("source", ["typed by the user", "typed: measured by the user"])
def test_a_typed_scale_can_be_corrected_and_a_files_cannot(source):
    session = open_session(array_slide(mpp=None), tissue=False)
    assert session.takes_mpp
    session.type_mpp(2.5, source)
    assert not session.needs_mpp
    assert session.takes_mpp
    session.type_mpp(0.25)
    assert session.slide.mpp.mean == 0.25
    session.choose_slide(array_slide())
    assert not session.takes_mpp
    session.choose_slide(None)
    assert not session.takes_mpp


def test_cells_that_another_panel_stored_are_shown_by_continue():
    first = open_session()
    stop_after_the_first_block(first)
    run(open_session())
    assert first.run_action is RunAction.CONTINUE
    run(first)
    assert first.cells_missing == 0
    assert first.run_action is RunAction.DONE
    assert computed(first) < first.live.cells_done, "nothing was computed again"


def test_a_map_stored_while_a_run_was_refused_is_shown():
    refused = open_session()
    refused.run_work()  # another run held the store: no report but the refusal
    refused.run_ended()
    run(open_session())
    run(refused)
    assert refused.cells_missing == 0
    assert computed(refused) == 0


def test_going_on_reports_only_what_is_not_on_screen():
    session = open_session()
    stop_after_the_first_block(session)
    kept = session.live.status == 1
    for update in session.run_work()(CancelToken()):
        patch = update.patch
        if patch is not None:
            assert not kept[patch.rows, patch.columns].any()


def test_an_edited_tissue_mask_decides_what_is_computed():
    session = open_session()
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:40] = True
    session.take_tissue(TissueMask.from_array(mask, session.slide.shape))
    run(session)
    rows, columns = np.nonzero(session.live.status == 1)
    y, x = session.live.grid.centers()
    assert 150 < y[rows].min() < y[rows].max() < 450
    assert 150 < x[columns].min() < x[columns].max() < 450


def test_editing_tissue_keeps_the_map_and_its_stride():
    session = open_session()
    session.choose_step(0)
    run(session)
    live, stride = session.live, session.detail.stride_um
    session.take_tissue(TissueMask(np.ones((6, 8), bool), session.slide.shape))
    assert session.live is live
    assert session.detail.stride_um == stride
    assert session.run_action is RunAction.CONTINUE


# --- what goes wrong ------------------------------------------------------------------


class Moody:
    """The fake encoder, on a device that can fail."""

    def __init__(self, backend):
        self._backend, self.broken = backend, False
        self.device, self.batches = backend.device, backend.batches

    def embed(self, tiles):
        if self.broken:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
        return self._backend.embed(tiles)


def test_a_runtime_error_becomes_a_sentence_and_the_session_stays_usable():
    colour = colour_student()
    moody = Moody(colour.backend)
    student = Student(colour.spec, moody, head=colour.head, digest="f3" * 16)
    session = open_session(student=student)
    stop_after_the_first_block(session)
    kept = session.live.cells_done

    moody.broken = True
    job = Job(session.run_work(), name="Run")
    for update in finish(job):
        session.take_update(update)
    session.run_ended()
    assert job.state is JobState.FAILED
    assert "student colour failed on CPU · fake" in job.error
    assert "CUDNN_STATUS_EXECUTION_FAILED" in job.error
    assert "Traceback" not in job.error
    assert session.live.cells_done == kept
    assert session.run_action is RunAction.CONTINUE

    moody.broken = False
    assert session.why_not_run == ""
    run(session)
    assert session.cells_missing == 0
    assert computed(session) == session.live.cells_done


class Torn:
    """An array with a place that cannot be read."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.torn = False

    def __getitem__(self, key):
        y, x = key[:2]
        if self.torn and y.start < 300 < y.stop and x.start < 600 < x.stop:
            raise SlideError("array: tile 17 is damaged.")
        return self._array[key]


def test_unreadable_places_are_counted_and_said():
    torn = Torn(tissue_image())
    slide = slide_from_arrays(
        [torn], name="torn", mpp=Mpp(0.5, 0.5, "a test"), digest="70" * 32
    )
    session = open_session(slide)
    torn.torn = True
    report = run(session)
    lost = session.live.cells_unreadable
    assert 0 < lost < session.live.cells_done
    assert report.unreadable == lost
    assert "tile 17 is damaged" in report.message
    assert session.describe(300, 600).startswith("unreadable")
    assert session.describe(*GLAND).startswith("gland")
    said = [note.text for note in notes_on(session)]
    assert f"{lost:,} squares of the map could not be read from the file." in said


# --- in words -------------------------------------------------------------------------


def test_a_place_is_described():
    session = ran_session()
    words = session.describe(*GLAND)
    assert re.fullmatch(r"gland \d+% · y 105 µm, x 120 µm", words)
    assert session.describe(*STROMA).startswith("stroma ")
    assert session.describe(*GLASS) == "y 10 µm, x 10 µm"
    assert session.describe(-5, 20) == ""
    assert session.describe(20, 10_000) == ""
    assert ExploreSession().describe(1, 1) == ""
