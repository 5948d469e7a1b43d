"""Find similar on all slides of the list: who takes part, and what is shown where."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from napari_histodistill.controllers.explore.across import (
    AllSlidesAnswer,
    pictures_work,
    rank_again_work,
)
from napari_histodistill.controllers.explore.exports import prepared_export
from napari_histodistill.controllers.explore.shown import Shown, why_not_shown
from napari_histodistill.controllers.shared.exporting import ExportKey
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.controllers.driving import (
    GLAND,
    STROMA,
    drive,
    find_once,
    open_session,
    ran_session,
    run,
)
from tests.fakes import PINK, PURPLE, coarse_student, colour_student, tissue_image

NAMES = ("one", "two", "three", "never run")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four slides: purple glands, the same turned, no gland at all, one without map."""
    folder = tmp_path_factory.mktemp("cohort")
    image = tissue_image()
    glands = (image == PURPLE).all(axis=2) | (np.abs(image - PURPLE) < 12).all(axis=2)
    bare = np.where(glands[..., np.newaxis], np.uint8(PINK), image)
    pictures = image, image[::-1, ::-1], bare, image[::-1]
    made = []
    for name, picture in zip(NAMES, pictures, strict=True):
        path = folder / f"{name}.tif"
        made.append(write_pyramid(path, picture, mpp=0.5, compression="zlib"))
    return made


@pytest.fixture
def slides(files):
    opened = [open_slide(path) for path in files]
    yield opened
    for slide in opened:
        slide.close()


@pytest.fixture
def student():
    return colour_student()


@pytest.fixture
def session(slides, student):
    """Return a session that looks at the first of three slides that have a map."""
    for slide in slides[1:3]:
        ran_session(slide, student)
    session = ran_session(slides[0], student)
    session.search_across(wanted=True)
    return session


def ask_all(session, files) -> AllSlidesAnswer:
    answers = drive(session.query_work(files))
    assert [session.take_answer(one) for one in answers][-1]
    return session.across.answer


def test_all_slides_with_a_map_take_part(session, files, slides):
    session.add_prompt(*GLAND, like=True)
    answer = ask_all(session, files)
    names = [one.made_by.slide_name for one in answer.found.slides]
    assert names == ["one.tif", "two.tif", "three.tif"]
    assert answer.left_out == 1
    assert answer.in_words == (
        "On 2 of 3 slides; asked on one.tif. 1 more: no usable map."
    )
    with_glands = {p.answer.made_by.slide_name for p in answer.listed}
    assert with_glands == {"one.tif", "two.tif"}
    assert answer.count_in_words == f"{len(answer.listed)} places"
    low, high = answer.limits
    assert -1 <= low < answer.found.threshold < high <= 1
    here = session.similar
    assert here.threshold == answer.found.threshold
    assert here.prompts == session.prompts
    assert why_not_shown(session, Shown.ALIKE) == ""


def test_the_answer_goes_along_to_other_slides(session, files, slides, student):
    session.add_prompt(*GLAND, like=True)
    answer = ask_all(session, files)
    session.choose_slide(slides[1])
    session.take_tissue(find_once(slides[1]))
    assert not session.take_up_answer(), "its map is not there yet"
    run(session)
    assert session.take_up_answer()
    assert not session.take_up_answer(), "it is shown already"
    assert session.similar.similarity is answer.found.slides[1].similarity
    assert session.prompts.items == (), "the click was on the other slide"
    session.choose_slide(slides[0])
    assert session.prompts.items
    assert session.similar.similarity is answer.found.slides[0].similarity


def test_what_is_exported_there_says_where_it_was_asked(
    session, files, slides, tmp_path
):
    session.add_prompt(*GLAND, like=True)
    ask_all(session, files)
    session.choose_slide(slides[1])
    session.take_tissue(find_once(slides[1]))
    run(session)
    session.take_up_answer()
    path = tmp_path / "places.geojson"
    drive(prepared_export(session, ExportKey.SIMILAR_PLACES, ())(path))
    about = json.loads(path.read_text("utf-8"))["provenance"]
    assert about["slide"] == "two.tif"
    assert (about["asked_on"], about["slides_searched"]) == ("one.tif", 3)
    assert about["like_at"] == [list(GLAND)]


