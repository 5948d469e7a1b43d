"""Places that give no pair: pale partners lose none, every loss has its reason."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_histodistill.distill.layers.partners import dense_layer
from napari_histodistill.distill.pairs.lost import Lost, all_lost, say_lost
from napari_histodistill.distill.pairs.plan import Sampling, plan_pairs
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.tissue import find_tissue

MPP = Mpp(2.0, 2.0, "painted")
SHAPE = (640, 960)
TISSUE = (slice(64, 576), slice(64, 896))
TILE_PX = 32
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
DAB = np.array([0.27, 0.57, 0.78])
PEN = (30, 60, 200)


def painted(*layers, seed=0):
    """Return an image ``(h, w, 3)`` of stains: (colour, amount ``(h, w)``)."""
    density = np.zeros((*SHAPE, 3))
    for colour, amount in layers:
        density += colour * np.broadcast_to(amount, SHAPE)[..., None]
    image = 244 * 10**-density
    image += np.random.default_rng(seed).normal(0, 1.5, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def nuclei():
    """Return nuclei of 8 µm, ``(h, w)`` 0 to 1, a tenth of the area, in the tissue."""
    noise = gaussian_filter(np.random.default_rng(3).normal(size=SHAPE), 2)
    found = gaussian_filter((noise > np.quantile(noise, 0.9)).astype(float), 0.7)
    inside = np.zeros(SHAPE)
    inside[TISSUE] = 1
    return found * inside


@pytest.fixture(scope="module")
def inside():
    found = np.zeros(SHAPE)
    found[TISSUE] = 1
    return found


@pytest.fixture(scope="module")
def sparse(nuclei, inside):
    rough = gaussian_filter(np.random.default_rng(4).normal(size=SHAPE), 2) * 0.3
    image = painted((HAEMATOXYLIN, nuclei), (EOSIN, inside * (0.25 + rough)))
    return slide_from_arrays(image, name="he", mpp=MPP)


@pytest.fixture(scope="module")
def pale(nuclei, inside):
    """Return the partner: a pale counterstain, and a good half strongly brown."""
    brown = np.zeros(SHAPE)
    brown[96:400, 96:864] = 0.5
    rough = 1 + gaussian_filter(np.random.default_rng(5).normal(size=SHAPE), 2)
    blue = 0.03 * inside + 0.25 * nuclei
    return painted((HAEMATOXYLIN, blue), (DAB, brown * rough), seed=1)


def plan(sparse, image, **rest):
    slide = slide_from_arrays(image, name="ihc", mpp=MPP)
    layer = dense_layer(slide, name="ihc", tile_px=TILE_PX, **rest)
    return plan_pairs(sparse, [layer], Sampling(mpp=2.0, tile_px=TILE_PX))


def spoilt(image):
    """Return the partner with a fold, pen and a torn-off piece, 2 × 12 tiles each."""
    image = image.copy()
    fold, pen, torn = (slice(y, y + 64) for y in (320, 416, 480))
    across = slice(384, 768)
    image[fold, across] = 244 * (image[fold, across] / 244.0) ** 2
    image[pen, across] = PEN
    image[torn, across] = 244
    return image


def test_a_pale_partner_loses_no_place_that_the_slide_has(sparse, pale):
    as_it_was = find_tissue(slide_from_arrays(pale, name="ihc", mpp=MPP))
    assert as_it_was.fraction < 0.55  # of .69: the brown alone decided
    found = plan(sparse, pale)
    assert len(found) == 16 * 26
    assert found.lost == {
        Lost.BACKGROUND: 20 * 30 - 16 * 26,
        Lost.OUTSIDE_PARTNER: 0,
        Lost.INK: 0,
        Lost.FOLD: 0,
        Lost.UNLABELLED: 0,
    }
    assert np.median(found.confidence) > 0.95
    assert found.confidence.min() > 0.7


def test_every_place_is_lost_once_and_for_its_reason(sparse, pale):
    found = plan(sparse, spoilt(pale))
    for why in (Lost.INK, Lost.FOLD, Lost.OUTSIDE_PARTNER):
        assert 20 <= found.lost[why] <= 30, found.lost
    assert len(found) + sum(found.lost.values()) == 20 * 30
    moved = np.eye(3)
    moved[1, 2] = -640.0  # µm: ten columns of tiles lie left of the partner's picture
    moved = plan(sparse, spoilt(pale), matrix=moved)
    assert moved.lost[Lost.OUTSIDE_PARTNER] >= 8 * 16
    assert len(moved) + sum(moved.lost.values()) == 20 * 30
    said = say_lost({**found.lost, Lost.BACKGROUND: 0})
    for words in ("blank", "under ink", "on a fold"):
        assert words in said
    both = all_lost([found.lost, moved.lost])
    assert both[Lost.FOLD] == found.lost[Lost.FOLD] + moved.lost[Lost.FOLD]


def test_ink_on_the_slide_itself_is_no_background(sparse, pale):
    image = sparse.read_pixels(0, 0, 0, *SHAPE).copy()
    image[352:416, 384:768] = PEN
    found = plan(slide_from_arrays(image, name="he", mpp=MPP), pale)
    assert 20 <= found.lost[Lost.INK] <= 28
    assert found.lost[Lost.BACKGROUND] == 20 * 30 - 16 * 26


def test_an_alignment_that_is_off_by_a_tile_is_not_called_a_lack_of_tissue(
    sparse, pale
):
    with pytest.raises(InputError, match=r"ihc is aligned .* larger tiles"):
        plan(sparse, pale, confidence=0.0)
