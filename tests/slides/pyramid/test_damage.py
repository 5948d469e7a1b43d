"""A corrupt tile in a good slide: striped, counted, never black, never computed on."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.damage import BLUE, YELLOW, read_marked
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo
from napari_histodistill.slides.tiff.orientation import OrientedSource
from napari_histodistill.slides.tissue.tissue import find_tissue
from tests.slides.factory import picture, write_tiff


def spoil(path, page, *tiles, how="noise"):
    """Damage compressed tiles of a page in the middle of their data."""
    with tifffile.TiffFile(path) as tif:
        offsets, counts = tif.pages[page].dataoffsets, tif.pages[page].databytecounts
        places = [(offsets[k], counts[k]) for k in tiles]
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    for offset, count in places:
        start, stop = offset + count // 3, offset + count - 2
        noise = rng.integers(0, 255, stop - start, np.uint8).tobytes()
        data[start:stop] = noise if how == "noise" else bytes(stop - start)
    path.write_bytes(bytes(data))


def is_striped(pixels):
    """Whether all pixels are of the pattern, both colours of it."""
    yellow, blue = ((pixels == colour).all(-1) for colour in (YELLOW, BLUE))
    return bool((yellow | blue).all() and yellow.any() and blue.any())


def damaged_slide(tmp_path, *tiles, image=None, compression="jpeg", **options):
    image = picture(900, 1300) if image is None else image
    made = write_tiff(
        tmp_path / "slide.tif",
        image=image,
        ratios=(1,),
        tile=(256, 256),
        compression=compression,
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
        **options,
    )
    with tifffile.TiffFile(made.path) as tif:
        good = tif.pages[0].asarray()
    spoil(made.path, 0, *tiles)
    return made.path, good


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
def test_what_is_shown_is_striped_and_counted(tmp_path, compression):
    # Tile 8 of rows of six: row 1, column 2.
    path, good = damaged_slide(tmp_path, 8, compression=compression)
    with open_slide(path) as slide:
        shown = slide.levels[0].compute()
        assert is_striped(shown[256:512, 512:768])
        shown[256:512, 512:768] = good[256:512, 512:768]
        np.testing.assert_array_equal(shown, good)
        assert slide.unreadable == ((0, 256, 512),)


def test_what_is_computed_with_is_refused(tmp_path):
    path, good = damaged_slide(tmp_path, 8)
    with open_slide(path) as slide:
        with pytest.raises(SlideError, match="row 1, column 2 is damaged"):
            slide.read(Region(y=500, x=700, height=50, width=50))
        beside = slide.read(Region(y=512, x=700, height=50, width=50))
        np.testing.assert_array_equal(beside, good[512:562, 700:750])


@pytest.mark.parametrize("how", ["noise", "zeros"])
def test_no_damage_within_a_jpeg_goes_unnoticed(tmp_path, how):
    """Headers whole, end marker there: libjpeg would fill in grey and say nothing."""
    path, _ = damaged_slide(tmp_path)
    spoil(path, 0, 8, how=how)
    with open_slide(path) as slide, pytest.raises(SlideError, match="row 1, column 2"):
        slide.read_pixels(0, 256, 512, 256, 256)


def test_a_slide_whose_first_tile_is_broken_opens(tmp_path):
    path, good = damaged_slide(tmp_path, 0)
    with open_slide(path) as slide:
        marked = slide.read_marked(0, 200, 200, 100, 100)
        assert marked.bad.sum() == 56 * 56
        assert "row 0, column 0" in marked.problem
        np.testing.assert_array_equal(
            marked.pixels[~marked.bad], good[200:300, 200:300][~marked.bad]
        )


def test_a_slide_of_broken_tiles_only_is_refused(tmp_path):
    path, _ = damaged_slide(tmp_path, *range(24))
    with pytest.raises(SlideError, match="row 0, column 0 is damaged"):
        open_slide(path)


def test_a_truncated_slide_shows_what_there_is(tmp_path):
    path, good = damaged_slide(tmp_path, compression="zlib")
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        # tifffile writes the table of pages first and the tiles behind it.
        cut = tif.pages[0].dataoffsets[13] + 10
    path.write_bytes(data[:cut])
    with open_slide(path) as slide:
        shown = slide.levels[0].compute()
        np.testing.assert_array_equal(shown[:512], good[:512])
        np.testing.assert_array_equal(shown[512:768, :256], good[512:768, :256])
        assert is_striped(shown[512:, 256:])
        assert len(slide.unreadable) == 24 - 13
        with pytest.raises(SlideError, match="truncated"):
            slide.read_pixels(0, 600, 600, 10, 10)


def test_overviews_are_striped_where_their_pixels_come_from_damage(tmp_path):
    path, _ = damaged_slide(tmp_path, 8)
    with open_slide(path) as slide:
        half = slide.levels[1].compute()
        assert is_striped(half[128:256, 256:384])
        around = np.ones(half.shape[:2], bool)
        around[127:257, 255:385] = False
        assert not ((half[around] == YELLOW).all(-1)).any()
        with pytest.raises(SlideError, match="row 1, column 2"):
            slide.read_pixels(1, 130, 260, 10, 10)
        slide.read_pixels(1, 0, 0, 120, 240)
        assert slide.unreadable == ((0, 256, 512),)


def test_tissue_is_found_beside_damage_which_is_not_left_out(tmp_path):
    rng = np.random.default_rng(0)
    image = np.full((900, 1300, 3), 244, np.uint8)
    grains = rng.integers((150, 70, 140), (200, 120, 190), (150, 125, 3))
    image[300:900, 0:500] = grains.repeat(4, axis=0).repeat(4, axis=1)
    path, _ = damaged_slide(tmp_path, 5, image=image)
    with open_slide(path) as slide:
        tissue = find_tissue(slide)
        places = np.array([(600, 250), (600, 1000), (100, 1290), (100, 1000)], float)
        assert tissue.at(places).tolist() == [True, False, True, False]


def test_turned_slides_have_their_damage_turned(tmp_path):
    path, _ = damaged_slide(tmp_path, 8)
    with open_slide(path) as slide:
        turned = OrientedSource(slide.source, 6)
        shown = Slide(turned, SlideInfo(name="turned")).read_marked(0, 0, 0, 1300, 900)
        # Transposed and mirrored: (y, x) comes from (h - 1 - x, y).
        assert shown.bad[512:768, 900 - 512 : 900 - 256].all()
        assert shown.bad.sum() == 256 * 256


class Broken:
    """A source of another backend, which fails as a whole."""

    levels = (LevelInfo(height=300, width=300, tile_height=100, tile_width=100),)

    def __init__(self, dtype, channels):
        self.pixels = np.ones((300, 300, channels), dtype)

    def read_level(self, level, rect):
        if rect.y < 200 and rect.bottom > 100 and rect.x < 200 and rect.right > 100:
            msg = "the middle is gone"
            raise SlideError(msg)
        return self.pixels[rect.y : rect.bottom, rect.x : rect.right]

    def close(self):
        pass


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "bool"])
def test_any_backend_and_type_of_pixel(dtype):
    source = Broken(dtype, 2)
    slide = Slide(source, SlideInfo(name="x", channels=("a", "b")))
    marked = slide.read_marked(0, 50, 50, 200, 200)
    expected = np.zeros((200, 200), bool)
    expected[50:150, 50:150] = True
    np.testing.assert_array_equal(marked.bad, expected)
    assert marked.pixels.dtype == dtype
    assert len(np.unique(marked.pixels[expected])) == 2
    assert (marked.pixels[~expected] == 1).all()
    assert marked.problem == "the middle is gone"


def test_a_closed_slide_is_not_taken_for_a_damaged_one(tmp_path):
    path, _ = damaged_slide(tmp_path)
    slide = open_slide(path)
    levels = slide.levels
    slide.close()
    with pytest.raises(ClosedSlideError, match="was closed"):
        levels[0][:10, :10].compute()
    with pytest.raises(ClosedSlideError, match="was closed"):
        read_marked(slide.source, 0, Rect(0, 0, 10, 10), like=np.zeros((1, 1, 3), "u1"))
    assert slide.unreadable == ()


def test_resampling_near_damage_is_refused_and_beside_it_is_not(tmp_path):
    path, _ = damaged_slide(tmp_path, 8)
    with open_slide(path) as slide:
        slide = slide.with_mpp(Mpp.given(0.25))
        over = Region(y=200, x=500, height=200, width=200)
        with pytest.raises(SlideError, match="row 1, column 2"):
            read_resampled(slide, over, height=50, width=50)
        beside = Region(y=600, x=500, height=200, width=200)
        assert read_resampled(slide, beside, height=50, width=50).shape == (50, 50, 3)
