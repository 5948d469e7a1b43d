"""The list of slides: rows keep their order, and badges say what is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tifffile

from napari_histodistill.controllers.explore.worklist import (
    OpenSlide,
    RowState,
    Worklist,
    badge_on,
    partly,
    worklist_work,
)
from napari_histodistill.errors import InputError
from napari_histodistill.layers import kept_maps
from napari_histodistill.slides import open_slide
from tests.controllers.driving import (
    drive,
    open_session,
    ran_session,
    stop_after_the_first_block,
)
from tests.controllers.explore.test_judging import OTHER, OWN, judge, session_on
from tests.controllers.explore.test_judging import run as run_woven
from tests.controllers.explore.test_judging import student as judged_student
from tests.fakes import array_slide

A, B, C = (Path(f"/slides/{name}.svs") for name in "abc")


def names(worklist):
    return [row.name for row in worklist.rows]


def states(worklist):
    return [row.state for row in worklist.rows]


def opened(path, name=""):
    return OpenSlide(object(), name or path.name, path)


def test_a_folder_s_slides_wait_in_order_and_none_twice():
    worklist = Worklist()
    assert worklist.add_files([A, B]) == 2
    assert worklist.add_files([B, C]) == 1
    assert names(worklist) == ["a.svs", "b.svs", "c.svs"]
    assert set(states(worklist)) == {RowState.WAITING}


def test_what_is_opened_by_any_way_is_in_the_list_at_its_place():
    worklist = Worklist()
    worklist.add_files([A, B])
    second, other = opened(B), OpenSlide(object(), "an array")
    worklist.follow([other, second])
    assert names(worklist) == ["a.svs", "b.svs", "an array"]
    assert states(worklist) == [RowState.WAITING, RowState.OPEN, RowState.OPEN]
    assert worklist.row_of(second.layer) is worklist.rows[1]
    worklist.follow([OpenSlide(other.layer, "renamed"), second])
    assert names(worklist)[2] == "renamed"
    worklist.follow([second])
    assert names(worklist) == ["a.svs", "b.svs"], "what is closed leaves the list"


def test_two_layers_of_one_file_are_two_rows():
    worklist = Worklist()
    worklist.follow([opened(A), opened(A, "a.svs again")])
    assert names(worklist) == ["a.svs", "a.svs again"]


def test_a_broken_file_is_marked_by_its_sentence_and_passed_by():
    worklist = Worklist()
    worklist.add_files([A, B, C])
    worklist.begin(B)
    assert states(worklist)[1] is RowState.OPENING
    worklist.fail(B, "b.svs: the file is cut off.")
    row = worklist.rows[1]
    assert row.state is RowState.BROKEN
    assert row.badge.tip == "b.svs: the file is cut off."
    first, last = opened(A), opened(C)
    worklist.follow([first, last])
    assert worklist.neighbour(first.layer, 1) == 2
    assert worklist.neighbour(last.layer, -1) == 0
    assert worklist.neighbour(last.layer, 1) == -1
    assert worklist.neighbour(first.layer, -1) == -1
    assert worklist.neighbour(None, 1) == 0


def test_an_opening_that_came_to_nothing_waits_again():
    worklist = Worklist()
    worklist.add_files([A])
    worklist.begin(A)
    worklist.give_up()
    assert states(worklist) == [RowState.WAITING]
    assert worklist.rows[0].badge.text == ""


def test_a_row_is_removed_with_its_layer():
    worklist, slide = Worklist(), opened(A)
    worklist.add_files([A, B])
    worklist.follow([slide])
    assert worklist.remove(0) is slide.layer
    assert worklist.remove(0) is None
    assert worklist.rows == ()


def test_badges_say_what_is_missing_and_how_far_a_map_is():
    assert badge_on(open_session()).text == ""
    assert (
        badge_on(open_session(array_slide(mpp=None), tissue=False)).text == "▲ µm/px?"
    )
    half = open_session()
    stop_after_the_first_block(half)
    share = half.live.cells_done / (half.live.cells_done + half.cells_missing)
    assert badge_on(half).text == f"◐ {share:.0%}"
    assert badge_on(ran_session()).text == "✔ map"
    assert partly(0.62).text == "◐ 62%"
    assert partly(1.0).text == "✔ map", "a run that ended while another was looked at"


@pytest.mark.parametrize(("image", "text"), [(OWN, "● like"), (OTHER, "▲ unlike")])
def test_badges_carry_the_verdict(image, text):
    session = run_woven(session_on(image))
    judge(session)
    assert badge_on(session).text == text


@pytest.fixture
def folder(tmp_path):
    """Two slides in files."""
    found = tmp_path / "slides"
    found.mkdir()
    for name, image in (("one.tif", OWN), ("two.tif", OTHER)):
        tifffile.imwrite(
            found / name, image, photometric="rgb",
            resolution=(1e4, 1e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
    return found


def stored_badges(folder, student=""):
    """Return the badges of a folder's slides that nobody has opened yet."""
    (found,) = drive(worklist_work(folder, student))
    worklist = Worklist()
    worklist.add_files(found.files, found.stored)
    assert set(states(worklist)) == {RowState.WAITING}
    return [row.badge for row in worklist.rows]


