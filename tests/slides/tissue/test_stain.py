"""Stains are found once for a slide, and the map between two looks is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import open_slide, slide_from_arrays
from napari_histodistill.slides.tissue.stain import (
    StainFit,
    StainMap,
    fit_slide,
    fit_stains,
    recoloured,
)

HE = StainFit((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (1.0, 1.0), (245.0, 244.0, 246.0))
BROWN = (0.27, 0.57, 0.78)


def unit(vector):
    return tuple(np.array(vector) / np.linalg.norm(vector))


def painted(fit=HE, *, seed=0, side=120, noise=1.0):
    """Tissue of known stains: eosin everywhere but on glass, nuclei in it."""
    rng = np.random.default_rng(seed)
    amounts = np.zeros((side, side, 2))
    amounts[..., 1] = rng.uniform(0.15, 0.9, (side, side)) * fit.strengths[1]
    nuclei = rng.random((side, side)) < 0.3
    amounts[nuclei, 0] = rng.uniform(0.4, 1.0, nuclei.sum()) * fit.strengths[0]
    amounts[nuclei, 1] *= rng.uniform(0, 0.3, nuclei.sum())
    amounts[: side // 4] = 0
    density = amounts @ np.array([unit(fit.haematoxylin), unit(fit.eosin)])
    pixels = np.array(fit.glass) * 10**-density + rng.normal(0, noise, (side, side, 3))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def degrees(a, b):
    return np.degrees(np.arccos(np.clip(np.dot(unit(a), unit(b)), -1, 1)))


def test_known_stains_are_found_again():
    found = fit_stains(painted(noise=0))
    assert degrees(found.haematoxylin, HE.haematoxylin) < 3
    assert degrees(found.eosin, HE.eosin) < 3
    assert np.allclose(found.strengths, (0.95, 0.85), atol=0.1)
    assert np.allclose(found.glass, HE.glass, atol=1)


def test_normalising_a_normal_slide_changes_nothing():
    stains = StainMap.between(HE, HE)
    pixels = painted()
    assert np.abs(stains.apply(pixels).astype(int) - pixels).max() <= 1


def test_normalising_a_slide_towards_its_own_fit_changes_next_to_nothing():
    pixels = painted(seed=3)
    stains = StainMap.between(fit_stains(pixels), fit_stains(painted(seed=4)))
    assert np.abs(stains.apply(pixels).astype(int) - pixels).mean() < 2


@settings(max_examples=12, deadline=None)
@given(
    turn=st.lists(st.floats(-0.12, 0.12), min_size=6, max_size=6),
    strengths=st.tuples(st.floats(0.6, 1.6), st.floats(0.6, 1.6)),
    glass=st.tuples(*[st.floats(232, 255)] * 3),
    seed=st.integers(0, 2**16),
)
def test_another_laboratory_s_slide_comes_close_to_the_reference(
    turn, strengths, glass, seed
):
    shifted = StainFit(
        unit(np.clip(np.array(HE.haematoxylin) + turn[:3], 0.02, None)),
        unit(np.clip(np.array(HE.eosin) + turn[3:], 0.02, None)),
        strengths,
        glass,
    )
    there, here = painted(shifted, seed=seed), painted(HE, seed=seed)
    stains = StainMap.between(fit_stains(there), fit_stains(here))
    before = np.abs(there.astype(int) - here).mean()
    after = np.abs(stains.apply(there).astype(int) - here).mean()
    assert after < max(6.0, 0.6 * before)


@settings(max_examples=12, deadline=None)
@given(glass=st.tuples(*[st.floats(220, 255)] * 3))
def test_glass_becomes_the_reference_s_glass_and_white_stays_white(glass):
    stains = StainMap.between(
        StainFit(HE.haematoxylin, HE.eosin, HE.strengths, glass), HE
    )
    bare = np.rint(np.array(glass)).astype(np.uint8)[np.newaxis]
    assert np.abs(stains.apply(bare)[0] - np.array(HE.glass)).max() < 2.5
    white = np.full((1, 3), 255, np.uint8)
    assert stains.apply(white).min() >= 240


def test_a_stain_that_is_neither_is_left_alone():
    stains = StainMap.between(HE, HE)
    ink = np.array([[20, 160, 60], [10, 10, 10], [200, 200, 30]], np.uint8)
    assert np.abs(stains.apply(ink).astype(int) - ink).max() <= 1


def test_brown_is_not_eosin():
    ihc = StainFit(HE.haematoxylin, unit(BROWN), (0.5, 1.0), HE.glass)
    with pytest.raises(InputError, match="not H&E"):
        fit_stains(painted(ihc))


def test_a_single_stain_is_not_normalised():
    rng = np.random.default_rng(0)
    density = rng.uniform(0.1, 1, (5000, 1)) * np.array(unit(HE.eosin))
    pixels = (245 * 10**-density).astype(np.uint8)
    with pytest.raises(InputError, match=r"one stain|another colour|next to no"):
        fit_stains(pixels)


@pytest.mark.parametrize("colour", [(245, 245, 245), (128, 128, 128), (0, 0, 0)])
def test_glass_grey_and_black_are_refused(colour):
    blank = np.full((100, 100, 3), colour, np.uint8)
    with pytest.raises(InputError):
        fit_stains(blank)


def test_a_few_strokes_of_a_pen_do_not_move_the_stains():
    clean, marked = painted(side=300), painted(side=300)
    marked[100:103] = (20, 20, 120)  # blue ink over a hundredth of the tissue
    a, b = fit_stains(clean), fit_stains(marked)
    assert degrees(a.haematoxylin, b.haematoxylin) < 8
    assert degrees(a.eosin, b.eosin) < 8


def test_a_slide_much_paler_than_the_reference_is_refused():
    pale = StainFit(HE.haematoxylin, HE.eosin, (0.15, 0.9), HE.glass)
    with pytest.raises(InputError, match="haematoxylin would have to be made"):
        StainMap.between(pale, HE)


def test_a_slide_is_fitted_once_and_read_lazily_through_the_map():
    pixels = np.tile(painted(side=250), (3, 3, 1))
    pixels[:100] = np.array(HE.glass)
    slide = slide_from_arrays([pixels], name="he", mpp=Mpp(0.5, 0.5, "a test"))
    fit = fit_slide(slide, mpp=0.5)
    assert fit == fit_slide(slide, mpp=0.5), "the same slide, the same stains"
    stronger = StainFit(fit.haematoxylin, fit.eosin, (2.0, 2.0), fit.glass)
    stains = StainMap.between(fit, stronger)
    seen = recoloured(slide, stains)
    part = slide.read_pixels(0, 200, 100, 64, 80)
    assert np.array_equal(seen.read_pixels(0, 200, 100, 64, 80), stains.apply(part))
    assert seen.shape == slide.shape


def test_a_slide_without_tissue_or_of_ihc_is_refused_by_name():
    blank = np.full((600, 600, 3), 245, np.uint8)
    empty = slide_from_arrays([blank], name="empty", mpp=Mpp(0.5, 0.5, "a test"))
    with pytest.raises(InputError, match="empty: no tissue"):
        fit_slide(empty, mpp=0.5)


def test_a_map_survives_being_written():
    stains = StainMap.between(fit_stains(painted(seed=1)), HE)
    again = StainMap.from_json(stains.to_json())
    assert again == stains
    assert again.digest == stains.digest
    with pytest.raises(ValueError, match="damaged"):
        StainMap.from_json('{"matrix": [], "glass": [1, 2, 3], "new_glass": [1, 2, 3]}')


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs"]
)
def test_real_h_and_e_is_fitted(data, name):
    with open_slide(data / "slides" / name) as slide:
        known = slide if slide.usable_mpp else slide.with_mpp(Mpp.given(0.25, "typed"))
        fit = fit_slide(known, mpp=1.0)
    assert min(fit.strengths) > 0.3


@pytest.mark.data
def test_real_ihc_is_refused(data):
    from PIL import Image

    with Image.open(next((data / "stains").rglob("*proSPC*.jpg"))) as image:
        pixels = np.asarray(image.convert("RGB"))
    with pytest.raises(InputError, match="not H&E"):
        fit_stains(pixels)
