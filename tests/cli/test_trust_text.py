"""The table of areas says how far it may be believed."""

from __future__ import annotations

import pytest

from napari_histodistill.cli.compute import _class_text

RESULT = {
    "classes": {"tumour": {"mm2": 0.68, "cells": 13}},
    "cells": 13,
    "outputs": {"csv": "areas.csv"},
}


@pytest.mark.parametrize(
    ("unfamiliar", "words"),
    [
        (None, "was not measured"),
        (0, "0 of 13 squares (0%) look unlike"),
        (8, "8 of 13 squares (62%) look unlike"),
    ],
)
def test_areas_come_with_what_is_known_of_their_tissue(unfamiliar, words):
    text = _class_text(RESULT | {"unfamiliar": unfamiliar})
    assert words in text
    assert "0.680 mm²" in text


def test_no_square_at_all_divides_nothing():
    assert "none" in _class_text(RESULT | {"cells": 0, "unfamiliar": 0})
