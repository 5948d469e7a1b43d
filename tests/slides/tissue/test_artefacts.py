"""Pen, dust, folds and blur are no tissue; stained tissue of any kind stays."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import immunohistochemistry
from skimage.filters import gaussian

from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import open_slide, slide_from_arrays
from napari_histodistill.slides.tissue.tissue import find_tissue

GLASS = (243, 242, 244)
TISSUE = slice(150, 450)


def find(image, mpp=1.0):
    known = Mpp(mpp, mpp, "test")
    return find_tissue(slide_from_arrays(image, name="tissue", mpp=known)).mask


def glass_with_tissue(rng, height=600, width=600):
    """Return a piece of the IHC sample on grainy glass."""
    image = np.full((height, width, 3), GLASS, float)
    image[TISSUE, TISSUE] = immunohistochemistry()[:300, :300]
    return grainy(image, rng)


def grainy(image, rng):
    noisy = image + rng.normal(0, 1.5, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def uneven(rng, colour, height=400, width=400, spread=18.0):
    """Return stain that varies from one few pixels to the next."""
    coarse = rng.normal(0, spread, (height // 4, width // 4, 1))
    stained = np.array(colour) + np.repeat(np.repeat(coarse, 4, 0), 4, 1)
    return np.clip(stained, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "colour",
    [
        (30, 60, 200),
        (25, 28, 110),
        (30, 30, 32),
        (10, 120, 40),
        (20, 130, 110),
        (200, 30, 40),
        (250, 238, 90),
        (120, 75, 40),
        (90, 40, 120),
        (230, 120, 40),
    ],
    ids=[
        "blue",
        "navy",
        "black",
        "green",
        "teal",
        "red",
        "yellow",
        "brown",
        "purple",
        "orange",
    ],
)
@pytest.mark.parametrize("mpp", [1.0, 8.0])
def test_pen_on_glass_is_no_tissue(rng, colour, mpp):
    image = glass_with_tissue(rng)
    before = find(image, mpp)
    image = image.astype(float)
    image[20:120, 50:550] = colour
    mask = find(grainy(image, rng), mpp)
    assert mask[:125].mean() < 0.03
    assert mask[150:].sum() > 0.98 * before[150:].sum()


@pytest.mark.parametrize("colour", [(60, 90, 220), (60, 170, 90), (20, 150, 130)])
def test_pen_across_tissue_hides_it(rng, colour):
    image = np.full((600, 600, 3), GLASS, float)
    image[TISSUE, TISSUE] = uneven(rng, (205, 150, 190), 300, 300)
    image[280:330, 50:550] *= np.array(colour) / 255
    mask = find(image.astype(np.uint8))
    assert mask[285:325].mean() < 0.05
    assert mask[170:260, 170:430].mean() > 0.98


def test_blurred_tissue_is_none_and_the_sharp_half_stays():
    sharp = np.tile(immunohistochemistry(), (1, 2, 1))
    image = sharp.astype(float)
    image[:, 512:] = gaussian(image[:, 512:], 10, channel_axis=2)
    mask = find(image.astype(np.uint8))
    assert mask[:, 560:].mean() < 0.1
    assert mask[:, :460].sum() > 0.98 * find(sharp)[:, :460].sum()


def test_a_fold_is_no_tissue(rng):
    image = uneven(rng, (150, 95, 150)).astype(float)
    image[:, 160:240] = image[:, 160:240] ** 2 / 255
    mask = find(image.astype(np.uint8))
    assert mask[:, 180:220].mean() < 0.1
    assert mask[:, :140].all()
    assert mask[:, 260:].all()


def test_a_dense_follicle_of_another_hue_is_no_fold(rng):
    image = uneven(rng, (205, 140, 180))
    image[120:280, 120:280] = uneven(rng, (95, 65, 135), 160, 160)
    assert find(image).all()


def test_rim_of_a_bubble_and_edge_of_the_coverslip_are_no_tissue(rng):
    image = glass_with_tissue(rng).astype(float)
    y, x = np.ogrid[:600, :600]
    ring = np.abs(np.hypot(y - 75, x - 300) - 55) < 4
    image[ring] *= 0.4
    image[:, 560:570] *= 0.5
    mask = find(image.astype(np.uint8))
    assert not mask[:110].any()
    assert not mask[:, 500:].any()
    assert mask[TISSUE, TISSUE].mean() > 0.98


@pytest.mark.parametrize(
    "colour",
    [
        (232, 205, 222),
        (205, 150, 190),
        (70, 45, 115),
        (160, 110, 70),
        (90, 55, 35),
        (175, 180, 215),
        (110, 115, 175),
        (190, 60, 85),
    ],
    ids=["stroma", "eosin", "dark", "dab", "dark-dab", "pale-h", "h", "blood"],
)
@pytest.mark.parametrize("mpp", [0.5, 2.0, 8.0])
def test_stained_tissue_stays(rng, colour, mpp):
    image = np.full((600, 600, 3), GLASS, float)
    image[100:500, 100:500] = uneven(rng, colour, spread=12.0)
    mask = find(grainy(image, rng), mpp)
    assert mask[110:490, 110:490].mean() > 0.99


@pytest.mark.parametrize("colour", [(90, 130, 190), (90, 160, 130)])
def test_a_section_stained_blue_or_green_is_not_taken_for_pen(rng, colour):
    image = np.full((600, 600, 3), GLASS, np.uint8)
    image[100:500, 100:500] = uneven(rng, (200, 120, 140))
    image[100:500, 100:300] = uneven(rng, colour, 400, 200)
    assert find(image)[110:490, 110:490].mean() > 0.99


def test_a_grey_picture_keeps_its_tissue(rng):
    image = np.full((600, 600, 3), 243, np.uint8)
    image[100:500, 100:500] = uneven(rng, (140, 140, 140))
    assert find(image)[110:490, 110:490].mean() > 0.99


def test_pen_on_a_real_slide_is_left_out(data):
    with open_slide(data / "slides" / "small_dicom.dcm") as slide:
        found = find_tissue(slide)
    # The tissue is 0.43 of the slide; with pen on it and beside it, 0.51 are stained.
    assert 0.40 < found.fraction < 0.46
    height, width = found.mask.shape
    pen = found.mask[int(0.1 * height) : int(0.23 * height), : int(0.06 * width)]
    assert pen.mean() < 0.15
