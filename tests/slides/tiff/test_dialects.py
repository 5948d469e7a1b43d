"""TIFF in the variants that scanners and programs write."""

from __future__ import annotations

import re

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import SlideError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.slides import open_slide
from tests.slides.factory import APERIO, at_size, picture, write_tiff


def whole(slide, level=0):
    info = slide.level_infos[level]
    return slide.read_pixels(level, 0, 0, info.height, info.width)


LOSSLESS = {
    "deflate tiles": {},
    "lzw": {"compression": "lzw", "predictor": True},
    "zstd": {"compression": "zstd"},
    "uncompressed tiles": {"compression": None},
    "strips": {"tile": None, "rowsperstrip": 17},
    "one raw strip": {"tile": None, "compression": None, "rowsperstrip": 301},
    "odd tiles": {"tile": (48, 112)},
    "one big tile": {"tile": (512, 512)},
    "planar tiles": {"planarconfig": "separate"},
    "planar strips": {"planarconfig": "separate", "tile": None, "rowsperstrip": 32},
    "bigtiff": {"bigtiff": True},
    "sub-IFDs": {"subifds": True},
    "2.5 times": {"ratios": (1, 2.5, 6.25)},
    "4 times": {"ratios": (1, 4)},
}


@pytest.mark.parametrize("options", LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_variants_give_their_pixels_back(tmp_path, options):
    image = picture(301, 457)
    planar = options.get("planarconfig") == "separate"
    if planar:  # tifffile needs the planes first
        levels = [image, at_size(image, 150, 228)]
        path = tmp_path / "planar.tif"
        with tifffile.TiffWriter(path) as tif:
            for level in levels:
                tif.write(
                    np.moveaxis(level, 2, 0).copy(),
                    photometric="rgb",
                    metadata=None,
                    **({"tile": (64, 64), "compression": "zlib"} | options),
                )
    else:
        made = write_tiff(tmp_path / "slide.tif", image=image, **options)
        path, levels = made.path, made.levels
    with open_slide(path) as slide:
        assert slide.info.is_rgb
        for k, level in enumerate(levels):
            np.testing.assert_array_equal(whole(slide, k), level)
            np.testing.assert_array_equal(
                slide.read_pixels(k, 3, 5, 40, 39), level[3:43, 5:44]
            )


def test_a_long_raw_strip_is_read_in_pieces(tmp_path):
    image = picture(2000, 500)
    options = {"tile": None, "compression": None, "rowsperstrip": 2000}
    made = write_tiff(tmp_path / "raw.tif", image=image, ratios=(1,), **options)
    with open_slide(made.path) as slide:
        assert slide.level_infos[0].tile_height < 2000
        np.testing.assert_array_equal(whole(slide), image)
        window = slide.read_pixels(0, 1990, 7, 10, 20)
        np.testing.assert_array_equal(window, image[1990:, 7:27])


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_equals_tifffile(tmp_path, subsampling):
    made = write_tiff(
        tmp_path / "jpeg.tif", compression="jpeg", subsampling=subsampling
    )
    with open_slide(made.path) as slide, tifffile.TiffFile(made.path) as tif:
        assert slide.info.is_rgb
        np.testing.assert_array_equal(whole(slide), tif.pages[0].asarray())
        # Chroma subsampling loses detail, so only a rough likeness to the original.
        assert np.abs(whole(slide) - made.levels[0].astype(int)).mean() < 12


@pytest.mark.parametrize("compression", ["aperio_jp2000_rgb", "aperio_jp2000_ycbc"])
def test_aperio_jpeg2000_both_kinds(tmp_path, compression):
    image = picture(128, 192)
    stored = image
    if compression.endswith("ycbc"):
        stored = imagecodecs.jpeg_decode(
            imagecodecs.jpeg_encode(image, level=100, subsampling="444"),
            outcolorspace="ycbcr",
        )
    encoded = [
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(stored[y : y + 64, x : x + 64]),
            codecformat="j2k",
            mct=False,
            reversible=True,
        )
        for y in range(0, 128, 64)
        for x in range(0, 192, 64)
    ]
    path = tmp_path / "jp2k.svs"
    tifffile.imwrite(
        path,
        iter(encoded),
        shape=image.shape,
        dtype=np.uint8,
        photometric="rgb",
        tile=(64, 64),
        compression=compression,
        description=APERIO.format(w=192, h=128) + "|MPP = 0.5",
        metadata=None,
    )
    with open_slide(path) as slide:
        assert slide.mpp.mean == 0.5
        # JPEG at quality 100 and back: rounding of two colour conversions.
        assert np.abs(whole(slide).astype(int) - image).max() <= 4


