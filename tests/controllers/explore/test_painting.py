"""Which classes can be painted, under which names."""

from __future__ import annotations

import pytest

from napari_histodistill.controllers.explore.painting import PALETTE, PaintedClasses
from napari_histodistill.errors import InputError


def names(classes):
    return [c.name for c in classes.all]


def test_two_classes_are_there_and_the_first_is_painted():
    classes = PaintedClasses()
    assert names(classes) == ["tissue A", "tissue B"]
    assert classes.label == 1
    classes.choose(1)
    assert classes.label == 2


def test_a_name_is_stripped_and_the_colour_stays():
    classes = PaintedClasses()
    classes.rename(1, "  gland ")
    assert names(classes) == ["tissue A", "gland"]
    assert classes.all[1].color == PALETTE[1]


@pytest.mark.parametrize("name", ["tissue A", "", "a/b", "ä"])
def test_a_name_that_cannot_be_is_refused_and_nothing_changes(name):
    classes = PaintedClasses()
    with pytest.raises(InputError, match="a name of its own"):
        classes.rename(1, name)
    assert names(classes) == ["tissue A", "tissue B"]


@pytest.mark.parametrize(("index", "name"), [(0, "tissue A"), (5, "x"), (-1, "x")])
def test_its_own_name_or_no_class_changes_nothing(index, name):
    classes = PaintedClasses()
    classes.rename(index, name)
    assert names(classes) == ["tissue A", "tissue B"]


def test_a_new_class_takes_a_free_letter_and_is_painted():
    classes = PaintedClasses()
    classes.rename(0, "tissue C")
    classes.add()
    assert names(classes) == ["tissue C", "tissue B", "tissue A"]
    assert classes.current == 2


def test_there_are_as_many_classes_as_colours():
    classes = PaintedClasses()
    for _ in range(len(PALETTE) - 2):
        classes.add()
    assert len({c.color for c in classes.all}) == len(PALETTE)
    with pytest.raises(InputError, match="8 classes are as many"):
        classes.add()
    assert len(classes.all) == len(PALETTE)