def texts(badges):
    return [badge.text for badge in badges]


def session_of(path):
    """Return a session on a slide in a file, with its tissue known."""
    session = open_session(open_slide(path), judged_student(), tissue=False)
    session.choose_every_square(every=True)
    return session


def test_a_waiting_slide_says_that_a_map_of_it_is_stored(folder):
    assert texts(stored_badges(folder)) == ["", ""]
    session = session_of(folder / "one.tif")
    stop_after_the_first_block(session)
    share = session.live.cells_done / (session.live.cells_done + session.cells_missing)
    badge, other = stored_badges(folder)
    assert badge.text == f"◐ {share:.0%}"
    assert f"“{session.student.spec.title}”" in badge.tip
    assert other.text == ""
    run_woven(session)
    assert texts(stored_badges(folder)) == ["✔ map", ""]
    judge(session)
    assert texts(stored_badges(folder, session.student.digest)) == ["● like", ""]
    apart = stored_badges(folder, "another digest")[0]
    assert (apart.text, "another model is chosen" in apart.tip) == ("✔ map", True)
    unlike = run_woven(session_of(folder / "two.tif"))
    judge(unlike)
    assert texts(stored_badges(folder)) == ["● like", "▲ unlike"]


def test_a_stored_map_s_badge_comes_back_after_an_opening_that_came_to_nothing(folder):
    run_woven(session_of(folder / "one.tif"))
    (found,) = drive(worklist_work(folder))
    worklist = Worklist()
    worklist.add_files(found.files, found.stored)
    first = found.files[0]
    worklist.begin(first)
    worklist.give_up()
    assert worklist.rows[0].badge.text == "✔ map"
    worklist.follow([opened(first)])
    assert worklist.rows[0].badge.text == "", "what is on screen says more"


@pytest.mark.parametrize("gone", ["file", "map"])
def test_a_note_that_is_out_of_date_is_not_shown(folder, gone):
    session = run_woven(session_of(folder / "one.tif"))
    assert texts(stored_badges(folder))[0] == "✔ map"
    if gone == "file":
        shutil.copy(folder / "two.tif", folder / "one.tif")
    else:
        shutil.rmtree(session.store_path)
    assert texts(stored_badges(folder))[0] == ""


DAMAGED = (
    "", "[]", "{", "null", "[" * 3000, '{"size": 1}', b"\xff\xfe",
    {"map": None}, {"map": {}}, {"map": {"share": "x"}}, {"map": {"share": None}},
    {"map": {"title": 3}}, {"map": {"store": ["x"]}}, {"map": {"share": 1e999}},
)  # fmt: skip


def test_a_damaged_note_is_no_badge(folder):
    run_woven(session_of(folder / "one.tif"))
    path = kept_maps._note_path(folder / "one.tif")
    good = json.loads(path.read_text())
    for damage in DAMAGED:
        content = damage
        if isinstance(damage, dict):
            inside = damage["map"]
            inside = good["map"] | inside if inside else inside
            content = json.dumps(good | {"map": inside})
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert texts(stored_badges(folder)) == ["", ""], damage
    path.write_text(json.dumps(good))
    assert texts(stored_badges(folder)) == ["✔ map", ""]


def test_a_note_names_no_file(folder):
    run_woven(session_of(folder / "one.tif"))
    path = kept_maps._note_path(folder / "one.tif")
    assert "one" not in path.name + path.read_text()


def test_a_folder_without_slides_is_said(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="holds no slides"):
        drive(worklist_work(tmp_path))
    (tmp_path / "s10.svs").touch()
    (tmp_path / "s9.svs").touch()
    (found,) = drive(worklist_work(tmp_path))
    assert [path.name for path in found.files] == ["s9.svs", "s10.svs"]
