"""Which classes can be painted, under which names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.controllers.explore.teach.painting import (
    PALETTE,
    PaintedClasses,
    pixels_under,
    read_annotations_work,
    write_strokes_work,
)
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.running import CancelToken
from napari_histodistill.students.spec import ClassSpec
from tests.fakes import array_slide


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


def test_a_colour_is_changed_and_not_given_twice():
    classes = PaintedClasses()
    classes.recolour(0, PALETTE[2])
    assert classes.all[0] == ClassSpec(name="tissue A", color=PALETTE[2])
    assert not classes.are_new, "somebody chose a colour: it is kept as a draft"
    classes.add()
    assert classes.all[2].color == PALETTE[0]


def test_only_a_class_that_is_not_painted_is_removed():
    classes = PaintedClasses()
    assert "fewest" in classes.why_not_remove(())
    classes.add()
    classes.choose(1)
    assert classes.why_not_remove({1, 2}) == (
        "tissue B is painted: erase its strokes first."
    )
    assert classes.why_not_remove({1, 3}) == ""
    labels = classes.remove()
    assert names(classes) == ["tissue A", "tissue C"]
    assert labels[[0, 1, 3]].tolist() == [0, 1, 2]
    assert classes.current == 1


def test_classes_of_other_origin_join_by_name():
    theirs = [ClassSpec(name=n, color="#123456") for n in ("crypt", "tissue B")]
    classes = PaintedClasses()
    labels = classes.merge(theirs)
    assert names(classes) == ["tissue A", "tissue B", "crypt"]
    assert labels[:4].tolist() == [0, 3, 2, 0]
    assert classes.all[1].color == PALETTE[1], "a class that is here keeps its colour"


def test_classes_that_nobody_used_make_room():
    theirs = [ClassSpec(name=n, color="#123456") for n in ("crypt", "stroma")]
    classes = PaintedClasses()
    assert classes.merge(theirs, replace=True)[:3].tolist() == [0, 1, 2]
    assert names(classes) == ["crypt", "stroma"]
    named = PaintedClasses()
    named.rename(0, "mine")
    named.merge(theirs, replace=True)
    assert names(named) == ["mine", "tissue B", "crypt", "stroma"]
    alone = PaintedClasses()
    alone.merge(theirs[:1], replace=True)
    assert len(alone.all) == 3, "one class alone teaches nothing"


def test_too_many_classes_change_nothing():
    theirs = [ClassSpec(name=f"c{k}", color="#123456") for k in range(7)]
    classes = PaintedClasses()
    with pytest.raises(InputError, match="9 classes are too many: 8"):
        classes.merge(theirs)
    assert names(classes) == ["tissue A", "tissue B"]


@pytest.mark.parametrize(
    ("square", "rows", "columns"),
    [
        (Region(y=40, x=80, height=40, width=40), range(10, 20), range(20, 30)),
        (Region(y=41, x=81, height=1, width=1), [10], [20]),
        (Region(y=591, x=791, height=40, width=40), range(148, 150), range(198, 200)),
    ],
)
def test_a_square_covers_the_pixels_whose_centre_lies_in_it(square, rows, columns):
    found = pixels_under(square, (150, 200), (600, 800))
    assert set(zip(*map(np.ndarray.tolist, found), strict=True)) == {
        (row, column) for row in rows for column in columns
    }


def test_strokes_go_to_a_file_and_come_back_where_a_slide_is_cropped(tmp_path):
    slide = array_slide()
    info = replace(slide.info, bounds_origin=(40, 80))
    classes = PaintedClasses().all
    labels = np.zeros((150, 200), np.uint8)
    labels[20:30, 30:50], labels[90:95, 100:110] = 1, 2
    path = tmp_path / "strokes.geojson"
    list(write_strokes_work(path, labels, classes, info, slide.shape)(CancelToken()))
    work = read_annotations_work(path, info, slide.shape, labels.shape)
    (found,) = work(CancelToken())
    np.testing.assert_array_equal(found.labels, labels)
    assert found.classes == classes
    assert found.words == "Painted 2 shapes of strokes.geojson."
