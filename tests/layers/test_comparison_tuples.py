"""Layers of a comparison: small arrays, exactly placed, transparent where equal."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.layers.comparison import (
    FAINTEST,
    difference_colormap,
    difference_layer,
    difference_limits,
    place_layer,
)
from napari_histodistill.maps.difference import DifferenceMap
from tests.maps.helpers import small_grid


def difference(rng, *, two_ends=False):
    grid = small_grid()
    values = rng.uniform(0.1, 1, grid.shape).astype(np.float32)
    values[0, 0] = np.nan
    ends = rng.choice(np.array([-1, 1], np.int8), grid.shape) if two_ends else None
    measure = "news" if two_ends else "classes"
    return DifferenceMap(
        values=values, ends=ends, grid=grid, measure=measure, names=("A", "B"), cells=9
    )


@pytest.mark.parametrize("two_ends", [False, True])
def test_what_differs_little_is_transparent(rng, two_ends):
    found = difference(rng, two_ends=two_ends)
    data, kwargs, kind = difference_layer(found, threshold=0.6, affine=np.eye(3))
    assert kind == "image"
    assert kwargs["cache"] is False
    assert data.shape == found.grid.shape
    np.testing.assert_array_equal(np.isfinite(data), found.values >= 0.6)
    assert np.nanmin(np.abs(data)) >= 0.6
    low, high = kwargs["contrast_limits"]
    assert high == found.highest
    assert low == (-high if two_ends else 0.6)
    world = found.grid.world()
    assert (kwargs["scale"], kwargs["translate"]) == (world.scale, world.translate)


def test_limits_stay_apart_where_nothing_reaches_the_threshold(rng):
    found = difference(rng)
    low, high = difference_limits(found, 5.0)
    assert low < high


@pytest.mark.parametrize("two_ends", [False, True])
def test_more_difference_is_more_opaque(two_ends):
    opaque = [c[3] for c in difference_colormap(two_ends=two_ends)["colors"]]
    middle = len(opaque) // 2 if two_ends else 0
    assert opaque[middle] == pytest.approx(FAINTEST)
    assert opaque[-1] == 1
    assert np.all(np.diff(opaque[middle:]) > 0)
    assert not two_ends or opaque == pytest.approx(opaque[::-1])


def test_brightness_rises_evenly_with_the_difference():
    colors = np.array(difference_colormap(two_ends=False)["colors"])[:, :3]
    linear = np.where(
        colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4
    )
    lightness = np.cbrt(linear @ [0.2126, 0.7152, 0.0722])
    steps = np.diff(lightness)
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.min()


def test_a_place_and_its_neighbours_differ_in_shape_and_colour():
    a, b = [(10.0, 20.0), (30.0, 40.0)], [(50.0, 60.0)]
    points, kwargs, kind = place_layer((5.0, 6.0), (a, b), (0.5, 0.5), affine=np.eye(3))
    assert kind == "points"
    np.testing.assert_allclose(points[0], (4.5, 5.5))
    assert kwargs["symbol"] == ["diamond", "disc", "disc", "square"]
    assert len(set(kwargs["face_color"])) == 3
