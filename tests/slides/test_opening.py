"""The one door: dispatch by content, plain images, arrays, life without OpenSlide."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.geometry import Mpp, MppOrigin, Region
from napari_histodistill.slides import open_slide, slide_from_arrays
from napari_histodistill.slides.formats import czi, dicom, openslide, plain
from tests.slides.factory import picture, write_tiff


@pytest.fixture
def without_openslide(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openslide", None)  # makes the import fail


def whole(slide):
    return slide.read_pixels(0, 0, 0, *slide.shape)


def test_content_decides_not_the_name(tmp_path):
    made = write_tiff(tmp_path / "slide.png", ratios=(1,))
    with open_slide(made.path) as slide:
        assert slide.info.backend == "tiff"
    Image.fromarray(picture(50, 60)).save(tmp_path / "image.svs", format="PNG")
    with open_slide(str(tmp_path / "image.svs")) as slide:
        assert slide.info.backend == "plain image"


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "jp2"])
def test_plain_images_give_their_pixels(tmp_path, kind):
    image = picture(120, 90)
    path = tmp_path / f"image.{kind}"
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(image).save(path, **options)
    with open_slide(path) as slide:
        assert slide.info.is_rgb
        assert slide.mpp is None
        np.testing.assert_array_equal(whole(slide), image)


def test_a_photograph_is_turned_upright_and_gets_a_pyramid(tmp_path):
    image = picture(1500, 1100)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(image).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    with open_slide(tmp_path / "photo.jpg") as slide:
        assert slide.shape == (1100, 1500)
        assert [i.width for i in slide.level_infos] == [1500, 750]
        turned = np.rot90(image, -1)
        assert np.abs(whole(slide) - turned.astype(int)).mean() < 6


def test_kinds_of_plain_images(tmp_path):
    rgba = picture(40, 50, 4)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    with open_slide(tmp_path / "alpha.png") as slide:
        alpha = rgba[..., 3:] / 255
        expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
        assert slide.info.is_rgb
        assert np.abs(whole(slide) - expected).max() <= 0.51
    deep = (picture(40, 50, 1)[..., 0].astype(np.uint16)) * 200
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with open_slide(tmp_path / "deep.png") as slide:
        assert slide.info.channels == ("grey",)
        np.testing.assert_array_equal(whole(slide)[..., 0], deep)
    Image.fromarray(rgba, mode=None).convert("P").save(tmp_path / "palette.png")
    with open_slide(tmp_path / "palette.png") as slide:
        assert slide.info.is_rgb
    Image.fromarray(rgba[..., :3]).convert("CMYK").save(tmp_path / "print.jpg")
    with open_slide(tmp_path / "print.jpg") as slide:
        assert "converted from CMYK to RGB without a colour profile" in slide.info.notes


@pytest.mark.parametrize(("dpi", "mpp"), [(72, None), (300, None), (50800, 0.5)])
def test_dpi_of_plain_images(tmp_path, dpi, mpp):
    Image.fromarray(picture(40, 50)).save(tmp_path / "i.png", dpi=(dpi, dpi))
    with open_slide(tmp_path / "i.png") as slide:
        found = slide.mpp and slide.mpp.mean
        assert found == (None if mpp is None else pytest.approx(mpp, rel=1e-4))


def test_plain_images_have_a_limit(tmp_path, monkeypatch):
    Image.fromarray(picture(40, 50)).save(tmp_path / "big.png")
    monkeypatch.setattr(plain, "MAX_MEGAPIXELS", 0.001)
    with pytest.raises(SlideError, match=r"big\.png: .* too large \(50 × 40 px; the"):
        open_slide(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(SlideError, match=r"big\.png: .* too large"):
        open_slide(tmp_path / "big.png")


def test_a_damaged_plain_image_is_refused(tmp_path):
    path = tmp_path / "half.png"
    Image.fromarray(picture(100, 100)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SlideError, match=r"half\.png: the image is damaged"):
        open_slide(path)


REFUSED = {
    "notes.txt": (b"hello, world" * 20, r"notes\.txt is neither a slide nor an image"),
    "empty.svs": (b"", r"empty\.svs is named like a TIFF slide but does not start"),
    "scan.nd2": (b"\xda\xce\xbe\x0a" * 20, r"scan\.nd2 looks like a Nikon ND2 file"),
    "short.tif": (b"II*\0\x08", r"short\.tif: this TIFF is damaged or cut short"),
    "loop.tif": (
        b"II*\0\x08\0\0\0\xff\xff" + b"\x01" * 40,
        r"loop\.tif: (this TIFF is damaged|the TIFF holds no image)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_in_a_sentence(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SlideError, match=message) as caught:
        open_slide(tmp_path / name)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(SlideError, match=r"nowhere\.svs: there is no such file"):
        open_slide(tmp_path / "nowhere.svs")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SlideError, match="folder: this folder is not an OME-Zarr"):
        open_slide(tmp_path / "folder")


@pytest.mark.parametrize("name", ["slide.mrxs", "slide.vms"])
def test_formats_for_openslide_name_the_extra(tmp_path, without_openslide, name):
    (tmp_path / name).write_bytes(b"\xff\xd8 something")
    with pytest.raises(SlideError, match=rf"{name} is a .* slide, .*\[openslide\]"):
        open_slide(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "start", "extra"),
    [("s.dcm", bytes(128) + b"DICM", "dicom"), ("s.czi", b"ZISRAWFILE", "czi")],
)
def test_formats_with_two_readers_name_both_extras(
    tmp_path, without_openslide, monkeypatch, name, start, extra
):
    for module in (dicom, czi):
        monkeypatch.setattr(module, "is_installed", lambda: False)
    (tmp_path / name).write_bytes(start + bytes(200))
    with pytest.raises(SlideError, match=rf"\[{extra}\].* or .*\[openslide\]"):
        open_slide(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            {
                "extratags": [
                    (271, 2, 0, "Hamamatsu", True),
                    (65420, 4, 1, 1, True),
                ]
            },
            "a Hamamatsu NDPI slide",
        ),
        (
            {"description": '<?xml version="1.0"?><scn xmlns="x"></scn>'},
            "a Leica SCN slide",
        ),
        (
            {
                "software": "ScanOutputManager 1.1",
                "extratags": [(700, 1, 12, b"<xml><iScan/", True)],
            },
            "a Ventana BIF slide",
        ),
        (
            {"software": "Philips DP v1.0", "description": "<?xml ?>\n</DataObject>"},
            "a Philips TIFF slide",
        ),
    ],
    ids=["ndpi", "scn", "bif", "philips"],
)
def test_tiff_dialects_of_openslide(tmp_path, without_openslide, options, what):
    made = write_tiff(tmp_path / "vendor.tif", ratios=(1,), **options)
    with pytest.raises(SlideError, match=f"{what}, which is read through OpenSlide"):
        open_slide(made.path)


def test_our_formats_need_no_openslide(tmp_path, without_openslide):
    assert not openslide.is_installed()
    made = write_tiff(tmp_path / "slide.tif")
    with open_slide(made.path) as slide:
        np.testing.assert_array_equal(whole(slide), made.levels[0])


def test_the_openslide_backend_reads_levels_labels_and_after_an_error(tmp_path):
    pytest.importorskip("openslide", reason="extra [openslide]")
    made = write_tiff(
        tmp_path / "slide.tif",
        shape=(600, 900),
        ratios=(1, 2),
        resolution=(20000, 20000),
        resolutionunit="centimeter",
    )
    with openslide.open_with_openslide(made.path) as slide:
        assert slide.info.backend == "openslide"
        assert slide.mpp.mean == pytest.approx(0.5)
        for k, level in enumerate(made.levels):
            h, w = level.shape[:2]
            np.testing.assert_array_equal(slide.read_pixels(k, 0, 0, h, w), level)
    with pytest.raises(SlideError, match="was closed"):
        slide.read_pixels(0, 0, 0, 5, 5)
    # One damaged tile must not spoil the others: OpenSlide latches its first error.
    with tifffile.TiffFile(made.path) as tif:
        offset = tif.pages[0].dataoffsets[3]
    data = bytearray(made.path.read_bytes())
    data[offset : offset + 60] = b"\xff" * 60
    made.path.write_bytes(bytes(data))
    with openslide.open_with_openslide(made.path) as slide:
        with pytest.raises(SlideError, match="OpenSlide cannot read this part"):
            slide.read_pixels(0, 0, 0, 600, 900)
        good = slide.read_pixels(0, 200, 300, 100, 100)
        np.testing.assert_array_equal(good, made.levels[0][200:300, 300:400])


@pytest.mark.parametrize("mpp", [0.25, Mpp(0.2, 0.3, "a colleague")])
def test_mpp_may_be_given(tmp_path, mpp):
    made = write_tiff(tmp_path / "slide.tif", ratios=(1,))
    with open_slide(made.path, mpp=mpp) as slide:
        expected = mpp if isinstance(mpp, Mpp) else Mpp.given(mpp)
        # Who passes it answers for it, also for axes that a file would not be believed.
        assert slide.require_mpp() == replace(expected, origin=MppOrigin.USER)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf")])
def test_impossible_mpp_is_refused(tmp_path, mpp):
    made = write_tiff(tmp_path / "slide.tif", ratios=(1,))
    with pytest.raises(InputError, match="must be a positive number"):
        open_slide(made.path, mpp=mpp)


def test_arrays_of_numpy_and_dask():
    image = picture(200, 300)
    lazy = da.from_array(image, chunks=(64, 80, 3))
    for levels in (image, [image, image[::2, ::2]], [lazy, lazy[::2, ::2]]):
        with slide_from_arrays(levels, name="arrays") as slide:
            assert slide.info.is_rgb
            np.testing.assert_array_equal(whole(slide), image)
            np.testing.assert_array_equal(slide.levels[0].compute(), image)
    with pytest.raises(SlideError, match="arrays: the slide was closed"):
        whole(slide)


def test_channels_of_arrays():
    def channels(array, names=None):
        return slide_from_arrays(array, name="a", channels=names).info.channels

    assert channels(np.zeros((9, 9), np.uint8)) == ("grey",)
    assert channels(np.zeros((9, 9, 3), np.uint8)) == ("R", "G", "B")
    assert channels(np.zeros((9, 9, 4), np.uint8)) == ("R", "G", "B")
    assert channels(np.zeros((9, 9, 2), np.uint8)) == ("channel 1", "channel 2")
    assert channels(np.zeros((9, 9, 3), np.uint16))[0] == "channel 1"
    assert channels(np.zeros((9, 9, 2)), ["DAPI", "CD3"]) == ("DAPI", "CD3")


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "at least one level"),
        (np.zeros((3, 4, 5, 6)), r"must be \(height, width\[, channels\]\), not"),
        (np.zeros((0, 4)), "must be"),
        ([np.zeros((4, 4)), np.zeros((8, 8))], r"must get smaller"),
        ([np.zeros((4, 4)), np.zeros((2, 2), int)], "same channels and type"),
        (np.zeros((4, 4), complex), "not an image"),
        (np.zeros((4, 4, 4000)), "the order of axes is"),
    ],
)
def test_arrays_that_are_no_slide(levels, message):
    with pytest.raises(SlideError, match=f"a: .*{message}"):
        slide_from_arrays(levels, name="a")


def test_array_digests_tell_images_apart():
    image = picture(100, 100)
    other = image.copy()
    other[50, 50] ^= 1
    digests = {
        slide_from_arrays(a, name="x").info.digest for a in (image, image.copy())
    }
    assert len(digests) == 1
    assert slide_from_arrays(other, name="x").info.digest not in digests


def test_associated_images_are_named_when_missing():
    slide = slide_from_arrays(picture(9, 9), name="a")
    with pytest.raises(InputError, match=r"no associated image 'label' \(it has: none"):
        slide.read_associated("label")


def test_read_checks_its_arguments():
    slide = slide_from_arrays(picture(9, 9), name="a")
    with pytest.raises(InputError, match="level 3 is not one of 0 to 0"):
        slide.read(Region(y=0, x=0, height=2, width=2), level=3)
    with pytest.raises(InputError, match="whole number of pixels"):
        slide.read(Region(y=0, x=0, height=2.5, width=2))


def test_dask_chunks_are_near_512_px(tmp_path):
    made = write_tiff(tmp_path / "s.tif", shape=(2100, 1500), ratios=(1, 2))
    strips = write_tiff(
        tmp_path / "strips.tif", shape=(300, 5000), ratios=(1,), tile=None
    )
    with open_slide(made.path) as slide, open_slide(strips.path) as wide:
        assert slide.levels[0].chunks[0][0] == 512
        assert wide.levels[0].chunks[1][0] == 512
        block = slide.levels[1][100:200, 300:400].compute()
        np.testing.assert_array_equal(block, made.levels[1][100:200, 300:400])


def test_an_opacity_of_zero_everywhere_is_ignored(tmp_path):
    image = picture(50, 60, 4)
    image[..., 3] = 0
    Image.fromarray(image, "RGBA").save(tmp_path / "clear.png")
    with open_slide(tmp_path / "clear.png") as slide:
        np.testing.assert_array_equal(whole(slide), image[..., :3])
        assert slide.info.notes == ("its opacity is zero everywhere and is ignored",)
    image[3, 4, 3] = 1  # one pixel is meant, so all are
    Image.fromarray(image, "RGBA").save(tmp_path / "nearly.png")
    with open_slide(tmp_path / "nearly.png") as slide:
        assert (whole(slide)[10:] == 255).all()


@pytest.mark.parametrize(
    ("name", "start", "extra"),
    [("s.dcm", bytes(128) + b"DICM", "dicom"), ("s.czi", b"ZISRAWFILE", "czi")],
)
def test_what_openslide_refuses_names_the_extra_that_may_read_it(
    tmp_path, monkeypatch, name, start, extra
):
    pytest.importorskip("openslide")
    monkeypatch.setattr(czi if extra == "czi" else dicom, "is_installed", lambda: False)
    (tmp_path / name).write_bytes(start + bytes(2000))
    with pytest.raises(
        SlideError, match=rf"OpenSlide does not read.*\[{extra}\]"
    ) as no:
        open_slide(tmp_path / name)
    # None of OpenSlide's own words.
    assert str(no.value).endswith(f'pip install "napari-histodistill[{extra}]".')


def test_dots_per_inch_of_one_axis_only_are_not_a_size(tmp_path):
    Image.fromarray(picture(40, 50)).save(tmp_path / "x.tif", dpi=(50800, 72))
    Image.fromarray(picture(40, 50)).save(tmp_path / "x.png", dpi=(50800, 72))
    for name in ("x.tif", "x.png"):
        with open_slide(tmp_path / name) as slide:
            assert slide.usable_mpp is None
            assert any("more than 10 % apart" in note for note in slide.info.notes)
