"""Regions and µm per pixel."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp, MppOrigin, Region

NUMBERS = st.floats(-1e5, 1e5)
SIZES = st.floats(0.01, 1e5)
REGIONS = st.builds(Region, y=NUMBERS, x=NUMBERS, height=SIZES, width=SIZES)


@settings(deadline=None)
@given(REGIONS, REGIONS)
def test_an_intersection_lies_in_both(a, b):
    common = a.intersection(b)
    swapped = b.intersection(a)
    assert common == swapped
    if common is None:
        apart_y = a.bottom <= b.y or b.bottom <= a.y
        apart_x = a.right <= b.x or b.right <= a.x
        assert apart_y or apart_x
        return
    for region in (a, b):
        assert region.y <= common.y
        assert region.x <= common.x
        assert common.bottom <= region.bottom + 1e-6
        assert common.right <= region.right + 1e-6


@settings(deadline=None)
@given(REGIONS)
def test_a_region_meets_itself_and_holds_its_centre(region):
    same = region.intersection(region)
    assert same is not None
    assert same.height == pytest.approx(region.height, abs=1e-6)
    y, x = region.center
    assert region.y <= y <= region.bottom
    assert region.x <= x <= region.right


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "positive height and width"),
        ({"width": -1}, "positive height and width"),
        ({"y": math.nan}, "finite numbers"),
        ({"x": math.inf}, "finite numbers"),
    ],
)
def test_impossible_regions_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Region(**({"y": 0, "x": 0, "height": 1, "width": 1} | change))


def test_mpp_has_a_mean_and_knows_what_a_microscope_can_do():
    assert Mpp(0.2, 0.45, "a test").mean == pytest.approx(0.3)
    mpp = Mpp(0.3, 0.31, "a test")
    assert float(mpp) == mpp.mean
    assert mpp.is_plausible
    assert not Mpp(352.9, 352.9, "a tag").is_plausible
    assert not Mpp(0.01, 0.01, "a tag").is_plausible


def test_mpps_agree_whatever_their_source():
    assert Mpp(0.2, 0.45, "a test").agrees_with(Mpp(0.1 + 0.1, 0.45, "another"))
    assert not Mpp(0.2, 0.45, "a test").agrees_with(Mpp(0.45, 0.2, "a test"))
    assert not Mpp(0.2, 0.45, "a test").agrees_with(None)


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("axis", ["y", "x"])
def test_mpp_must_be_positive(value, axis):
    with pytest.raises(InputError, match="must be a positive number"):
        Mpp(**({"y": 1, "x": 1, "source": "t"} | {axis: value}))


@pytest.mark.parametrize(
    ("y", "x", "plausible"),
    [
        (0.5, 0.5, True),
        (0.5, 0.55, True),
        (0.55, 0.5, True),
        (0.5, 0.551, False),
        (138.9, 0.5, False),
        (0.5, 138.9, False),
        (0.05, 0.05, True),
        (0.049, 0.051, False),
        (20, 20, True),
        (20.5, 19.6, False),
    ],
)
def test_each_axis_is_judged(y, x, plausible):
    mpp = Mpp(y, x, "a file")
    assert mpp.is_plausible == mpp.is_usable == plausible
    assert bool(mpp.problem) == (not plausible)
    assert Mpp(y, x, "a person", MppOrigin.USER).is_usable