def test_palette_becomes_colour(tmp_path):
    index = (np.arange(100 * 130).reshape(100, 130) % 7).astype(np.uint8)
    table = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, index, photometric="palette", colormap=table * 257)
    with open_slide(path) as slide:
        assert slide.info.is_rgb
        np.testing.assert_array_equal(whole(slide), table.T.astype(np.uint8)[index])


def test_alpha_is_composited_over_white(tmp_path):
    image = picture(70, 90, 4)
    path = tmp_path / "rgba.tif"
    tifffile.imwrite(path, image, photometric="rgb", extrasamples=["unassalpha"])
    with open_slide(path) as slide:
        assert slide.info.is_rgb
        alpha = image[..., 3:] / 255
        expected = image[..., :3] * alpha + 255 * (1 - alpha)
        assert np.abs(whole(slide) - expected).max() <= 0.51


def test_a_fourth_sample_of_unknown_meaning_is_left_out(tmp_path):
    image = picture(70, 90, 4)
    path = tmp_path / "rgbx.tif"
    tifffile.imwrite(path, image, photometric="rgb", extrasamples=["unspecified"])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), image[..., :3])
        assert "1 extra channel(s) beside red, green, blue left out" in slide.info.notes


def test_white_is_zero_is_turned_round(tmp_path):
    image = picture(40, 50, 1)[..., 0]
    path = tmp_path / "negative.tif"
    tifffile.imwrite(path, image, photometric="miniswhite")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide)[..., 0], 255 - image)


def test_one_bit_images_are_black_and_white(tmp_path):
    image = picture(40, 48, 1)[..., 0] > 128
    path = tmp_path / "bits.tif"
    tifffile.imwrite(path, image, photometric="minisblack", rowsperstrip=8)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide)[..., 0], image * 255)


