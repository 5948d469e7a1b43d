"""Transformations of SpatialData: composed to one, or refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.distill.spots.coordinate_systems import coordinate_system
from napari_histodistill.errors import InputError

PLACES = np.array([[2.0, 3.0], [5.0, 7.0]])
"""(y, x)."""


def axes(names, unit="unit"):
    return [{"name": n, "type": "space", "unit": unit} for n in names]


def step(kind, into="xy", names="xy", unit="unit", outputs=None, **values):
    """Return a transformation as spatialdata writes it."""
    return {
        "type": kind,
        "input": {"name": names, "axes": axes(names)},
        "output": {"name": into, "axes": axes(outputs or names, unit)},
        **values,
    }


def bare(kind, **values):
    """Return one inside a sequence, which need not name its axes."""
    return {"type": kind, **values}


def placed(*ways):
    return coordinate_system("s.zarr: shapes/a", list(ways)).placed(PLACES)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (step("identity"), [[2, 3], [5, 7]]),
        (step("scale", scale=[10, 100]), [[200, 30], [500, 70]]),
        (step("scale", names="yx", scale=[10, 100]), [[20, 300], [50, 700]]),
        (step("translation", translation=[1, -1]), [[1, 4], [4, 8]]),
        # x' = 2y + 1, y' = 3x - 1
        (step("affine", affine=[[0, 2, 1], [3, 0, -1]]), [[8, 5], [20, 11]]),
        # The same from (x, y) into (y, x): rows are the output's, columns the input's.
        (
            step("affine", outputs="yx", affine=[[3, 0, -1], [0, 2, 1]]),
            [[8, 5], [20, 11]],
        ),
        (step("mapAxis", mapAxis={"x": "y", "y": "x"}), [[3, 2], [7, 5]]),
    ],
    ids=lambda way: way["type"] if isinstance(way, dict) else "",
)
def test_each_kind(way, expected):
    np.testing.assert_allclose(placed(way), expected)


def test_a_sequence_goes_from_its_first_to_its_last():
    inside = step(
        "sequence",
        transformations=[
            bare("mapAxis", mapAxis={"x": "y", "y": "x"}),
            bare("translation", translation=[10, 0]),
        ],
    )
    way = step(
        "sequence",
        "global",
        transformations=[step("scale", scale=[2, 1]), inside, bare("identity")],
    )
    # (y, x) → (y, 2x) → (2x, y) → (2x, y + 10)
    np.testing.assert_allclose(placed(way), [[6, 12], [14, 15]])
    found = coordinate_system("s", [way])
    assert found.factor == pytest.approx(np.sqrt(2))


def test_z_may_be_there_but_not_go_into_the_plane():
    way = step("scale", names="xyz", scale=[2, 3, 50])
    np.testing.assert_allclose(placed(way), [[6, 6], [15, 14]])
    tilted = step(
        "affine", names="xyz", affine=[[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    )
    with pytest.raises(InputError, match="does not take x and y to x and y"):
        placed(tilted)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("micrometer", "µm"), ("Pixel", "px"), ("unit", None), ("millimeter", None)],
)
def test_the_unit_is_that_of_the_system(unit, expected):
    assert coordinate_system("s", [step("identity", unit=unit)]).unit == expected
    mixed = step("identity")
    mixed["output"]["axes"][0]["unit"] = "micrometer"
    assert coordinate_system("s", [mixed]).unit is None


def test_global_is_taken_or_the_only_system():
    other, own = step("scale", "other", scale=[5, 5]), step("identity", "global")
    assert coordinate_system("s", [other, own]).name == "global"
    assert coordinate_system("s", [other]).name == "other"
    assert coordinate_system("s", [other]).factor == 5
    with pytest.raises(InputError, match=r"in 2 coordinate systems \(other, third\)"):
        coordinate_system("s", [other, step("identity", "third")])


@pytest.mark.parametrize(
    ("ways", "match"),
    [
        (None, "in no coordinate system"),
        ([], "in no coordinate system"),
        ([{"type": "identity"}], "coordinateTransformations are damaged"),
        (["identity"], "coordinateTransformations are damaged"),
        ([step("displacements", "global")], "of the kind 'displacements', which is"),
        ([step("scale", "global", scale=[1])], "to 'global' is damaged"),
        ([step("scale", "global", scale=["a", 1])], "to 'global' is damaged"),
        ([step("affine", "global", affine=[[1, 0]])], "to 'global' is damaged"),
        ([step("mapAxis", "global", mapAxis={"x": "t"})], "to 'global' is damaged"),
        ([step("sequence", "global")], "to 'global' is damaged"),
        ([step("scale", "global", scale=[0, 1])], "does not take x and y to x and y"),
        (
            [step("translation", "global", translation=[float("nan"), 1])],
            "does not take x and y to x and y",
        ),
    ],
)
def test_what_cannot_be_followed_is_said(ways, match):
    with pytest.raises(InputError, match=match) as said:
        coordinate_system("s.zarr: shapes/a", ways)
    assert str(said.value).startswith("s.zarr: shapes/a")