def test_a_click_there_asks_anew(session, files, slides):
    session.add_prompt(*GLAND, like=True)
    first = ask_all(session, files)
    session.choose_slide(slides[1])
    session.take_tissue(find_once(slides[1]))
    run(session)
    session.take_up_answer()
    session.add_prompt(*STROMA, like=True)
    second = ask_all(session, files)
    assert second.asked_on != first.asked_on
    assert "asked on two.tif" in second.in_words
    assert {one.made_by.slide_name for one in second.found.slides} == {
        "one.tif", "two.tif", "three.tif",
    }  # fmt: skip


def test_back_to_one_slide(session, files, slides):
    session.add_prompt(*GLAND, like=True)
    ask_all(session, files)
    session.search_across(wanted=False)
    assert session.across.answer is None
    assert session.similar is None
    drive_here = drive(session.query_work(files))
    for one in drive_here:
        session.take_answer(one)
    assert session.similar is not None
    assert session.across.answer is None


def test_an_answer_that_comes_late_is_dropped(session, files):
    session.add_prompt(*GLAND, like=True)
    late = drive(session.query_work(files))
    session.add_prompt(*STROMA, like=False)
    assert not any(session.take_answer(one) for one in late)
    late = drive(session.query_work(files))
    session.search_across(wanted=False)
    assert not any(session.take_answer(one) for one in late)
    assert session.across.answer is None


@pytest.mark.parametrize("end", ["clear_prompts", "drop_map"])
def test_a_search_that_ends_ends_everywhere(session, files, end):
    session.add_prompt(*GLAND, like=True)
    ask_all(session, files)
    getattr(session, end)()
    assert session.across.answer is None
    assert session.similar is None


def test_a_copy_of_a_slide_is_not_found_twice(
    session, files, slides, student, tmp_path
):
    """Mapped in other steps its store is another, and both would be refused."""
    copied = tmp_path / "copy.tif"
    shutil.copy(files[1], copied)
    with open_slide(copied) as slide:
        other = open_session(slide, student)
        other.choose_step(other.step - 1)
        run(other)
    session.add_prompt(*GLAND, like=True)
    answer = ask_all(session, [*files, copied])
    names = [one.made_by.slide_name for one in answer.found.slides]
    assert names == ["one.tif", "two.tif", "three.tif"]
    assert answer.left_out == 1


def test_another_models_map_takes_no_part(session, files, slides):
    ran_session(slides[1], coarse_student())  # noted in place of the first model's
    session.add_prompt(*GLAND, like=True)
    answer = ask_all(session, files)
    names = [one.made_by.slide_name for one in answer.found.slides]
    assert names == ["one.tif", "three.tif"]
    assert answer.left_out == 2


def test_ranked_again_from_another_value_on(session, files):
    session.add_prompt(*GLAND, like=True)
    answer = ask_all(session, files)
    (again,) = drive(rank_again_work(answer, -1.0))
    assert again.found.threshold == -1
    assert again.in_words.startswith("On 3 of 3 slides")
    assert session.take_answer(again)
    assert session.similar.threshold == -1
    assert again.found.slides[0].similarity is answer.found.slides[0].similarity


def test_pictures_of_all_slides(session, files, slides):
    session.add_prompt(*GLAND, like=True)
    answer = ask_all(session, files)
    pictures = drive(pictures_work(answer, slides[0], session.store_path, px=16))
    assert [one.rank for one in pictures] == [p.rank for p in answer.listed]
    means = np.array([one.image.mean(axis=(0, 1)) for one in pictures])
    assert (np.abs(means - PURPLE) < np.abs(means - PINK)).all()


def test_a_slide_that_is_gone_has_no_pictures(session, files, slides, tmp_path):
    session.add_prompt(*GLAND, like=True)
    answer = ask_all(session, files)
    files_now = {
        store: path if path == files[0] else tmp_path / "gone.tif"
        for store, path in answer.files.items()
    }
    moved = AllSlidesAnswer(
        answer.prompts, answer.asked_on, answer.found, files_now, answer.left_out
    )
    pictures = drive(pictures_work(moved, slides[0], session.store_path, px=16))
    assert {one.rank for one in pictures} == {
        p.rank for p in answer.listed if p.answer.made_by.slide_name == "one.tif"
    }


def test_without_a_click_nothing_is_asked(session, files):
    assert session.query_work(files) is None
    assert open_session().query_work(files) is None
