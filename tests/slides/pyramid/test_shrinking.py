"""JPEG decoded at a fraction of its size: in place, close to area means, bounded."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from skimage.data import immunohistochemistry

from napari_histodistill.errors import SlideError
from napari_histodistill.geometry import Region
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.codecs.jpeg import JpegTiles
from napari_histodistill.slides.pyramid.levels import Rect
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.slides.pyramid.shrinking import read_shrunk, shrinks_of
from napari_histodistill.slides.tiff.source import TiffSource
from tests.slides.factory import picture, write_tiff
from tests.slides.pyramid.test_damage import spoil


def write_jpeg(path, image, *, subsampling=(2, 2), ratios=(1,), **options):
    return write_tiff(
        path,
        image=image,
        ratios=ratios,
        tile=(128, 128),
        compression="jpeg",
        compressionargs={"level": 85},
        subsampling=subsampling,
        **options,
    )


def tissue(side=1024):
    """Return real stained tissue, ``(side, side, 3)``."""
    image = immunohistochemistry()
    return np.ascontiguousarray(np.tile(image, (2, 2, 1))[:side, :side])


def means(pixels, step):
    height, width = (n // step * step for n in pixels.shape[:2])
    parts = pixels[:height, :width].astype(float)
    return parts.reshape(height // step, step, width // step, step, 3).mean((1, 3))


@pytest.mark.parametrize(
    ("subsampling", "shrink"),
    [(s, k) for s in ((1, 1), (2, 2)) for k in (2, 4, 8)] + [((2, 1), 2)],
)
def test_shrunk_pixels_are_close_to_area_means(tmp_path, shrink, subsampling):
    path = write_jpeg(tmp_path / "s.tif", tissue(), subsampling=subsampling).path
    with open_slide(path) as slide:
        even = subsampling != (2, 1)
        assert shrinks_of(slide.source, 0) == ((2, 4, 8) if even else (2,))
        exact = means(slide.read_pixels(0, 0, 0, 1024, 1024), shrink)
        size = 1024 // shrink
        shrunk = read_shrunk(slide.source, 0, shrink, Rect(0, 0, size, size))
        difference = np.abs(shrunk - exact)
        assert difference.mean() < (0.6 if even else 0.9)
        assert np.percentile(difference, 99) < (4 if even else 6)
        assert np.abs((shrunk - exact).mean((0, 1))).max() < 0.25
        part = read_shrunk(slide.source, 0, shrink, Rect(20, 30, 50, 60))
        np.testing.assert_array_equal(part, shrunk[20:70, 30:90])


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_shrunk_pixels_lie_where_they_should(tmp_path, shrink):
    """Centre of mass of soft spots, to a tenth of a level-0 pixel."""
    rng = np.random.default_rng(1)
    centres = rng.uniform(60, 452, (1, 2))
    y, x = np.mgrid[0:512, 0:512] + 0.5
    spot = np.exp(-((y - centres[0, 0]) ** 2 + (x - centres[0, 1]) ** 2) / (2 * 24**2))
    image = np.repeat(np.rint(235 - 200 * spot).astype(np.uint8)[..., None], 3, axis=2)
    path = write_jpeg(tmp_path / "s.tif", image).path
    with open_slide(path) as slide:
        size = 512 // shrink
        shrunk = read_shrunk(slide.source, 0, shrink, Rect(0, 0, size, size))
    weight = np.clip(225 - shrunk[..., 1].astype(float), 0, None)
    at = (np.arange(size) + 0.5) * shrink
    found = [
        (weight.sum(1) * at).sum() / weight.sum(),
        (weight.sum(0) * at).sum() / weight.sum(),
    ]
    np.testing.assert_allclose(found, centres[0], atol=0.1)


@pytest.mark.parametrize("wanted_px", [256, 200, 100])
def test_resampling_hardly_differs_from_decoding_everything(
    tmp_path, monkeypatch, wanted_px
):
    """Over odd sizes, at fractions of a pixel, into the mirrored border."""
    path = write_jpeg(tmp_path / "s.tif", tissue()[:1001, :1013]).path
    regions = [
        Region(y=-40.3, x=-17.9, height=900, width=900),
        Region(y=51.7, x=77.2, height=900, width=900),
        Region(y=200, x=222.5, height=900, width=900),
    ]
    with open_slide(path) as slide:
        calls = []
        original = TiffSource.read_shrunk

        def counted(self, *where):
            calls.append(where)
            return original(self, *where)

        monkeypatch.setattr(TiffSource, "read_shrunk", counted)
        # Without the generated levels, which would be taken instead.
        slide.scales = slide.scales[:1]
        size = {"height": wanted_px, "width": wanted_px}
        short = [read_resampled(slide, r, **size).astype(int) for r in regions]
        assert bool(calls) == (900 / wanted_px * 1.02 >= 4)
        monkeypatch.setattr(TiffSource, "shrinks", lambda self, level: ())
        whole = [read_resampled(slide, r, **size).astype(int) for r in regions]
    for a, b in zip(short, whole, strict=True):
        assert np.abs(a - b).mean() < 0.7
        assert np.percentile(np.abs(a - b), 99.5) <= 5


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib", "compressionargs": None},
        {"tile": (128, 112), "shrinks": (2, 4, 8)},
        {"tile": None, "rowsperstrip": 64},
    ],
)
def test_what_cannot_be_shrunk_is_decoded_whole(tmp_path, options):
    expected = options.pop("shrinks", ())
    settings = {
        "tile": (64, 64),
        "compression": "jpeg",
        "compressionargs": {"level": 90},
    } | options
    path = write_tiff(tmp_path / "s.tif", image=picture(300, 400), **settings).path
    with open_slide(path) as slide:
        assert shrinks_of(slide.source, 0) == expected


def test_damage_is_found_while_shrinking_too(tmp_path):
    path = write_jpeg(tmp_path / "s.tif", tissue()).path
    spoil(path, 0, 9)
    with (
        open_slide(path) as slide,
        pytest.raises(SlideError, match="row 1, column 1 is damaged"),
    ):
        read_shrunk(slide.source, 0, 2, Rect(0, 0, 128, 128))


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr", "minisblack"])
def test_tiles_decode_as_imagecodecs_decodes_them(tmp_path, photometric):
    image = picture(300, 400)
    path = tmp_path / "s.tif"
    stored_as_rgb = photometric == "rgb"
    image = image[..., 0] if photometric == "minisblack" else image
    options = {"tile": (128, 128), "photometric": photometric, "compression": "jpeg"}
    if stored_as_rgb:
        # As Aperio does: red, green and blue as they are, and only the TIFF says so.
        options["compressionargs"] = {"outcolorspace": "rgb"}
    tifffile.imwrite(path, image, metadata=None, **options)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tif:
        theirs = tif.pages[0].asarray().reshape(300, 400, -1)
        np.testing.assert_array_equal(slide.levels[0].compute(), theirs)


def test_tables_shared_by_all_tiles(tmp_path):
    """Shortened tiles, whose tables stand once in the TIFF."""
    tile = picture(64, 64)
    whole = imagecodecs.jpeg_encode(tile, level=90)
    scan = whole.index(b"\xff\xc0")
    tables = whole[:scan] + b"\xff\xd9"
    short = b"\xff\xd8" + whole[scan:]

    class Page:
        is_tiled, compression, dtype, bitspersample = True, 7, np.uint8, 8
        planarconfig, extrasamples, samplesperpixel = 1, (), 3
        photometric, jpegtables, tilelength, tilewidth, is_jfif = (
            6,
            tables,
            64,
            64,
            True,
        )

    tiles = JpegTiles.of_page(Page, short)
    out = np.empty((64, 64, 3), np.uint8)
    np.testing.assert_array_equal(
        tiles.decode(short, out), simplejpeg.decode_jpeg(whole)
    )


def test_padding_behind_the_picture_is_no_damage():
    whole = imagecodecs.jpeg_encode(picture(64, 64), level=90)
    tiles = JpegTiles(height=64, width=64, samples=3, prefix=b"\xff\xd8")
    out = np.empty((64, 64, 3), np.uint8)
    padded = whole[:-2] + bytes(5) + whole[-2:]
    expected = simplejpeg.decode_jpeg(whole)
    np.testing.assert_array_equal(tiles.decode(padded, out), expected)
    with pytest.raises(ValueError, match="extraneous"):
        tiles.decode(whole[:-2] + bytes(500) + whole[-2:], out)
    with pytest.raises(ValueError, match="64 × 64 px"):
        tiles.decode(whole, np.empty((64, 128, 3), np.uint8))
