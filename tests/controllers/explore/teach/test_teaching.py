"""Teach: strokes become a probe, a map, a student, and the same answers again."""

from __future__ import annotations

import re

import numpy as np
import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.controllers.explore.session import RunAction
from napari_histodistill.controllers.explore.teach import held
from napari_histodistill.controllers.explore.teach.teaching import (
    Missing,
    Strokes,
    Taught,
    painted_cells,
    save_work,
)
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.layers.overlays import stroke_shape
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.stain import StainMap
from napari_histodistill.students.bundle import load_student, save_student
from napari_histodistill.students.spec import ClassSpec, StudentSpec, WeightsSpec
from napari_histodistill.students.staining import seen_through
from tests.controllers.driving import (
    GLAND,
    GLASS,
    OTHER_GLAND,
    STROMA,
    drive,
    open_session,
    ran_session,
    run,
)
from tests.fakes import tissue_image
from tests.maps.helpers import in_small_steps, small_grid
from tests.slides.tissue.test_stain import HE

KINDS = (
    ClassSpec(name="mine", color="#009e73"),
    ClassSpec(name="not painted", color="#f0e442"),
    ClassSpec(name="stroma too", color="#0072b2"),
)
MINE, STROMA_TOO = 1, 3


def canvas(session):
    """Return the empty array that the panel paints on."""
    mpp = session.slide.mpp
    return np.zeros(stroke_shape(session.slide.shape, (mpp.y, mpp.x)), np.uint8)


def paint(labels, session, place, label, *, radius_px=25):
    """Paint a square around a place of the slide (level-0 px)."""
    scale = np.array(labels.shape) / session.slide.shape
    start = np.maximum(0, np.floor((np.array(place) - radius_px) * scale)).astype(int)
    end = np.ceil((np.array(place) + radius_px) * scale).astype(int)
    stroke = labels[start[0] : end[0], start[1] : end[1]]
    stroke[...] = label
    assert stroke.size


def strokes(session, *painted):
    labels = canvas(session)
    for place, label in painted:
        paint(labels, session, place, label)
    return Strokes(labels, KINDS)


def teach(session, *painted):
    """Learn, and take all reports; return the last: with its score."""
    for report in drive(session.teach_work(strokes(session, *painted))):
        session.take_taught(report)
    return report


TWO_KINDS = (
    (GLAND, MINE),
    (OTHER_GLAND, MINE),
    (STROMA, STROMA_TOO),
    ((130.0, 400.0), STROMA_TOO),
)


# --- what a stroke covers -------------------------------------------------------------


def test_a_stroke_means_the_cells_under_it():
    grid = small_grid()  # 600 × 800 px in cells of 64 px
    labels = np.zeros((150, 200), np.uint8)  # 4 px of the slide each
    labels[16:32, 32:48] = 2  # exactly the cell (1, 2)
    cells, kinds = painted_cells(Strokes(labels, KINDS), grid)
    assert cells.tolist() == [1 * grid.shape[1] + 2]
    assert kinds.tolist() == [1]


@given(y=st.integers(0, 599), x=st.integers(0, 799))
def test_a_dot_anywhere_hits_the_cell_that_is_drawn_there(y, x):
    grid = small_grid()
    labels = np.zeros((600, 800), np.uint8)
    labels[y, x] = 1
    cells, _ = painted_cells(Strokes(labels, KINDS), grid)
    row, column = grid.cell_at(y + 0.5, x + 0.5)
    assert cells.tolist() == [row * grid.shape[1] + column]


def test_a_cell_under_two_classes_takes_the_one_that_covers_more():
    labels = np.zeros((150, 200), np.uint8)
    labels[0:16, 0:10], labels[0:16, 10:16] = 3, 1
    cells, kinds = painted_cells(Strokes(labels, KINDS), small_grid())
    assert (cells.tolist(), kinds.tolist()) == ([0], [2])


