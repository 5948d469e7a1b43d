"""What the canvas shows, in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.controllers.shared.viewing import (
    ellipse_outline,
    mpp_of_scale,
    zoom_to_show,
)


def test_a_scale_in_um_is_the_size_of_a_pixel():
    mpp = mpp_of_scale((1, -0.5, 0.25), ("um", "micrometer", "µm"))
    assert (mpp.y, mpp.x) == (0.5, 0.25), "of the last two axes; a flip changes nothing"


@pytest.mark.parametrize(
    ("scale", "units"),
    [((1, 1), ("pixel", "pixel")), ((1, 1), ("um", "pixel")), ((0, 1), ("um", "um"))],
)
def test_a_scale_without_meaning_says_nothing(scale, units):
    assert mpp_of_scale(scale, units) is None


def test_what_is_jumped_to_fills_its_share():
    # The narrower side decides: 30 % of 400 px for 10 µm.
    assert zoom_to_show((10, 10), (400, 800), share=0.3, zoom=1) == pytest.approx(12)


@pytest.mark.parametrize(
    ("zoom", "kept"), [(5.9, False), (6, True), (24, True), (25, False)]
)
def test_the_zoom_stays_within_half_and_twice(zoom, kept):
    found = zoom_to_show((10, 10), (400, 400), share=0.3, zoom=zoom)
    assert found == pytest.approx(zoom if kept else 12)


def test_an_ellipse_touches_its_box_in_the_middle_of_each_side():
    box = np.array([[0.0, 0], [0, 8], [4, 8], [4, 0]])
    outline = ellipse_outline(box)
    assert outline.shape == (64, 2)
    np.testing.assert_allclose(outline.min(axis=0), (0, 0), atol=1e-12)
    np.testing.assert_allclose(outline.max(axis=0), (4, 8), atol=1e-12)
    np.testing.assert_allclose(
        ((outline - (2, 4)) ** 2 / (4, 16)).sum(axis=1), 1, atol=1e-12
    )
