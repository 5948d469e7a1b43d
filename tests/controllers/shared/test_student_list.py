"""Students that a slide asks for by name."""

from __future__ import annotations

from pathlib import Path

from napari_histodistill.controllers.shared.student_list import (
    StudentChoice,
    chosen_in_words,
    places_of,
)
from napari_histodistill.layers.slide_layer import STUDENTS_KEY, students_of
from tests.fakes import colour_student


def choices(*names):
    return [StudentChoice(name, colour_student().spec) for name in names]


def test_students_are_found_by_name_all_or_none():
    on_offer = choices("colon-he", "bulb-control", "bulb-genes")
    assert places_of(("bulb-genes", "bulb-control"), on_offer) == [2, 1]
    assert places_of(("bulb-genes", "another"), on_offer) == []
    assert places_of((), on_offer) == []
    # A folder of that name is another student; of two alike, the first is meant.
    assert places_of(("a",), choices(Path("a"), "a", "a")) == [1]


def test_a_control_is_said_where_to_find():
    assert chosen_in_words(["one"]) == "one was chosen for this slide."
    words = chosen_in_words(["one", "two"])
    assert words == "one was chosen; Compare students adds its control, two."


def test_what_others_write_into_metadata_is_not_taken_for_names():
    assert students_of({STUDENTS_KEY: ("a", "b")}) == ("a", "b")
    assert students_of({}) == ()
    for odd in ("ab", ["a"], 3, (1, None)):
        assert students_of({STUDENTS_KEY: odd}) == ()
