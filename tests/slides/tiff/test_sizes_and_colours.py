"""µm per pixel as ImageJ writes them, named colour channels, and opacity."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import MissingMppError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.tiff.metadata import um_per_unit
from tests.slides.factory import picture, write_tiff

IMAGE = picture(70, 90)


def whole(slide, level=0):
    info = slide.level_infos[level]
    return slide.read_pixels(level, 0, 0, info.height, info.width)


IMAGEJ = {
    "um": ("um", 2, 0.5),
    "micron": ("micron", 4, 0.25),
    "microns": ("microns", 4, 0.25),
    "micro sign": ("\\u00B5m", 2, 0.5),
    "micrometer": ("micrometer", 2, 0.5),
    "micrometre": ("Micrometres", 2, 0.5),
    "nm": ("nm", 0.004, 0.25),
    "mm": ("mm", 4000, 0.25),
    "cm": ("cm", 40000, 0.25),
    "inch": ("inch", 50800, 0.5),
    "72 per inch": ("inch", 72, None),
    "pixel": ("pixel", 2, None),
    "furlong": ("furlong", 2, None),
}


@pytest.mark.parametrize(("unit", "per", "mpp"), IMAGEJ.values(), ids=IMAGEJ)
@pytest.mark.parametrize("tag", [1, 2])
def test_imagej_units(tmp_path, unit, per, mpp, tag):
    made = write_tiff(
        tmp_path / "i.tif",
        image=IMAGE,
        ratios=(1,),
        resolution=(per, per),
        resolutionunit=1 if mpp else tag,
        description=f"ImageJ=1.53t\nunit={unit}\nloop=false\n",
    )
    with open_slide(made.path) as slide:
        if mpp is None:
            assert slide.usable_mpp is None
        else:
            assert slide.mpp.mean == pytest.approx(mpp, rel=1e-6)
            assert slide.mpp.source.startswith("ImageJ unit ")


def test_imagej_own_files(tmp_path):
    path = tmp_path / "fiji.tif"
    about = {"unit": "um", "axes": "YXS"}
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(2, 2), metadata=about)
    with open_slide(path) as slide:
        assert (slide.mpp.y, slide.mpp.x) == (0.5, 0.5)
        np.testing.assert_array_equal(whole(slide), IMAGE)


def test_imagej_may_give_y_a_unit_of_its_own(tmp_path):
    made = write_tiff(
        tmp_path / "i.tif", image=IMAGE, ratios=(1,), resolution=(2, 2000),
        resolutionunit=1, description="ImageJ=1.53t\nunit=um\nyunit=mm\n",
    )  # fmt: skip
    with open_slide(made.path) as slide:
        assert (slide.mpp.y, slide.mpp.x) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("unit", "um"),
    [("µm", 1), ("μm", 1), ("UM", 1), ("Micron", 1), ("mm", 1e3), ("Mm", None),
     ("Inches", 25400), ("m", 1e6), ("M", None), ("Millimeters", 1e3), ("", None)],
)  # fmt: skip
def test_units_are_recognised_as_people_write_them(unit, um):
    assert um_per_unit(unit) == um


@pytest.mark.parametrize("resolution", [(20000, 72), (72, 20000), (20000, 17000)])
def test_axes_that_differ_are_asked_about(tmp_path, resolution):
    made = write_tiff(
        tmp_path / "x.tif", image=IMAGE, ratios=(1,), resolution=resolution,
        resolutionunit="centimeter",
    )  # fmt: skip
    with open_slide(made.path) as slide:
        assert slide.usable_mpp is None
        with pytest.raises(
            MissingMppError, match=r"more than 10 % apart; give .* --mpp"
        ):
            slide.require_mpp()
    with open_slide(made.path, mpp=0.5) as slide:
        assert slide.require_mpp().mean == 0.5


@pytest.mark.parametrize("axis", ["X", "Y"])
def test_one_axis_of_ome_alone_is_no_size_and_is_said(tmp_path, axis):
    metadata = {"axes": "YXS", f"PhysicalSize{axis}": 0.5}
    path = tmp_path / "one.ome.tif"
    tifffile.imwrite(path, IMAGE, photometric="rgb", ome=True, metadata=metadata)
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert f"PhysicalSize{axis} is stated" in slide.info.notes[0]


NAMES = {
    "words": ("Red", "Green", "Blue"),
    "letters": ("r", "g", "b"),
    "another order": ("BLUE", "Red", "green"),
    "with channel": ("Red channel", "Channel: Green", "blue-channel"),
}


def write_channels(path, names, image, **options):
    metadata = {"axes": "CYX", "Channel": {"Name": list(names)}}
    planes = np.moveaxis(image, 2, 0).copy()
    options = {"photometric": "minisblack", "tile": (64, 64)} | options
    tifffile.imwrite(path, planes, ome=True, metadata=metadata, **options)
    return path


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_channels_named_for_colours_are_colour(tmp_path, names):
    stored = IMAGE[..., ["rgb".index(_letter(n)) for n in names]]
    with open_slide(write_channels(tmp_path / "c.ome.tif", names, stored)) as slide:
        assert slide.info.is_rgb
        np.testing.assert_array_equal(whole(slide), IMAGE)
        np.testing.assert_array_equal(
            slide.read_pixels(0, 3, 5, 20, 30), IMAGE[3:23, 5:35]
        )


def _letter(name):
    return next(
        w[0] for w in ("red", "green", "blue", "r", "g", "b") if w in name.lower()
    )


def test_a_fourth_channel_named_alpha_is_opacity(tmp_path):
    image = np.dstack([IMAGE, np.full(IMAGE.shape[:2], 255, np.uint8)])
    image[:20, :, 3] = 0
    path = write_channels(tmp_path / "c.ome.tif", ("R", "G", "B", "A"), image)
    with open_slide(path) as slide:
        assert slide.info.is_rgb
        np.testing.assert_array_equal(whole(slide)[20:], IMAGE[20:])
        assert (whole(slide)[:20] == 255).all()


@pytest.mark.parametrize("names", [("DAPI", "CD3", "CD8"), ("Red", "Green", "CD8")])
def test_other_names_are_not_colour(tmp_path, names):
    with open_slide(write_channels(tmp_path / "c.ome.tif", names, IMAGE)) as slide:
        assert slide.info.channels == names


DEPTHS = {
    "16 bits": (np.uint16, 257, 65535),
    "12 bits in 16": (np.uint16, 16, 4095),
    "8 bits in 16": (np.uint16, 1, 255),
    "float to 1": (np.float32, 1 / 255, 1),
    "float to 255": (np.float32, 1, 255),
}


@pytest.mark.parametrize("kind", DEPTHS)
@pytest.mark.parametrize("named", [True, False], ids=["channels", "samples"])
def test_deeper_colour_is_scaled_by_the_bits_that_are_filled(tmp_path, kind, named):
    dtype, factor, top = DEPTHS[kind]
    deep = (IMAGE.astype(float) * factor).astype(dtype)
    deep[3, 4] = np.iinfo(dtype).max if dtype == np.uint16 else 1e4  # a defect
    path = tmp_path / "d.ome.tif"
    if named:
        write_channels(path, ("Red", "Green", "Blue"), deep)
    else:
        tifffile.imwrite(path, deep, photometric="rgb")
    expected = np.rint(255 * (deep / top).clip(0, 1)).astype(np.uint8)
    with open_slide(path) as slide:
        assert slide.info.is_rgb
        assert slide.dtype == np.uint8
        np.testing.assert_array_equal(whole(slide), expected)
        assert f"0 to {top} becomes 0 to 255, by" in slide.info.notes[-1]


def test_stated_bits_go_before_those_that_are_filled(tmp_path):
    deep = (IMAGE // 4).astype(np.uint16) * 16  # dark: 10 bits would hold it
    names, path = ["R", "G", "B"], tmp_path / "d.ome.tif"
    metadata = {"axes": "CYX", "SignificantBits": 12, "Channel": {"Name": names}}
    planes = np.moveaxis(deep, 2, 0).copy()
    tifffile.imwrite(
        path, planes, ome=True, photometric="minisblack", metadata=metadata
    )
    with open_slide(path) as slide:
        expected = np.rint(255 * (deep / 4095)).astype(np.uint8)
        np.testing.assert_array_equal(whole(slide), expected)


def test_deeper_colour_with_opacity_is_composited(tmp_path):
    alpha = np.full((*IMAGE.shape[:2], 1), 65535, np.uint16)
    alpha[:10] = 0
    path = tmp_path / "a.tif"
    deep = np.dstack([IMAGE.astype(np.uint16) * 257, alpha])
    tifffile.imwrite(path, deep, photometric="rgb", extrasamples=["unassalpha"])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide)[10:], IMAGE[10:])
        assert (whole(slide)[:10] == 255).all()


@pytest.mark.parametrize("names", [("", "", ""), ("0", "1", "2"), ("Channel:0:0",) * 3])
@pytest.mark.parametrize("factor", [1, 16])
def test_three_channels_without_names_are_asked_about(tmp_path, names, factor):
    image = IMAGE if factor == 1 else IMAGE.astype(np.uint16) * factor
    path = write_channels(tmp_path / "c.ome.tif", names, image)
    with open_slide(path) as slide:
        assert slide.info.needs_rgb
        assert not slide.info.is_rgb
    with open_slide(path, rgb=True) as slide:
        assert slide.info.is_rgb
        assert np.abs(whole(slide) - IMAGE.astype(float)).max() <= 1


def test_an_opacity_channel_of_zero_everywhere_is_ignored(tmp_path):
    image = np.dstack([np.zeros(IMAGE.shape[:2], np.uint8), IMAGE])
    path = write_channels(tmp_path / "c.ome.tif", ("A", "R", "G", "B"), image)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), IMAGE)
        assert "its opacity is zero everywhere and is ignored" in slide.info.notes


def test_associated_opacity_is_not_applied_twice(tmp_path):
    alpha = np.full((*IMAGE.shape[:2], 1), 128, np.uint8)
    alpha[:10] = 255
    alpha[-10:] = 0
    stored = np.rint(IMAGE * (alpha / 255)).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.dstack([stored, alpha]), photometric="rgb", extrasamples=["assocalpha"]
    )
    expected = IMAGE * (alpha / 255) + 255 * (1 - alpha / 255)
    with open_slide(path) as slide:
        assert np.abs(whole(slide) - expected).max() <= 1
        np.testing.assert_array_equal(whole(slide)[:10], IMAGE[:10])


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("ratios", [(1,), (1, 2)])
def test_an_opacity_of_zero_everywhere_is_ignored(tmp_path, kind, ratios):
    image = np.dstack([IMAGE, np.zeros(IMAGE.shape[:2], np.uint8)])
    options = {"extrasamples": [kind], "ratios": ratios}
    made = write_tiff(tmp_path / "z.tif", image=image, **options)
    with open_slide(made.path) as slide:
        np.testing.assert_array_equal(whole(slide), IMAGE)
        assert "its opacity is zero everywhere and is ignored" in slide.info.notes
        assert "transparent parts are shown white" not in slide.info.notes


def test_an_opacity_that_is_somewhere_is_believed(tmp_path):
    image = np.dstack([IMAGE, np.zeros(IMAGE.shape[:2], np.uint8)])
    image[40:44, 50:54, 3] = 255
    made = write_tiff(
        tmp_path / "z.tif", image=image, ratios=(1,), extrasamples=["unassalpha"]
    )
    with open_slide(made.path) as slide:
        np.testing.assert_array_equal(whole(slide)[40:44, 50:54], IMAGE[40:44, 50:54])
        assert (whole(slide)[:40] == 255).all()


def test_only_a_sample_of_a_large_level_is_looked_at(tmp_path, monkeypatch):
    from napari_histodistill.slides.pyramid import stored

    monkeypatch.setattr(stored, "WHOLE_PX", 1000)
    monkeypatch.setattr(stored, "SIDE_PX", 8)
    image = np.dstack([picture(300, 400), np.zeros((300, 400), np.uint8)])
    options = {"ratios": (1,), "extrasamples": ["unassalpha"]}
    made = write_tiff(tmp_path / "z.tif", image=image, **options)
    with open_slide(made.path) as slide:
        np.testing.assert_array_equal(whole(slide), image[..., :3])
    image[140:160, 190:210, 3] = 200
    made = write_tiff(tmp_path / "y.tif", image=image, **options)
    with open_slide(made.path) as slide:
        assert (whole(slide)[:100] == 255).all()


@pytest.mark.parametrize(
    ("dtype", "factor"), [("uint8", 1), ("uint16", 3), ("float32", 3)]
)
def test_pixels_of_other_depths_are_kept(tmp_path, dtype, factor):
    image = (IMAGE * factor).astype(dtype)[..., 0]
    made = write_tiff(tmp_path / "d.tif", image=image, ratios=(1,))
    with open_slide(made.path) as slide:
        assert slide.dtype == dtype
        np.testing.assert_array_equal(whole(slide)[..., 0], image)
