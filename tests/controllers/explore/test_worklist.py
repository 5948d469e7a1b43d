"""The list of slides: rows keep their order, and badges say what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_histodistill.controllers.explore.worklist import (
    OpenSlide,
    RowState,
    Worklist,
    badge_on,
    partly,
    worklist_work,
)
from napari_histodistill.errors import InputError
from tests.controllers.driving import (
    drive,
    open_session,
    ran_session,
    stop_after_the_first_block,
)
from tests.controllers.explore.test_judging import OTHER, OWN, judge, session_on
from tests.controllers.explore.test_judging import run as run_woven
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


def test_a_folder_without_slides_is_said(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="holds no slides"):
        drive(worklist_work(tmp_path))
    (tmp_path / "s10.svs").touch()
    (tmp_path / "s9.svs").touch()
    (found,) = drive(worklist_work(tmp_path))
    assert [path.name for path in found.files] == ["s9.svs", "s10.svs"]
