"""The Explore screen without a screen: the session and its work, on the real engine."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from napari_histodistill.controllers.explore.session import ExploreSession, RunAction
from napari_histodistill.controllers.explore.teach.teaching import (
    Strokes,
    painted_cells,
    save_work,
)
from napari_histodistill.controllers.explore.trust import notes_on
from napari_histodistill.controllers.shared.exporting import (
    EXPORTS,
    export_work,
)
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.map_work import (
    open_work,
    student_work,
    tissue_work,
)
from napari_histodistill.controllers.shared.planning import default_step
from napari_histodistill.controllers.shared.similar import (
    LISTED,
    Prompt,
    Prompts,
    rank_work,
    thumbnail_work,
)
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.geometry import Region
from napari_histodistill.maps.alike.ranking import frame_around
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import open_slide, slide_from_arrays
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.students import llvm_clash
from napari_histodistill.students.spec import ClassSpec
from tests.fakes import PINK, PURPLE, array_slide, colour_student, tissue_image

GLAND, STROMA, GLASS = (210.0, 240.0), (500.0, 200.0), (12.0, 12.0)
CLASSES = (
    ClassSpec(name="one", color="#e69f00"),
    ClassSpec(name="two", color="#56b4e9"),
)


def done(work):
    return list(work(CancelToken()))


def session_for(student=None, slide=None):
    session = ExploreSession()
    session.choose_slide(slide or array_slide())
    session.choose_student(student or colour_student(), tiles_per_s=100.0)
    session.take_tissue(done(tissue_work(session.slide))[0].tissue)
    return session


def run(session, **kwargs):
    for update in session.run_work(**kwargs)(CancelToken()):
        session.take_update(update)
    session.run_ended()
    return session


def ask(session):
    for answer in session.query_work()(CancelToken()):
        session.take_answer(answer)
    return session.similar


# --- choosing and planning ----------------------------------------------------------


def test_why_not_run_walks_through_the_reasons():
    session = ExploreSession()
    assert "Open a slide" in session.why_not_run
    session.choose_slide(slide_from_arrays(np.zeros((64, 64, 2), np.uint8), name="if"))
    assert "other channels" in session.why_not_run
    session.choose_slide(array_slide(mpp=None))
    assert session.needs_mpp
    assert "µm per pixel" in session.why_not_run
    session.type_mpp(0.5)
    assert not session.needs_mpp
    assert "Choose a model" in session.why_not_run
    session.lose_student("The weights are gone.")
    assert session.why_not_run == "The weights are gone."
    session.choose_student(colour_student())
    assert session.why_not_run == ""
    session.choose_region(RegionChoice.SHAPE)
    assert "Draw a region" in session.why_not_run
    session.choose_region(RegionChoice.VIEW)
    assert "view" in session.why_not_run
    with pytest.raises(InputError, match="view"):
        session.plan()


def test_a_slide_too_coarse_for_the_student_says_so_on_the_button():
    session = ExploreSession()
    session.choose_slide(array_slide(mpp=10.0))
    session.choose_student(colour_student())
    assert "too coarse" in session.why_not_run


@pytest.mark.parametrize("value", [0.001, 400.0])
def test_an_absurd_mpp_is_refused(value):
    session = ExploreSession()
    session.choose_slide(array_slide(mpp=None))
    with pytest.raises(InputError, match="40× scan"):
        session.type_mpp(value)
    with pytest.raises(InputError, match="Open a slide first"):
        ExploreSession().type_mpp(0.5)


def test_steps_go_from_coarse_to_fine_and_the_default_is_readable():
    session = session_for()
    strides = [s.grid.stride_px for s in session.steps]
    assert strides == sorted(set(strides), reverse=True)
    assert strides[0] == 32
    assert session.step == default_step(session.steps) > 0
    assert session.detail.cells >= 200
    assert "squares" in session.detail_in_words
    session.choose_mode("tokens")
    assert all(s.grid.stride_px % 8 == 0 for s in session.steps)
    session.choose_step(99)
    assert session.step == len(session.steps) - 1


def test_the_view_and_a_shape_count_fewer_cells():
    session = session_for()
    whole = session.plan().wanted_cells().sum()
    session.choose_region(RegionChoice.VIEW)
    session.look_at(Region(y=100, x=100, height=200, width=200))
    assert 0 < session.plan().wanted_cells().sum() < whole
    words = session.detail_in_words
    session.choose_region(RegionChoice.SHAPE)
    session.take_shapes((np.array([[150.0, 150], [150, 350], [300, 250]]),))
    assert 0 < session.plan().wanted_cells().sum() < whole
    assert session.detail_in_words != words
    session.take_shapes((np.array([[150.0, 150], [150, 151], [151, 150.5]]),))
    with pytest.raises(InputError, match="between the squares"):
        session.plan().wanted_cells()


# --- running ------------------------------------------------------------------------


def test_a_run_fills_the_map_and_the_store_is_shown_the_next_time():
    session = session_for()
    assert session.run_action is RunAction.RUN
    assert [r.cells for r in session.class_rows()] == [0, 0], "what it could find"
    run(session)
    live = session.live
    assert session.cells_missing == 0
    assert session.run_action is RunAction.DONE
    assert live.labels[live.grid.cell_at(*GLAND)] == 2
    assert live.labels[live.grid.cell_at(*STROMA)] == 1
    assert live.labels[live.grid.cell_at(*GLASS)] == 0

    again = session_for()
    assert again.stored_since != ""
    for patch in done(again.stored_work()):
        again.live.apply(patch)
    np.testing.assert_array_equal(again.live.labels, live.labels)
    np.testing.assert_allclose(again.live.confidence, live.confidence, atol=1e-6)

    other = session_for(colour_student(mpp=0.8))
    assert other.stored_since == "", "another student's map is not this one's"


def test_cancelling_keeps_blocks_and_continue_finishes():
    session = session_for()
    session.choose_step(len(session.steps) - 3)  # about a thousand squares
    token = CancelToken()

    def until_cancelled():
        for update in session.run_work()(token):
            session.take_update(update)
            if update.patch is not None:
                token.cancel()

    with pytest.raises(Cancelled):
        until_cancelled()
    session.run_ended()
    kept = session.live.cells_done
    assert kept > 0
    assert session.cells_missing > 0
    assert session.run_action is RunAction.CONTINUE
    run(session)
    assert session.cells_missing == 0
    assert session.live.cells_done > kept


def test_who_was_chosen_reads_from_the_next_run_on(tmp_path):
    pixels = tissue_image(400, 500)
    path = write_pyramid(tmp_path / "slide.ome.tif", pixels, mpp=0.5)
    used = []
    with open_slide(path) as slide:
        session = session_for(slide=slide)
        for reading in ("auto", "processes", "threads"):
            session.choose_reading(reading)
            *_, last = session.run_work(restart=True)(CancelToken())
            session.run_ended()
            used.append(last.report.reading)
    assert used == ["threads", "processes", "threads"]


def test_run_again_starts_afresh():
    session = run(session_for())
    before = session.live
    calls = session.student.backend.batches
    calls.clear()
    run(session)
    assert not calls, "everything was there"
    run(session, restart=True)
    assert sum(calls) > 0
    assert session.live is not before


def test_a_run_before_the_tissue_is_found_computes_no_glass():
    early, late, every = session_for(), session_for(), session_for()
    early.take_tissue(None)
    every.choose_every_square(every=True)
    cells = [run(one).live.cells_done for one in (early, late, every)]
    assert cells[0] == cells[1] < cells[2]


def test_a_student_without_classes_still_counts_cells_and_compares():
    session = run(session_for(colour_student(with_head=False)))
    assert session.class_rows() == ()
    assert session.live.cells_done > 0
    session.add_prompt(*GLAND, like=True)
    assert ask(session) is not None


def test_work_belongs_to_no_session():
    """What a thread runs must not see the session change under it."""
    session = session_for()
    work = session.run_work()
    session.choose_slide(None)
    assert [u.report.done for u in work(CancelToken())][-1] > 0


def test_opening_and_loading_report_once(tmp_path):
    slide = array_slide()
    opened = done(open_work(lambda path: slide, tmp_path))
    assert opened[0].slide is slide
    names = []

    def loader(name, device):
        names.append((name, device, threading.current_thread().name))
        return colour_student()

    loaded = done(student_work(loader, "x", "cpu"))
    assert loaded[0].tiles_per_s > 0
    assert names[0][:2] == ("x", "cpu")


# --- similar ------------------------------------------------------------------------


def test_prompts_are_added_and_taken_back():
    like, unlike = Prompt(1, 2, like=True), Prompt(3, 4, like=False)
    with pytest.raises(InputError, match="first"):
        Prompts().added(unlike)
    both = Prompts().added(like).added(unlike)
    assert (both.at, both.not_at) == ([(1, 2)], [(3, 4)])
    assert both.removed(1).at == [(1, 2)]
    assert both.removed(0) == Prompts(), "a 'not like this' alone asks nothing"


def test_a_click_answers_and_an_older_answer_is_dropped():
    session = run(session_for())
    with pytest.raises(InputError, match="Nothing is computed there"):
        session.add_prompt(*GLASS, like=True)
    session.add_prompt(*GLAND, like=True)
    old = session.query_work()
    first = ask(session)
    live = session.live
    values = first.similarity.values
    assert values[live.grid.cell_at(*GLAND)] == pytest.approx(1, abs=1e-3)
    assert values[live.grid.cell_at(*STROMA)] < 0
    assert "similarity 1.00" in session.describe(*GLAND)
    session.add_prompt(*STROMA, like=False)
    answers = done(old)
    assert not any(session.take_answer(a) for a in answers)
    assert len(ask(session).prompts.items) == 2
    session.remove_prompt(0)
    assert session.similar is None


def test_a_search_before_any_run_says_what_to_do():
    session = session_for()
    with pytest.raises(InputError, match="Run the model first"):
        session.add_prompt(*GLAND, like=True)
    assert session.query_work() is None


def test_the_index_is_built_once_and_again_when_the_map_has_grown():
    session = run(session_for())
    session.add_prompt(*GLAND, like=True)
    kinds = [type(a).__name__ for a in done(session.query_work())]
    assert kinds == ["IndexBuilt", "SimilarResult"]
    ask(session)
    kinds = [type(a).__name__ for a in done(session.query_work())]
    assert kinds == ["SimilarResult"]
    session.live.status[0, 0] = 1
    assert len(done(session.query_work())) == 2


def test_ranking_again_and_thumbnails():
    session = run(session_for())
    session.add_prompt(*GLAND, like=True)
    result = ask(session)
    lower = done(rank_work(result, -1.0))[0]
    assert lower.threshold == -1.0
    assert lower.similarity is result.similarity
    pictures = done(
        thumbnail_work(session.slide, session.live.grid, result.ranked, px=32)
    )
    assert [p.rank for p in pictures] == [r.rank for r in result.ranked[:LISTED]]
    middle = pictures[0].image[12:20, 12:20].mean(axis=(0, 1))
    assert np.abs(middle - PURPLE).max() < np.abs(middle - PINK).max()
    for place in result.ranked:
        frame = frame_around(session.live.grid, place)
        assert frame.y >= 0 <= frame.x
        assert frame.bottom <= 600
        assert frame.right <= 800


# --- teach --------------------------------------------------------------------------


def strokes_on(session, *boxes):
    labels = np.zeros((300, 400), np.uint8)  # half of the slide's 600 × 800
    for value, y0, y1, x0, x1 in boxes:
        labels[y0:y1, x0:x1] = value
    return Strokes(labels, CLASSES)


def test_strokes_become_labelled_cells():
    session = session_for()
    grid = session.detail.grid
    strokes = strokes_on(session, (1, 95, 115, 110, 130), (2, 240, 250, 60, 300))
    cells, labels = painted_cells(strokes, grid)
    assert grid.cell_at(*GLAND) in [divmod(int(c), grid.shape[1]) for c in cells]
    assert set(labels) == {0, 1}
    none, _ = painted_cells(strokes_on(session), grid)
    assert len(none) == 0


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ((), "Nothing is painted"),
        (((1, 95, 115, 110, 130),), "Only 'one' is painted"),
        (((1, 2, 8, 2, 20), (2, 12, 18, 2, 20)), "where nothing was computed"),
    ],
)
def test_teaching_says_what_is_missing(boxes, words):
    session = run(session_for())
    *_, missing = done(session.teach_work(strokes_on(session, *boxes)))
    assert words in missing.words


def test_teaching_before_a_run_is_refused():
    with pytest.raises(InputError, match="Run the model first"):
        session_for().teach_work(Strokes(np.ones((4, 4), np.uint8), CLASSES))


def test_taught_classes_replace_the_students_and_can_be_saved(tmp_path):
    session = run(session_for())
    strokes = strokes_on(
        session,
        (2, 95, 115, 100, 115), (2, 95, 115, 120, 135),
        (1, 240, 250, 60, 160), (1, 240, 250, 200, 300),
    )  # fmt: skip
    start = time.perf_counter()
    for taught in done(session.teach_work(strokes)):
        session.take_taught(taught)
    assert time.perf_counter() - start < 30
    live = session.live
    assert live.labels[live.grid.cell_at(*GLAND)] == 2
    assert live.labels[live.grid.cell_at(*STROMA)] == 1
    assert any("under strokes" in n.text for n in notes_on(session))

    import torch

    class Module:
        def state_dict(self):
            return {"w": torch.zeros(1)}

    session.student.backend.module = Module()
    (saved,) = done(
        save_work(
            session.student,
            taught,
            tmp_path / "my *gland*",
            mode="tiles",
        )
    )
    spec = json.loads((saved.folder / "spec.json").read_text("utf-8"))
    assert [c["name"] for c in spec["classes"]] == ["one", "two"]
    assert spec["training"]["cases"] == 1

    session.forget_taught()
    assert [c.name for c in session.live.classes] == ["stroma", "gland"]


# --- words, export ------------------------------------------------------------------


def test_describe_names_class_and_place():
    session = run(session_for())
    words = session.describe(*GLAND)
    assert words.startswith("gland ")
    assert "y 105 µm, x 120 µm" in words
    assert session.describe(-5, 10) == "", "outside the slide"
    assert ExploreSession().describe(1, 1) == ""


def test_notes_say_what_speaks_against_the_map():
    assert notes_on(ExploreSession()) == ()
    session = session_for(slide=array_slide(mpp=1.9))
    session.choose_mode("tokens")
    texts = " ".join(n.text for n in notes_on(session))
    assert "coarser" in texts
    assert "Fast (windows)" in texts
    assert "other tissue gets one too" in texts


def test_every_export_writes_its_file(tmp_path):
    session = run(session_for())
    session.add_prompt(*GLAND, like=True)
    similar = ask(session)
    classes = session.live.snapshot()
    for kind in EXPORTS:
        path = tmp_path / f"{kind.key.name}{kind.ending}"
        done(export_work(kind.key, path, classes=classes, similar=similar))
        assert path.exists()
        with pytest.raises(InputError, match="There is no"):
            export_work(kind.key, path, classes=None, similar=None)


# --- importing ----------------------------------------------------------------------


def test_triton_is_refused_only_where_mesa_draws(tmp_path, monkeypatch):
    import sys

    maps = tmp_path / "maps"
    maps.write_text("7f00 r-xp /usr/lib/libGL.so.1\n", "utf-8")
    assert not llvm_clash.mesa_uses_llvm(maps)
    maps.write_text("7f00 r-xp /usr/lib/libLLVM-15.so.1\n", "utf-8")
    assert llvm_clash.mesa_uses_llvm(maps)
    assert not llvm_clash.mesa_uses_llvm(tmp_path / "no such file")

    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setattr(llvm_clash, "mesa_uses_llvm", lambda: False)
    assert not llvm_clash.keep_triton_out()
    assert "triton" not in sys.modules
    monkeypatch.setattr(llvm_clash, "mesa_uses_llvm", lambda: True)
    assert llvm_clash.keep_triton_out()
    assert sys.modules["triton"] is None
    assert llvm_clash.keep_triton_out(), "and stays refused"
    monkeypatch.delitem(sys.modules, "triton")
    monkeypatch.setitem(sys.modules, "triton", object())
    assert not llvm_clash.keep_triton_out(), "it is loaded: that was survived"


def test_collection_is_put_off_and_comes_back():
    import gc

    from napari_histodistill.controllers.shared.background_import import (
        collection_put_off,
        import_work,
    )

    with collection_put_off():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert done(import_work("json")) == ["json"]
