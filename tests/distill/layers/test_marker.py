"""Brightfield immunohistochemistry, separated into its marker."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.distill.layers.kinds import PartnerReading
from napari_histodistill.distill.layers.marker import (
    MARKERS,
    MarkerStains,
    StainOrigin,
    find_marker_stains,
    marker_of,
)
from napari_histodistill.distill.layers.partners import dense_layer
from napari_histodistill.distill.pairs.plan import Sampling, plan_pairs
from napari_histodistill.distill.pairs.store import read_pairs, write_pairs
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.stain import TYPICAL, degrees_between

MPP = Mpp(1.0, 1.0, "test")
GLASS = np.array([244.0, 242.0, 240.0])
SIDE = 384


def direction(name):
    vector = np.array(TYPICAL.get(name) or MARKERS[name])
    return vector / np.linalg.norm(vector)


def stained(amounts, marker="DAB", **rest):
    """Return a slide of haematoxylin and a marker, ``(h, w, 2)`` of them."""
    density = amounts @ np.stack([direction("haematoxylin"), direction(marker)])
    pixels = np.rint(GLASS * np.exp(-density)).astype(np.uint8)
    return slide_from_arrays(pixels, name=rest.pop("name", "IHC"), mpp=MPP, **rest)


@pytest.fixture(scope="module")
def amounts():
    """Tissue in a disc: haematoxylin everywhere in it, marker in half of it."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(3)
    noise = gaussian_filter(rng.normal(size=(SIDE, SIDE, 2)), (4, 4, 0))
    noise = np.abs(noise) / noise.std()
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    disc = np.hypot(y, x) < 0.42 * SIDE
    found = np.stack([0.25 + 0.4 * noise[..., 0], 0.8 * noise[..., 1]], -1)
    found[..., 1] *= x > 0
    return found * disc[..., None]


@pytest.mark.parametrize("marker", ["DAB", "AEC", "Fast Red"])
def test_a_marker_is_measured_and_separated(amounts, marker):
    slide = stained(amounts, marker)
    stains = find_marker_stains(slide)
    assert stains.origin is StainOrigin.MEASURED, stains.why
    # No place has marker alone: the direction leans a little towards haematoxylin.
    assert degrees_between(np.array(stains.marker), direction(marker)) < 8
    found = marker_of(slide, stains).read_pixels(0, 0, 0, SIDE, SIDE)[..., 0]
    assert found.dtype == np.float32
    assert np.abs(found - amounts[..., 1]).mean() < 0.1
    assert np.corrcoef(found.ravel(), amounts[..., 1].ravel())[0, 1] > 0.99


def test_too_little_marker_is_said_and_the_usual_vectors_are_taken(amounts):
    plain = stained(amounts * (1, 0))
    stains = find_marker_stains(plain)
    assert stains.origin is StainOrigin.USUAL
    assert stains.why
    assert stains.marker == MARKERS["DAB"]
    with pytest.raises(InputError, match="next to no marker on it"):
        dense_layer(plain, name="ihc", tile_px=8, reading=PartnerReading.MARKER)


def test_as_it_looks_and_its_marker_are_two_partners(amounts, tmp_path):
    slide = stained(amounts)
    given = find_marker_stains(slide).with_vectors(
        TYPICAL["haematoxylin"], MARKERS["DAB"]
    )
    looks = dense_layer(slide, name="image", tile_px=32)
    marker = dense_layer(
        slide,
        name="marker",
        tile_px=32,
        reading=PartnerReading.MARKER,
        stains=given,
    )
    plan = plan_pairs(slide, [looks, marker], Sampling(mpp=1, tile_px=32))
    list(write_pairs(tmp_path / "pairs.zarr", plan))
    stored = read_pairs(tmp_path / "pairs.zarr")
    image, amount = stored.partners
    assert (image.kind, amount.kind, amount.names) == ("image", "channels", ("marker",))
    assert image.origin == {"reading": "looks"}
    assert amount.origin["reading"] == "marker"
    assert amount.origin["stains"]["origin"] == "given"
    assert amount.origin["stains"]["marker"] == list(MARKERS["DAB"])
    # 255 is 3 natural units in every section; the left half has none.
    values = stored.partner("marker", "channels") / 255 * 3
    right = stored.position_um[:, 1] > SIDE / 2
    assert values[~right].mean() < 0.05
    assert values[right].mean() == pytest.approx(
        np.mean([amounts[int(y) - 16 : int(y) + 16, int(x) - 16 : int(x) + 16, 1]
                 for y, x in stored.position_um[right] + 0.5]), rel=0.15,
    )  # fmt: skip


def test_vectors_that_are_alike_are_refused():
    with pytest.raises(InputError, match="stain vectors are alike"):
        MarkerStains((1, 1, 1), (2, 2, 2.1), (255, 255, 255), StainOrigin.GIVEN)


def test_fluorescence_has_no_marker_to_separate():
    slide = slide_from_arrays(np.ones((64, 64, 2), np.uint8), name="mif", mpp=MPP)
    with pytest.raises(InputError, match="only a colour image has a marker"):
        find_marker_stains(slide)
