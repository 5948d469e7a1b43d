"""A slide becomes a layer tuple: in µm, lazy, and it remembers where it came from."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_histodistill.geometry import Mpp, MppOrigin
from napari_histodistill.layers.slide_layer import SlideRef, slide_layer, slide_of
from napari_histodistill.slides import slide_from_arrays
from tests.fakes import array_slide, tissue_image


class Watched:
    """An array that counts the pixels that are read of it."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.pixels_read = 0

    def __getitem__(self, key):
        part = self._array[key]
        self.pixels_read += part[..., 0].size  # dask asks for empty parts
        return part


def fluorescence(*levels, channels=("DAPI", "CD3", "empty")):
    return slide_from_arrays(
        levels, name="cells", mpp=Mpp(0.5, 0.5, "a test"), channels=channels
    )


def test_a_colour_slide_lies_in_micrometres():
    mpp = Mpp(0.25, 0.5, "a test", MppOrigin.USER)
    slide = slide_from_arrays([tissue_image()], name="colon", mpp=mpp)
    levels, kwargs, kind = slide_layer(slide)
    assert kind == "image"
    assert kwargs["name"] == "colon"
    assert kwargs["scale"] == (0.25, 0.5), "y first"
    assert kwargs["translate"] == (0, 0)
    assert kwargs["units"] == ("um", "um")
    assert kwargs["rgb"] is True
    assert kwargs["multiscale"] is True
    assert kwargs["contrast_limits"] == (0, 255)
    assert np.array_equal(np.asarray(levels[0]), tissue_image())


def test_a_second_slide_can_lie_beside():
    _, kwargs, _ = slide_layer(array_slide(), translate=(0.0, 1200.0))
    assert kwargs["translate"] == (0.0, 1200.0)
    assert kwargs["scale"] == (0.5, 0.5)


@pytest.mark.parametrize("mpp", [None, Mpp(352.9, 352.9, "a label in inches")])
def test_without_a_scale_that_can_be_true_it_is_placed_in_um_and_nothing_claimed(mpp):
    slide = slide_from_arrays([tissue_image()], name="colon", mpp=mpp)
    _, kwargs, _ = slide_layer(slide)
    assert kwargs["scale"] == (1, 1)
    assert kwargs["units"] == ("um", "um"), "napari draws no two units together"
    assert kwargs["metadata"]["histodistill"].mpp == mpp, "what the file says is kept"
    assert slide_of(kwargs["metadata"]).usable_mpp is None, "1 µm/px is nowhere claimed"


def test_a_person_is_believed():
    typed = array_slide(mpp=None).with_mpp(Mpp.given(30.0))
    _, kwargs, _ = slide_layer(typed)
    assert (kwargs["scale"], kwargs["units"]) == ((30.0, 30.0), ("um", "um"))


def test_the_layer_leads_back_to_its_slide():
    slide = array_slide()
    _, kwargs, _ = slide_layer(slide)
    ref = kwargs["metadata"]["histodistill"]
    assert slide_of(kwargs["metadata"]) is slide
    assert (ref.name, ref.path, ref.mpp) == (slide.name, slide.path, slide.mpp)


@pytest.mark.parametrize("metadata", [{}, {"histodistill": "x"}, {"other": 1}])
def test_other_layers_lead_nowhere(metadata):
    assert slide_of(metadata) is None


def test_equal_slides_have_equal_references():
    """Napari compares metadata when a layer is copied; pixels must not be compared."""
    a, b = array_slide(), array_slide()
    assert SlideRef(a, "x", None, a.mpp) == SlideRef(b, "x", None, b.mpp)


@pytest.mark.parametrize("size", [(600, 800), (1500, 3100), (40, 9000)])
def test_the_coarsest_level_fits_a_screen(size):
    blank = da.zeros((*size, 3), dtype=np.uint8)
    slide = slide_from_arrays([blank], name="big", digest="d")
    levels, _, _ = slide_layer(slide)
    sizes = [level.shape[:2] for level in levels]
    assert sizes[0] == size
    assert max(sizes[-1]) <= 1024
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_no_pixel_is_read_before_it_is_drawn():
    image = tissue_image(1200, 2800)
    pyramid = [Watched(image), Watched(image[::4, ::4])]
    slide = slide_from_arrays(pyramid, name="big", digest="d")
    for level in pyramid:
        level.pixels_read = 0
    levels, _, _ = slide_layer(slide)
    assert [level.pixels_read for level in pyramid] == [0, 0]
    assert np.array_equal(levels[0][5:7, 9:12].compute(), image[5:7, 9:12])
    assert 0 < pyramid[0].pixels_read <= 1024**2, "now it was drawn: one chunk"
    assert pyramid[1].pixels_read == 0


def test_fluorescence_becomes_one_layer_per_channel(rng):
    fine = rng.integers(0, 4000, (64, 96, 3)).astype(np.uint16)
    fine[..., 1] //= 100
    fine[..., 2] = 7
    slide = fluorescence(fine)
    levels, kwargs, kind = slide_layer(slide)
    assert kind == "image"
    assert kwargs["rgb"] is False
    assert levels[0].shape[kwargs["channel_axis"]] == 3
    assert kwargs["name"] == ["cells · DAPI", "cells · CD3", "cells · empty"]
    assert len(set(kwargs["colormap"])) == 3
    assert kwargs["blending"] == "additive"
    dapi, cd3, empty = kwargs["contrast_limits"]
    assert dapi[0] < 100
    assert 3800 < dapi[1] <= 4000
    assert cd3[1] <= 40, "each channel by its own brightness"
    assert empty == (7, 8), "a range, also where every pixel is alike"


def test_contrast_limits_come_from_the_coarsest_level_alone(rng):
    image = rng.integers(0, 4000, (1200, 1400, 3)).astype(np.uint16)
    pyramid = [Watched(image), Watched(image[::4, ::4])]
    slide = slide_from_arrays(pyramid, name="cells", digest="d", channels=list("abc"))
    for level in pyramid:
        level.pixels_read = 0
    slide_layer(slide)
    assert pyramid[0].pixels_read == 0
    assert pyramid[1].pixels_read > 0


def test_gaps_in_a_channel_leave_usable_contrast_limits():
    image = np.full((32, 32, 2), np.nan, np.float32)
    image[4:8, 4:8, 0] = np.linspace(1, 2, 16).reshape(4, 4)
    _, kwargs, _ = slide_layer(fluorescence(image, channels=("some", "none")))
    some, none = kwargs["contrast_limits"]
    assert 1 <= some[0] < some[1] <= 2
    assert np.isfinite(none).all()
    assert none[0] < none[1]


def test_one_grey_channel_is_one_plain_layer():
    image = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96)
    levels, kwargs, _ = slide_layer(slide_from_arrays([image], name="grey"))
    assert [level.ndim for level in levels] == [2]
    assert "channel_axis" not in kwargs
    assert kwargs["rgb"] is False
    assert kwargs["name"] == "grey"
    low, high = kwargs["contrast_limits"]
    assert 0 <= low < high <= image.max()
    assert np.array_equal(np.asarray(levels[0]), image)