def test_labels_that_no_class_has_teach_nothing():
    session = ran_session()
    wish = painted_cells(strokes(session, *TWO_KINDS), session.live.grid)
    also = strokes(session, *TWO_KINDS, ((450.0, 150.0), 7))
    assert also.leaves_out
    for found, wished in zip(painted_cells(also, session.live.grid), wish, strict=True):
        np.testing.assert_array_equal(found, wished)
    assert not strokes(session, *TWO_KINDS).leaves_out


def test_nothing_painted_is_nothing():
    empty = Strokes(np.zeros((150, 200), np.uint8), KINDS)
    assert [len(part) for part in painted_cells(empty, small_grid())] == [0, 0]


# --- what is missing ------------------------------------------------------------------


def test_before_a_run_there_is_nothing_to_learn_from():
    session = open_session()
    empty = Strokes(np.zeros((10, 10), np.uint8), KINDS)
    with pytest.raises(InputError, match="Run the model first"):
        session.teach_work(empty)


@pytest.mark.parametrize(
    ("painted", "words"),
    [
        ((), "Nothing is painted yet"),
        (((GLAND, MINE),), "Only 'mine' is painted"),
        (((GLASS, MINE), (GLAND, STROMA_TOO)), "Only 'stroma too' is painted"),
        (((GLASS, MINE),), "nothing was computed"),
    ],
)
def test_what_is_missing_is_said_and_the_map_stays(painted, words):
    session = ran_session()
    live = session.live
    last = teach(session, *painted)
    assert isinstance(last, Missing)
    assert words in last.words
    assert session.live is live
    assert session.taught is None


# --- the taught map -------------------------------------------------------------------


def test_the_taught_map_shows_what_was_painted():
    session = ran_session()
    done = session.live.cells_done
    taught = teach(session, *TWO_KINDS)
    assert [c.name for c in taught.classes] == ["mine", "stroma too"]
    assert session.live.classes == taught.classes
    assert session.live.cells_done == done, "every stored cell is classified"
    for place, label in ((GLAND, 1), ((210, 520), 1), (STROMA, 2), (GLASS, 0)):
        assert session.live.labels[session.live.grid.cell_at(*place)] == label
    assert session.describe(*GLAND).startswith("mine ")
    assert taught.cells == len(
        painted_cells(strokes(session, *TWO_KINDS), session.live.grid)[0]
    )


def test_a_map_too_large_to_hold_is_read_in_steps(monkeypatch):
    session = ran_session()
    wish = teach(session, *TWO_KINDS)
    assert session.teach_memory.held is not None
    session.teach_memory.forget()
    monkeypatch.setattr(held, "MOST_BYTES", 1)
    heights = in_small_steps(monkeypatch)
    taught = teach(session, *TWO_KINDS)
    assert session.teach_memory.held is None
    assert len(heights) > 2
    assert max(heights) < session.live.grid.shape[0]
    assert taught.cells == wish.cells
    np.testing.assert_allclose(taught.head.weight, wish.head.weight, rtol=1e-5)
    np.testing.assert_allclose(
        taught.patch.probabilities, wish.patch.probabilities, rtol=1e-4
    )


def test_half_precision_is_held_where_it_spares_room(monkeypatch):
    session = ran_session()
    wish = teach(session, *TWO_KINDS)
    assert session.teach_memory.held.rows.dtype == np.float32
    session.teach_memory.forget()
    monkeypatch.setattr(held, "QUICK_BYTES", 1)
    taught = teach(session, *TWO_KINDS)
    assert session.teach_memory.held.rows.dtype == np.float16
    np.testing.assert_allclose(
        taught.patch.probabilities, wish.patch.probabilities, rtol=1e-5
    )


