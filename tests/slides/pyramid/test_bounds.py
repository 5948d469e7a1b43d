"""The scanned part of a slide as files state it, nonsense included."""

from __future__ import annotations

import sys

import pytest

from napari_histodistill.slides import open_slide
from tests.slides.formats.fake_openslide import bounds, fake_openslide

CASES = {
    "a part": (bounds(100, 40, 500, 400), (40, 100)),
    "its left edge": (bounds(0, 40, 500, 400), (40, 0)),
    "a pixel too large": (bounds(100, 40, 701, 561), (40, 100)),
    "nothing said": ({}, None),
    "the whole": (bounds(0, 0, 800, 600), None),
    "no height": (
        {k: v for k, v in bounds(9, 9, 9, 9).items() if "height" not in k},
        None,
    ),
    "words": (bounds("left", 40, 500, 400), None),
    "fractions": (bounds(1.5, 40, 500, 400), None),
    "not finite": (bounds("nan", "inf", 500, 400), None),
    "too many digits": (bounds("9" * 5000, 40, 500, 400), None),
    "beyond the slide": (bounds(800, 40, 500, 400), None),
    "before the slide": (bounds(-5, 40, 500, 400), None),
    "empty": (bounds(100, 40, 0, 400), None),
}


@pytest.mark.parametrize("case", CASES)
def test_bounds(case, tmp_path, monkeypatch):
    properties, expected = CASES[case]
    monkeypatch.setitem(sys.modules, "openslide", fake_openslide(properties))
    path = tmp_path / "slide.mrxs"
    path.write_bytes(b"not read")
    with open_slide(path) as slide:
        assert slide.info.bounds_origin == expected
        # Ours are the coordinates of the whole slide, whatever is cropped elsewhere.
        assert slide.shape == (600, 800)
        assert slide.read_pixels(0, 300, 400, 2, 2).shape == (2, 2, 3)
