"""Resampling hits exact sub-pixel places, at every level, and mirrors at borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.geometry import Region
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.pyramid.resample import (
    FILTER,
    LevelWindow,
    best_level,
    bytes_read,
    is_one_for_one,
    read_level_window,
    read_resampled,
)

HEIGHT, WIDTH = 600, 800


def ramp(height: int, width: int) -> np.ndarray:
    """Return red = y and green = x, scaled to 0..240 over the slide."""
    image = np.zeros((height, width, 3), np.float64)
    image[..., 0] = ((np.arange(height) + 0.5) / height * 240)[:, None]
    image[..., 1] = (np.arange(width) + 0.5) / width * 240
    return np.rint(image).astype(np.uint8)


def ramp_slide(ratios=(1,)):
    levels = [ramp(int(HEIGHT / r), int(WIDTH / r)) for r in ratios]
    return slide_from_arrays(levels, name="ramp")


@settings(deadline=None)
@given(
    y=st.floats(40, 300),
    x=st.floats(40, 400),
    size=st.floats(20, 240),
    pixels=st.integers(16, 224),
    ratios=st.sampled_from([(1,), (1, 2), (1, 2.5, 6.25), (1, 4)]),
)
def test_a_linear_ramp_stays_that_ramp(y, x, size, pixels, ratios):
    slide = ramp_slide(ratios)
    region = Region(y=y, x=x, height=size, width=size)
    out = read_resampled(slide, region, height=pixels, width=pixels)
    centers = (np.arange(pixels) + 0.5) * size / pixels
    red = (y + centers) / HEIGHT * 240
    green = (x + centers) / WIDTH * 240
    # The ramp itself is rounded to whole numbers (0.5), so is the result (0.5), and the
    # triangle filter sampled at pixel centres is off its centre by some tenths of a
    # pixel when it shrinks by a crooked factor; 1.12 was the most in many draws.
    assert np.abs(out[..., 0] - red[:, None]).max() <= 1.2
    assert np.abs(out[..., 1] - green[None, :]).max() <= 1.2
    # There is no bias: a shift of a quarter of a pixel would show.
    assert abs((out[..., 0] - red[:, None]).mean()) < 0.35


def test_whole_pixels_at_scale_one_are_untouched(rng):
    image = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    slide = slide_from_arrays(image, name="noise")
    region = Region(y=17, x=31, height=64, width=96)
    out = read_resampled(slide, region, height=64, width=96)
    np.testing.assert_array_equal(out, image[17:81, 31:127])


def test_shrinking_antialiases(rng):
    # Stripes of one pixel become their mean, not one of the two colours.
    image = np.zeros((512, 512, 3), np.uint8)
    image[:, ::2] = 200
    slide = slide_from_arrays(image, name="stripes")
    region = Region(y=100, x=100, height=256, width=256)
    out = read_resampled(slide, region, height=64, width=64)
    assert np.abs(out.astype(int) - 100).max() <= 8


@pytest.mark.parametrize(
    ("size", "level"), [(100, 0), (150, 0), (240, 0), (249, 1), (600, 1), (630, 2)]
)
def test_the_coarsest_level_that_is_fine_enough_is_read(size, level):
    slide = ramp_slide((1, 2.5, 6.25))
    region = Region(y=0, x=0, height=size, width=size)
    # Within one percent a level counts as fine enough.
    assert best_level(slide, region, height=100, width=100) == level


def test_outside_is_the_inside_mirrored(rng):
    image = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
    slide = slide_from_arrays(image, name="noise")
    region = Region(y=-20, x=-30, height=120, width=150)
    out = read_resampled(slide, region, height=120, width=150)
    expected = np.pad(image, ((20, 36), (30, 40), (0, 0)), mode="symmetric")
    np.testing.assert_array_equal(out, expected)


def test_a_tile_much_larger_than_a_tiny_slide():
    slide = slide_from_arrays(np.full((1, 2, 3), (9, 8, 7), np.uint8), name="tiny")
    region = Region(y=-100.3, x=-70.1, height=224.7, width=224)
    out = read_resampled(slide, region, height=224, width=224)
    assert (out == (9, 8, 7)).all()


def test_a_region_entirely_outside_is_still_tissue(rng):
    image = rng.integers(100, 200, (50, 60, 3), dtype=np.uint8)
    slide = slide_from_arrays(image, name="noise")
    region = Region(y=60, x=70, height=20, width=20)
    out = read_resampled(slide, region, height=20, width=20)
    np.testing.assert_array_equal(out, image[20:40][::-1, 30:50][:, ::-1])


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((40, 50), np.uint8), "uint8 pixels with the channels grey"),
        (np.zeros((40, 50, 3), np.uint16), "uint16 pixels with the channels channel 1"),
        (np.zeros((40, 50, 5), np.uint8), "channels channel 1, channel 2"),
    ],
)
def test_what_is_not_colour_is_refused(array, what):
    slide = slide_from_arrays(array, name="odd")
    region = Region(y=0, x=0, height=10, width=10)
    with pytest.raises(SlideError, match=f"odd: students read 8-bit colour.*{what}"):
        read_resampled(slide, region, height=10, width=10)


def test_an_empty_size_is_refused():
    region = Region(y=0, x=0, height=10, width=10)
    with pytest.raises(InputError, match="positive size, got 0 × 10"):
        read_resampled(ramp_slide(), region, height=0, width=10)


@pytest.mark.parametrize(
    ("box", "is_whole"),
    [
        ((3, 4, 53, 44), True),
        ((3 + 1e-9, 4, 53, 44 - 1e-9), True),  # float32 holds no such difference
        ((3.01, 4, 53.01, 44), False),
        ((3, 4.5, 53, 44.5), False),
        ((3, 4, 54, 44), False),
        ((3, 4, 53, 43.9), False),
    ],
)
def test_only_what_lies_between_pixels_is_filtered(rng, monkeypatch, box, is_whole):
    pixels = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    window = LevelWindow(pixels, box, 40, 50)
    assert window.is_whole == is_whole
    filtered = np.asarray(Image.fromarray(pixels).resize((50, 40), FILTER, box=box))
    np.testing.assert_array_equal(window.resampled(), filtered)
    calls = []
    monkeypatch.setattr(Image, "fromarray", lambda *_: calls.append(1) or 1 / 0)
    if is_whole:
        window.resampled()
    assert not calls


@pytest.mark.parametrize("shrink", [0.7, 1.0, 3.3])
@pytest.mark.parametrize("y", [-20.5, 300.0])
def test_what_will_be_read_is_known_before(shrink, y):
    slide = ramp_slide((1, 2.5))
    region = Region(y=y, x=50.25, height=40 * shrink, width=60 * shrink)
    size = {"height": 40, "width": 60}
    read = read_level_window(slide, region, **size).pixels.nbytes
    assert bytes_read(slide, region, **size) == read


def test_a_slide_has_a_resolution_or_has_it_not():
    slide = ramp_slide((1, 2.5))
    scales = slide.scales[1]
    assert is_one_for_one(slide, (1.0, 1.0))
    assert is_one_for_one(slide, scales)
    assert not is_one_for_one(slide, (1.0, scales[1]))
    assert not is_one_for_one(slide, (2.0, 2.0))
    assert not is_one_for_one(slide, (1.0001, 1.0001))