def test_the_second_stroke_reads_nothing_from_the_disk(monkeypatch):
    session = ran_session()
    teach(session, (GLAND, MINE), (STROMA, STROMA_TOO))

    def no_disk(*_args, **_more):
        raise AssertionError("the store was read again")

    monkeypatch.setattr("napari_histodistill.maps.store.EmbeddingStore.open", no_disk)
    assert session.hold_work() is None
    teach(session, *TWO_KINDS)
    assert session.taught is not None


def test_a_fit_that_starts_from_the_last_one_says_the_same():
    warm, cold = ran_session(), ran_session()
    teach(warm, (GLAND, MINE), (STROMA, STROMA_TOO))
    a, b = teach(warm, *TWO_KINDS), teach(cold, *TWO_KINDS)
    np.testing.assert_allclose(a.patch.probabilities, b.patch.probabilities, atol=0.01)
    assert (warm.live.labels == cold.live.labels).all()


def test_more_of_the_map_is_learned_from_once_it_is_there():
    session = open_session()
    session.choose_region(RegionChoice.VIEW)
    session.look_at(Region(y=0, x=0, height=600, width=500))
    run(session)
    teach(session, (GLAND, MINE), ((450.0, 150.0), STROMA_TOO))
    few = session.live.cells_done
    session.choose_region(RegionChoice.WHOLE)
    run(session)
    teach(session, (GLAND, MINE), ((450.0, 150.0), STROMA_TOO))
    assert session.live.cells_done > few


def test_what_was_read_is_let_go_with_the_map():
    session = ran_session()
    teach(session, *TWO_KINDS)
    session.drop_map()
    assert session.teach_memory.held is None


def test_it_is_learned_before_it_is_scored():
    session = ran_session()
    reports = drive(session.teach_work(strokes(session, *TWO_KINDS)))
    first, last = [r for r in reports if isinstance(r, Taught)]
    assert first.score is None
    assert first.summary().startswith("Trying it")
    assert last.score is not None
    for taught in (first, last):
        assert np.isfinite(taught.patch.probabilities[session.live.status == 1]).all()


def test_one_stroke_of_each_class_is_enough():
    session = ran_session()
    teach(session, (GLAND, MINE), (STROMA, STROMA_TOO))
    assert session.live.labels[session.live.grid.cell_at(*OTHER_GLAND)] == 1
    assert session.live.labels[session.live.grid.cell_at(110, 650)] == 2


def test_teaching_keeps_the_wished_confidence_and_the_way_back():
    session = ran_session()
    own = session.live.labels.copy()
    session.show_at_least(0.6)
    teach(session, *TWO_KINDS)
    assert session.live.min_confidence == 0.6
    for patch in drive(session.forget_taught()):
        session.live.apply(patch)
    assert session.taught is None
    assert [c.name for c in session.live.classes] == ["stroma", "gland"]
    assert np.array_equal(session.live.labels, own)
    assert session.live.min_confidence == 0.6


def test_running_on_after_teaching_keeps_what_was_there():
    session = open_session()
    session.choose_region(RegionChoice.VIEW)
    session.look_at(Region(y=0, x=0, height=600, width=700))
    run(session)
    teach(session, *TWO_KINDS)
    session.choose_region(RegionChoice.WHOLE)
    assert session.run_action is RunAction.CONTINUE
    run(session)
    assert session.cells_missing == 0
    assert session.live.cells_done == session.plan().wanted_cells().sum()


# --- the saved student ----------------------------------------------------------------


@pytest.fixture
def real_student(tmp_path):
    """Return a tiny network without classes, loaded from a bundle."""
    module = timm.create_model("test_efficientnet", num_classes=0).eval()
    spec = StudentSpec(
        name="tiny",
        title="A test's network",
        backbone="test_efficientnet",
        tile_px=64,
        mpp=1.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        token_stride_px=32,
        embedding_dim=module.num_features,
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
    )
    folder = save_student(
        tmp_path / "tiny", spec, encoder_state=dict(module.state_dict())
    )
    return load_student(folder, device="cpu")


