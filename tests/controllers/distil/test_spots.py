"""Spots: what a file leaves open, where answers lay them, and tables of layers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_histodistill.controllers.distil.spots import (
    Positions,
    answers_for,
    genes_of,
    place_on,
    table_of,
    why_no_spots,
)
from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.spots.spot_tables import SpotTable, are_counts
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.layers.spot_layer import SPOTS_KEY
from napari_histodistill.slides import slide_from_arrays

HE, OTHER, UM = Positions.HE_PIXELS, Positions.OTHER_PIXELS, Positions.MICROMETRES
PLACES = np.array([[10.0, 20.0], [30.0, 40.0]])


def section(mpp=0.5):
    known = None if mpp is None else Mpp(mpp, mpp, "test")
    return slide_from_arrays(np.zeros((200, 200, 3), np.uint8), name="H&E", mpp=known)


def table(unit=None, um_per_px=None, size=None):
    values = np.ones((2, 2), np.float32)
    return SpotTable("file", PLACES, unit, um_per_px, values, ("A", "B"), size)


@pytest.mark.parametrize(
    ("unit", "um_per_px", "sparse", "answers"),
    [
        ("µm", None, section(), ()),
        ("px", 0.25, section(), ()),
        ("px", None, section(), (HE, OTHER)),
        (None, None, section(), (HE, OTHER, UM)),
        (None, 0.25, section(), (HE, OTHER, UM)),
        (None, None, section(None), (OTHER, UM)),
        ("px", None, None, (OTHER,)),
    ],
)
def test_only_what_a_file_leaves_open_is_asked(unit, um_per_px, sparse, answers):
    assert answers_for(table(unit, um_per_px), sparse) == answers


@pytest.mark.parametrize(("answer", "factor"), [(HE, 0.5), (OTHER, 0.25), (UM, 1.0)])
def test_an_answer_lays_spots_and_sizes_them(answer, factor):
    placed = place_on(section(), table(size=4.0), answer, 0.25)
    np.testing.assert_allclose(placed.spots.positions_um, PLACES * factor)
    assert placed.size_um == 4.0 * factor


def test_a_file_that_says_everything_is_laid_as_it_says():
    placed = place_on(section(), table("px", 0.25, 8.0), None, 99.0)
    np.testing.assert_allclose(placed.spots.positions_um, PLACES * 0.25)
    assert placed.size_um == 2.0
    assert place_on(section(), table("µm"), None, 99.0).size_um is None
    with pytest.raises(InputError, match="none of the 2 spots"):
        place_on(section(), table(), OTHER, 100.0)


def test_spots_need_a_section_with_micrometres():
    assert "Open the H&E first" in why_no_spots(None)
    assert "how many µm" in why_no_spots(section(None))
    assert why_no_spots(section()) == ""


class Columns(dict):
    """A table as napari's features are: columns by name, arrays inside."""

    @property
    def columns(self):
        return list(self)


def features(**columns):
    return Columns({name: np.asarray(v) for name, v in columns.items()})


def test_a_layer_of_points_has_genes_by_its_table_or_its_numbers():
    found = features(GENE=[1, 2], x=[3.0, 4.0], name=["a", "b"])
    assert genes_of({}, found) == ("GENE",)
    known = Spots("spots", PLACES, np.ones((2, 2), np.float32), ("A", "B"))
    assert genes_of({SPOTS_KEY: known}, found) == ("A", "B")


def test_counts_among_the_features_become_log_counts():
    made = table_of("mine", PLACES, {}, features(A=[1, 0], B=[3, 0]))
    np.testing.assert_allclose(made.values[0], np.log1p([2500.0, 7500.0]), rtol=1e-6)
    assert not made.values[1].any(), "a spot without counts stays 0"
    logs = features(A=[0.5, 1.5], B=[1.0, 2.0])
    np.testing.assert_allclose(
        table_of("mine", PLACES, {}, logs).values, [[0.5, 1.0], [1.5, 2.0]]
    )
    with pytest.raises(InputError, match="column 'A' has empty places"):
        table_of("mine", PLACES, {}, features(A=[np.nan, 1.0]))


def test_a_table_that_no_longer_fits_its_points_is_refused():
    known = Spots("spots", PLACES, np.ones((2, 1), np.float32), ("A",))
    moved = table_of("mine", PLACES + 5, {SPOTS_KEY: known}, SimpleNamespace())
    np.testing.assert_allclose(moved.positions_um, PLACES + 5)
    assert moved.name == "mine"
    with pytest.raises(InputError, match="spots were added or removed"):
        table_of("mine", PLACES[:1], {SPOTS_KEY: known}, SimpleNamespace())


@pytest.mark.parametrize(
    ("values", "counts"),
    [([[1, 2]], True), ([[0, 0]], True), ([[1.5, 2]], False), ([[-1, 2]], False)],
)
def test_counts_are_whole_and_not_negative(values, counts):
    assert are_counts(np.asarray(values, np.float32)) is counts
