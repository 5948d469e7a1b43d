"""Channels of OME-Zarr: colour where the file says so, else a question or stains."""

from __future__ import annotations

import numpy as np
import pytest
from zarr.storage import LocalStore

from napari_histodistill.errors import InputError
from napari_histodistill.maps import plan_grid
from napari_histodistill.slides import open_slide
from tests.fakes import colour_student
from tests.slides.factory import picture
from tests.slides.formats.test_omezarr import write

IMAGE = picture(120, 150)
PLANES = np.moveaxis(IMAGE, 2, 0)


def channels(*labels, window=None, colours=()):
    found = [{"label": label} for label in labels]
    for entry, colour in zip(found, colours, strict=False):
        entry["color"] = colour
    for entry in found if window else ():
        entry["window"] = {"min": 0, "max": 65535} | window
    return {"channels": found}


def opened(tmp_path, planes, omero=None, **options):
    write(LocalStore(tmp_path / "s.zarr"), [planes], omero=omero)
    return open_slide(tmp_path / "s.zarr", **options)


@pytest.mark.parametrize("end", [4095, 1000])
def test_16_bit_colour_is_scaled_by_the_stated_window(tmp_path, end):
    planes = PLANES.astype(np.uint16) * 16
    omero = channels("R", "G", "B", window={"start": 0, "end": end})
    with opened(tmp_path, planes, omero) as slide:
        assert slide.info.is_rgb
        assert slide.dtype == np.uint8
        expected = np.rint(255 * (IMAGE * 16.0 / end).clip(0, 1)).astype(np.uint8)
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), expected)
        assert f"0 to {end} becomes 0 to 255" in slide.info.notes[0]
        assert plan_grid(slide, colour_student()).shape


@pytest.mark.parametrize("window", [None, {"start": 9, "end": 9}, {"start": "x"}])
@pytest.mark.parametrize(("factor", "top"), [(257, 65535), (16, 4095), (1, 255)])
def test_without_a_usable_window_the_bits_that_are_filled_decide(
    tmp_path, window, factor, top
):
    planes = PLANES.astype(np.uint16) * factor
    expected = np.rint(255 * (IMAGE * float(factor) / top)).astype(np.uint8)
    with opened(tmp_path, planes, channels("r", "g", "b", window=window)) as slide:
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), expected)
        assert f"0 to {top} becomes 0 to 255" in slide.info.notes[0]
        assert slide.info.notes[0].endswith("the file states no window")


def test_a_window_the_wrong_way_round_is_turned_and_said(tmp_path):
    planes = PLANES.astype(np.uint16) * 16
    omero = channels("R", "G", "B", window={"start": 4080, "end": 0})
    with opened(tmp_path, planes, omero) as slide:
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)
        assert slide.info.notes[0].endswith("states its window the wrong way round")


@pytest.mark.parametrize("factor", [1, 255])
def test_an_opacity_of_zero_everywhere_is_ignored(tmp_path, factor):
    image = PLANES if factor == 1 else PLANES.astype(np.uint16) * 257
    planes = np.concatenate([np.zeros_like(image[:1]), image])
    with opened(tmp_path, planes, channels("Alpha", "R", "G", "B")) as slide:
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)
        assert "its opacity is zero everywhere and is ignored" in slide.info.notes
        assert "transparent parts are shown white" not in slide.info.notes


def test_names_may_say_channel_beside_the_colour(tmp_path):
    omero = channels("Blue channel", "Green channel", "Red channel")
    with opened(tmp_path, PLANES[::-1].copy(), omero) as slide:
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)


@pytest.mark.parametrize("factor", [1, 255])
def test_float_colour_is_from_0_to_1_or_to_255(tmp_path, factor):
    planes = (PLANES / 255 * factor).astype(np.float32)
    with opened(tmp_path, planes, channels("Red", "Green", "Blue")) as slide:
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)


def test_8_bit_colours_stay_whatever_window_they_are_viewed_through(tmp_path):
    omero = channels("R", "G", "B", window={"start": 30, "end": 200})
    with opened(tmp_path, PLANES, omero) as slide:
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)


def test_named_colours_in_another_order_are_put_in_order(tmp_path):
    with opened(tmp_path, PLANES[::-1].copy(), channels("B", "G", "R")) as slide:
        assert slide.info.is_rgb
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)


def test_four_channels_are_colour_only_where_the_file_says_so(tmp_path):
    opaque = np.full((1, 120, 150), 255, np.uint8)
    planes = np.concatenate([PLANES, opaque])
    with opened(tmp_path, planes, channels("R", "G", "B", "Alpha")) as slide:
        assert slide.info.is_rgb
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)


@pytest.mark.parametrize("labels", [(), (0, 1, 2, 3), ("Channel 0", "", "ch 2", "3")])
def test_four_unnamed_channels_are_no_he(tmp_path, labels):
    planes = np.concatenate([PLANES, 255 - PLANES[1:2]])
    with opened(tmp_path, planes, channels(*labels) if labels else None) as slide:
        assert not slide.info.is_rgb
        assert not slide.info.needs_rgb
        assert slide.info.channels == tuple(f"channel {k}" for k in (1, 2, 3, 4))
        assert any("R, G, B and A" in note for note in slide.info.notes)
        with pytest.raises(InputError, match="8-bit colour images of H&E"):
            plan_grid(slide, colour_student())
    with pytest.raises(InputError, match="only three channels without names"):
        open_slide(tmp_path / "s.zarr", rgb=True)


@pytest.mark.parametrize("labels", [(), (0, 1, 2), ("Channel 0", "Channel 1", "")])
def test_three_unnamed_channels_are_asked_about(tmp_path, labels):
    omero = channels(*labels) if labels else None
    with opened(tmp_path, PLANES, omero) as slide:
        assert slide.info.needs_rgb
        assert not slide.info.is_rgb
        with pytest.raises(InputError, match=r"say so with --rgb or in the panel"):
            plan_grid(slide, colour_student())
        digest = slide.info.digest
    with open_slide(tmp_path / "s.zarr", rgb=True) as slide:
        assert slide.info.is_rgb
        assert not slide.info.needs_rgb
        assert slide.info.digest == digest, "the pixels are the same"
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)
        assert plan_grid(slide, colour_student()).shape


def test_three_unnamed_channels_of_16_bit_are_scaled_once_they_are_said(tmp_path):
    planes = PLANES.astype(np.uint16) * 257
    with opened(tmp_path, planes, rgb=True) as slide:
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 120, 150), IMAGE)
        marked = slide.read_marked(0, 0, 0, 120, 150)
        np.testing.assert_array_equal(marked.pixels, IMAGE)


def test_what_is_colour_already_may_be_called_so(tmp_path):
    with opened(tmp_path, PLANES, channels("R", "G", "B"), rgb=True) as slide:
        assert slide.info.is_rgb


def test_stains_stay_stains_whatever_the_user_says(tmp_path):
    omero = channels("DAPI", "CD3", "CD8")
    with pytest.raises(InputError, match=r"it has 3 \(DAPI, CD3, CD8\)"):
        opened(tmp_path, PLANES, omero, rgb=True)


def test_unnamed_channels_shown_in_red_green_blue_are_colour_with_a_note(tmp_path):
    omero = channels("", "", "", colours=("FF0000", "00FF00", "0000FF"))
    with opened(tmp_path, PLANES, omero) as slide:
        assert slide.info.is_rgb
        assert any("taken for a colour image" in note for note in slide.info.notes)