def test_cmyk_is_refused(tmp_path):
    path = tmp_path / "print.tif"
    tifffile.imwrite(path, picture(40, 50, 4), photometric="separated")
    with pytest.raises(SlideError, match=r"print\.tif: colours of CMYK .* to RGB"):
        open_slide(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_shown_upright(tmp_path, orientation):
    upright = picture(90, 130)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright[:, ::-1].swapaxes(0, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: upright[::-1].swapaxes(0, 1),
    }[orientation]
    made = write_tiff(
        tmp_path / "turned.tif",
        image=np.ascontiguousarray(stored),
        ratios=(1,),
        extratags=[(274, 3, 1, orientation, True)],
        resolution=(40000, 20000),
        resolutionunit="centimeter",
    )
    with open_slide(made.path) as slide:
        assert slide.shape == (90, 130)
        np.testing.assert_array_equal(whole(slide), upright)
        window = slide.read_pixels(0, 11, 70, 30, 50)
        np.testing.assert_array_equal(window, upright[11:41, 70:120])
        across = (0.5, 0.25) if orientation < 5 else (0.25, 0.5)
        assert (slide.mpp.y, slide.mpp.x) == across


def test_pages_out_of_order_are_sorted_finest_first(tmp_path):
    image = picture(400, 600)
    path = tmp_path / "unordered.tif"
    with tifffile.TiffWriter(path) as tif:
        for h, w in ((100, 150), (400, 600), (160, 240)):
            tif.write(at_size(image, h, w), photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        sizes = [(i.height, i.width) for i in slide.level_infos]
        assert sizes == [(400, 600), (160, 240), (100, 150)]
        assert slide.downsamples == pytest.approx((1, 2.5, 4))


def test_a_page_of_other_proportions_is_no_level(tmp_path):
    path = tmp_path / "label.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(picture(400, 600), photometric="rgb", metadata=None)
        tif.write(picture(200, 200), photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        assert len(slide.level_infos) == 1
        assert slide.associated_images == ("page 1",)
        assert slide.read_associated("page 1").shape == (200, 200, 3)


def test_ome_channels_and_sub_resolutions(tmp_path):
    stack = np.moveaxis(picture(200, 300, 3), 2, 0).copy()
    path = tmp_path / "multiplex.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(
            stack,
            photometric="minisblack",
            subifds=1,
            tile=(64, 64),
            metadata={
                "axes": "CYX",
                "Channel": {"Name": ["DAPI", "CD3", "CD8"]},
                "PhysicalSizeX": 325,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 0.33,
                "PhysicalSizeYUnit": "µm",
            },
        )
        half = np.ascontiguousarray(stack[:, ::2, ::2])
        tif.write(half, photometric="minisblack", subfiletype=1, tile=(64, 64))
    with open_slide(path) as slide:
        assert slide.info.vendor == "OME-TIFF"
        assert slide.info.channels == ("DAPI", "CD3", "CD8")
        assert (slide.mpp.y, slide.mpp.x) == pytest.approx((0.33, 0.325))
        assert len(slide.level_infos) == 2
        np.testing.assert_array_equal(np.moveaxis(whole(slide), 2, 0), stack)
        np.testing.assert_array_equal(np.moveaxis(whole(slide, 1), 2, 0), half)


def test_ome_focal_planes_show_the_first(tmp_path):
    stack = np.stack([np.moveaxis(picture(64, 80, 2, seed), 2, 0) for seed in range(3)])
    path = tmp_path / "focus.ome.tif"
    tifffile.imwrite(path, stack, ome=True, metadata={"axes": "ZCYX"})
    with open_slide(path) as slide:
        assert "3 focal planes: the first is shown" in slide.info.notes
        np.testing.assert_array_equal(np.moveaxis(whole(slide), 2, 0), stack[0])


def test_left_out_tiles_are_background(tmp_path):
    tiles = [imagecodecs.zlib_encode(np.full((64, 64, 3), 9, np.uint8)), b""]
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=(64, 128, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(64, 64),
        compression="zlib",
    )
    with open_slide(path) as slide:
        assert (whole(slide)[:, :64] == 9).all()
        assert (whole(slide)[:, 64:] == 255).all()


MPP = {
    "dot": ("|MPP = 0.2525", 0.2525, ""),
    "comma": ("|MPP = 0,2525", 0.2525, ""),
    "missing": ("", None, r"does not state µm per pixel \(objective 20×\)"),
    "zero": ("|MPP = 0", None, "0 × 0 µm per pixel .* is not a size"),
    "nonsense": ("|MPP = n/a", None, "MPP 'n/a' is not a number"),
    "absurd": ("|MPP = 250", 250, "cannot be a microscope's"),
}


@pytest.mark.parametrize(("text", "mpp", "note"), MPP.values(), ids=MPP)
def test_aperio_mpp(tmp_path, text, mpp, note):
    description = APERIO.format(w=457, h=301) + text
    made = write_tiff(tmp_path / "a.svs", ratios=(1,), description=description)
    with open_slide(made.path) as slide:
        assert (slide.mpp and slide.mpp.mean) == mpp
        assert slide.mpp is None or slide.mpp.source == "ImageDescription (MPP)"
        # Of a number that a person has put right, nothing is said any more.
        right = slide.with_mpp(Mpp.given(0.25))
        assert "cannot be a microscope's" not in " | ".join(right.info.notes)
        assert re.search(note, " | ".join(slide.info.notes))


RESOLUTION = {
    "40×": ((40000, 40000), "centimeter", 0.25),
    "inches": ((50800, 50800), "inch", 0.5),
    "72 dpi": ((72, 72), "inch", None),
    "300 dpi": ((300, 300), "inch", None),
    "72 dpi in cm": ((28.3464567, 28.3464567), "centimeter", None),
    "no unit": ((40000, 40000), "none", None),
    "kept absurd": ((100, 100), "centimeter", 100),
}


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"), RESOLUTION.values(), ids=RESOLUTION
)
def test_resolution_tags(tmp_path, resolution, unit, mpp):
    made = write_tiff(
        tmp_path / "r.tif", ratios=(1,), resolution=resolution, resolutionunit=unit
    )
    with open_slide(made.path) as slide:
        if mpp is None:
            assert slide.mpp is None
        else:
            assert slide.mpp.mean == pytest.approx(mpp, rel=1e-6)
            assert slide.mpp.is_plausible == (mpp < 20)


def test_reading_past_the_border_gives_background(tmp_path):
    made = write_tiff(tmp_path / "border.tif")
    image = made.levels[0]
    with open_slide(made.path) as slide:
        corner = slide.read(Region(y=-10, x=-20, height=30, width=50))
        assert (corner[:10] == 255).all()
        assert (corner[:, :20] == 255).all()
        np.testing.assert_array_equal(corner[10:, 20:], image[:20, :30])
        far = slide.read(Region(y=290, x=440, height=20, width=30))
        np.testing.assert_array_equal(far[:11, :17], image[290:, 440:])
        assert (far[11:] == 255).all()
        assert (slide.read(Region(y=-99, x=0, height=9, width=9)) == 255).all()
        # Level 1: the place is in level-0 pixels, the size in pixels of the level.
        coarse = slide.read(Region(y=100, x=100, height=20, width=20), level=1)
        np.testing.assert_array_equal(coarse, made.levels[1][50:70, 50:70])


def qptiff_page(kind: str, name: str = "") -> str:
    inner = f"<ImageType>{kind}</ImageType>" + (f"<Name>{name}</Name>" if name else "")
    root = "PerkinElmer-QPI-ImageDescription"
    return f'<?xml version="1.0" encoding="utf-8"?>\r\n<{root}>{inner}</{root}>'


def write_qptiff(path, pages):
    with tifffile.TiffWriter(path) as tif:
        for image, kind, name in pages:
            tif.write(
                image,
                photometric="rgb" if image.ndim == 3 else "minisblack",
                description=qptiff_page(kind, name),
                software="PerkinElmer-QPI",
                resolution=(20000, 20000),
                resolutionunit="centimeter",
                metadata=None,
            )


def test_qptiff_channels_at_every_level(tmp_path):
    image = picture(200, 240, 2)
    half = at_size(image, 100, 120)
    names = ("DAPI", "Opal 520")
    thumbnail = (picture(50, 60), "Thumbnail", "")
    path = tmp_path / "multiplex.qptiff"
    write_qptiff(
        path,
        [
            *((image[..., k], "FullResolution", n) for k, n in enumerate(names)),
            thumbnail,
            *((half[..., k], "ReducedResolution", n) for k, n in enumerate(names)),
        ],
    )
    with open_slide(path) as slide:
        assert slide.info.vendor == "PerkinElmer QPTIFF"
        assert slide.info.channels == names
        assert slide.mpp.mean == pytest.approx(0.5)
        assert slide.associated_images == ("thumbnail",)
        np.testing.assert_array_equal(whole(slide), image)
        np.testing.assert_array_equal(whole(slide, 1), half)


def test_qptiff_brightfield_is_colour(tmp_path):
    image = picture(200, 240)
    half = at_size(image, 100, 120)
    path = tmp_path / "he.qptiff"
    pages = [(image, "FullResolution", ""), (half, "ReducedResolution", "")]
    write_qptiff(path, pages)
    with open_slide(path) as slide:
        assert slide.info.is_rgb
        np.testing.assert_array_equal(whole(slide), image)
        np.testing.assert_array_equal(whole(slide, 1), half)


def test_a_broken_label_does_not_spoil_the_slide(tmp_path):
    image = picture(128, 128)
    path = tmp_path / "label.svs"
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "metadata": None, "compression": "zlib"}
        text = APERIO.format(w=128, h=128)
        tif.write(image, tile=(64, 64), description=text, **options)
        tif.write(
            picture(30, 40), rowsperstrip=30, description="x\nlabel 40x30", **options
        )
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[1].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    with open_slide(path) as slide:
        assert slide.associated_images == ("label",)
        np.testing.assert_array_equal(whole(slide), image)
        with pytest.raises(SlideError, match="row 0, column 0 is damaged"):
            slide.read_associated("label")


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_refused_or_read_but_never_crashes(tmp_path, seed):
    made = write_tiff(tmp_path / "f.tif", shape=(70, 90), ratios=(1,), tile=(32, 32))
    rng = np.random.default_rng(seed)
    data = bytearray(made.path.read_bytes())
    with tifffile.TiffFile(made.path) as tif:
        table = tif.pages[0].offset
    for at in rng.integers(table, min(len(data), table + 200), 3):
        data[at] = rng.integers(0, 256)
    made.path.write_bytes(bytes(data))
    sentence = "f.tif."
    try:
        with open_slide(made.path) as slide:
            assert whole(slide).ndim == 3
    except SlideError as error:
        sentence = str(error)
    assert re.search(r"f\.tif.*\.$", sentence)
    assert "\n" not in sentence