def test_the_saved_student_gives_the_same_map(real_student, tmp_path):
    session = open_session(student=real_student)
    run(session)
    taught = teach(session, *TWO_KINDS)
    work = save_work(
        real_student, taught, tmp_path / "mine", title="My glands", mode="tiles"
    )
    (saved,) = drive(work)
    loaded = load_student(saved.folder, device="cpu")

    assert loaded.spec.classes == taught.classes
    assert loaded.digest != real_student.digest, "its maps are its own"
    assert loaded.spec.title == "My glands"
    assert loaded.spec.training.tiles == taught.cells
    card = (saved.folder / "README.md").read_text(encoding="utf-8")
    assert "mine, stroma too" in card
    assert "Research use only" in card

    again = open_session(student=loaded)
    assert again.stored_since == ""
    run(again)
    rows, columns = np.indices(session.live.grid.shape)
    np.testing.assert_allclose(
        again.live.probabilities_at(rows, columns),
        session.live.probabilities_at(rows, columns),
        atol=1e-6,
    )
    assert np.array_equal(again.live.labels, session.live.labels)


def test_nothing_of_the_slides_name_is_in_a_saved_student(real_student, tmp_path):
    slide = slide_from_arrays(
        tissue_image(), name="H-21-12345 Jane Doe.svs", mpp=Mpp(0.5, 0.5, "a test")
    )
    session = open_session(slide=slide, student=real_student)
    run(session)
    taught = teach(session, *TWO_KINDS)
    (saved,) = drive(save_work(real_student, taught, tmp_path / "mine", mode="tiles"))
    spec = load_student(saved.folder, device="cpu").spec
    assert re.fullmatch(r"My model, \d{4}-\d\d-\d\d", spec.title)
    files = [path for path in saved.folder.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        content = path.read_bytes()
        for part in (b"12345", b"Jane Doe"):
            assert part not in content, path.name


def test_a_saved_student_says_what_it_was_taught_on(real_student, tmp_path):
    session = open_session(student=real_student)
    run(session)
    taught = teach(session, *TWO_KINDS)
    seen = seen_through(real_student, StainMap.between(HE, HE))
    for student, mode, words in (
        (real_student, "tiles", "Taught on tiles: look with the same"),
        (seen, "tokens", "Taught on tokens, stain normalised: look with the same"),
    ):
        folder = tmp_path / mode
        drive(save_work(student, taught, folder, mode=mode))
        assert words in load_student(folder, device="cpu").spec.description
        assert words[10:] in (folder / "README.md").read_text(encoding="utf-8")


def test_a_backend_that_cannot_be_saved_says_so(tmp_path):
    session = ran_session()
    taught = teach(session, *TWO_KINDS)
    work = save_work(session.student, taught, tmp_path / "mine", mode="tiles")
    with pytest.raises(InputError, match="cannot be saved"):
        drive(work)
    assert not (tmp_path / "mine").exists()


def test_a_folder_of_something_else_is_not_replaced(real_student, tmp_path):
    session = open_session(student=real_student)
    run(session)
    taught = teach(session, *TWO_KINDS)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years")
    with pytest.raises(InputError, match="choose another folder"):
        drive(save_work(real_student, taught, thesis, mode="tiles"))
    assert (thesis / "chapter.txt").read_text() == "years"


@pytest.mark.parametrize("name", ["glands", "Drüsen 2", "...", "x" * 200, "日本"])
def test_any_folder_name_makes_a_loadable_student(real_student, tmp_path, name):
    session = open_session(student=real_student)
    session.choose_step(0)
    run(session)
    taught = teach(session, (GLAND, MINE), (STROMA, STROMA_TOO))
    folder = tmp_path / name
    drive(save_work(real_student, taught, folder, mode="tiles"))
    loaded = load_student(folder, device="cpu")
    assert 0 < len(loaded.name) <= 64
    assert loaded.spec.classes == taught.classes
