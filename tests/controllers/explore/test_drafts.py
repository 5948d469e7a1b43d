"""Painted drafts as JSON and back."""

import json

import numpy as np
import pytest

from napari_histodistill.controllers.explore.drafts import Painted
from napari_histodistill.controllers.explore.teach.painting import PaintedClasses
from napari_histodistill.errors import InputError

STROKES = np.pad(np.full((3, 4), 2, np.uint8), 5)


def painted(strokes=STROKES, tissue=None):
    classes = PaintedClasses()
    classes.rename(0, "lamina")
    classes.add()
    return Painted(strokes, classes.all, tissue)


def test_it_comes_back_with_names_and_colours():
    content = json.loads(json.dumps(painted(tissue=STROKES > 0).content()))
    back = Painted.read(content)
    np.testing.assert_array_equal(back.strokes, STROKES)
    np.testing.assert_array_equal(back.tissue, STROKES > 0)
    assert [c.name for c in back.classes] == ["lamina", "tissue B", "tissue A"]
    assert back.classes == painted().classes
    assert back.in_words() == "strokes and tissue"
    assert Painted.read(painted(None).content()).in_words() == "class names"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"strokes": 3, "classes": [], "tissue": None},
        {
            "strokes": None,
            "classes": [{"name": "a\nb", "color": "red"}],
            "tissue": None,
        },
        {"strokes": None, "classes": 5, "tissue": None},
    ],
)
def test_a_damaged_one_is_refused_in_a_sentence(broken):
    with pytest.raises(InputError, match="this draft is damaged"):
        Painted.read(broken)


def test_classes_are_new_until_somebody_names_one():
    classes = PaintedClasses()
    assert classes.are_new
    classes.rename(1, "gland")
    assert not classes.are_new
    other = PaintedClasses()
    other.put(classes.all)
    assert other.all == classes.all
