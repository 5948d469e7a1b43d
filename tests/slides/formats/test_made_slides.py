"""Vendors' formats on files that the tests write and OpenSlide accepts.

No small real file of these could be had. Each test holds three things to each other:
the picture that went into the file, what OpenSlide shows of it, and what we show.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.colours import over_white
from tests.slides.formats import made_mrxs
from tests.slides.formats.made_slides import (
    MadeSlide,
    make_bif,
    make_ndpi,
    make_philips,
    make_qptiff,
    make_scn,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_histodistill.slides.pyramid.slide import Slide

openslide = pytest.importorskip("openslide")

OWN = "QPTIFF, brightfield"  # read by this package; to OpenSlide it is any tiled TIFF
MAKERS: dict[str, Callable[[Path], MadeSlide]] = {
    "NDPI": make_ndpi,
    "SCN": make_scn,
    "Philips TIFF": make_philips,
    "BIF": make_bif,
    "MRXS": made_mrxs.make_edge_to_edge,
    "MRXS, overlapping": made_mrxs.make_overlapping,
    "MRXS, with positions": made_mrxs.make_positions,
    OWN: make_qptiff,
}


@pytest.fixture(scope="module", params=list(MAKERS))
def made(request: pytest.FixtureRequest, tmp_path_factory) -> MadeSlide:
    return MAKERS[request.param](tmp_path_factory.mktemp("made"))


def shown(slide: openslide.OpenSlide, level: int) -> np.ndarray:
    """Return all pixels of a level as OpenSlide shows them, over white."""
    size = slide.level_dimensions[level]
    return over_white(np.asarray(slide.read_region((0, 0), level, size)))


def level_of(slide: Slide, level: int) -> np.ndarray:
    info = slide.level_infos[level]
    return slide.read_pixels(level, 0, 0, info.height, info.width)


def is_own(made: MadeSlide) -> bool:
    return made.path.suffix == ".qptiff"


def test_openslide_accepts_the_file_and_shows_the_right_picture(made: MadeSlide):
    with openslide.OpenSlide(str(made.path)) as slide:
        properties = slide.properties
        assert properties["openslide.vendor"] == made.vendor
        for k, right in enumerate(made.levels):
            np.testing.assert_array_equal(shown(slide, k), right)
        mpp = [float(properties[f"openslide.mpp-{side}"]) for side in "yx"]
        assert mpp == pytest.approx(made.mpp)
        corner = [int(properties.get(f"openslide.bounds-{s}", 0)) for s in "yx"]
        assert tuple(corner) == (made.bounds_origin or (0, 0))
        if is_own(made):
            return
        assert set(slide.associated_images) == set(made.associated)
        for name, right in made.associated.items():
            image = np.asarray(slide.associated_images[name])
            np.testing.assert_array_equal(image[..., :3], right)


def test_our_opening_shows_the_same_pixel_for_pixel(made: MadeSlide):
    with (
        openslide.OpenSlide(str(made.path)) as other,
        open_slide(made.path) as slide,
    ):
        sizes = [(info.width, info.height) for info in slide.level_infos]
        assert sizes == list(other.level_dimensions)
        for k in range(len(sizes)):
            np.testing.assert_array_equal(level_of(slide, k), shown(other, k))
        if not is_own(made):
            assert slide.downsamples == pytest.approx(other.level_downsamples)


def test_our_opening_knows_the_facts_and_the_associated_images(made: MadeSlide):
    with open_slide(made.path) as slide:
        assert slide.info.backend == ("tiff" if is_own(made) else "openslide")
        assert slide.info.is_rgb
        assert slide.mpp is not None
        assert (slide.mpp.y, slide.mpp.x) == pytest.approx(made.mpp)
        # Axes more than 10 % apart are shown and asked about.
        apart = max(made.mpp) / min(made.mpp) > 1.1
        assert slide.mpp.is_usable is not apart
        assert slide.info.bounds_origin == made.bounds_origin
        assert set(slide.associated_images) == set(made.associated)
        for name, right in made.associated.items():
            np.testing.assert_array_equal(slide.read_associated(name), right)


def misfits(slide: Slide, level: int, *, first: int = 0) -> list[tuple[int, int]]:
    """Return corners of small parts that differ from the same part of the whole."""
    whole, edge = level_of(slide, level), 12
    height, width = whole.shape[:2]
    return [
        (y, x)
        for y in range(first, height - edge + 1, 13)
        for x in range(first, width - edge + 1, 17)
        if not np.array_equal(
            slide.read_pixels(level, y, x, edge, edge),
            whole[y : y + edge, x : x + edge],
        )
    ]


def test_parts_of_a_level_fit_together(made: MadeSlide):
    with open_slide(made.path) as slide:
        for k in range(len(slide.level_infos)):
            assert misfits(slide, k) == []


def test_parts_fit_together_where_a_level_is_cut_to_whole_pixels(tmp_path: Path):
    # 463 px halved four times are 28, not 28.9: the sizes' ratio is 16.5, the level's
    # downsample 16.
    form = made_mrxs.Mrxs(across=8, down=8, divisions=1, overlap=7, levels=5)
    made = made_mrxs.make(tmp_path, form)
    with open_slide(made.path) as slide:
        assert slide.shape[0] / slide.level_infos[4].height > 16.5
        assert slide.scales == tuple((2.0**k, 2.0**k) for k in range(5))
        for k in range(5):
            assert misfits(slide, k) == []


def test_parts_of_a_scan_fit_together_at_an_odd_downsample(tmp_path: Path):
    made = make_scn(tmp_path, (303, 401))
    with open_slide(made.path) as slide:
        np.testing.assert_array_equal(level_of(slide, 1), made.levels[1])
        whole = made.levels[1]
        # Inside the areas: before one, OpenSlide itself rounds the other way.
        for y, x in [*product(range(20, 62), range(30, 97, 3)),
                     *product(range(90, 127), range(110, 167, 3))]:  # fmt: skip
            part = slide.read_pixels(1, y, x, 8, 8)
            np.testing.assert_array_equal(part, whole[y : y + 8, x : x + 8])
