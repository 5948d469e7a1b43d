"""Which image of a file is the slide, what else is in it, and choosing another."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import InputError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.images import role_of_name
from tests.slides.factory import APERIO, at_size, picture, write_tiff


def whole(slide, level=0):
    info = slide.level_infos[level]
    return slide.read_pixels(level, 0, 0, info.height, info.width)


def write_ome(path, *images):
    """Write an OME-TIFF of ``(pixels, name, µm per pixel, coarser levels)``."""
    with tifffile.TiffWriter(path, ome=True) as tif:
        for pixels, name, mpp, below in images:
            sizes = {} if mpp is None else {f"PhysicalSize{a}": mpp for a in "XY"}
            options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
            named = {"Name": name} if name else {}
            about = {"axes": "YXS", **named, **sizes}
            tif.write(pixels, subifds=len(below), metadata=about, **options)
            for level in below:
                tif.write(level, subfiletype=1, **options)
    return path


SCAN, OTHER = picture(256, 256, seed=2), picture(256, 256, seed=3)
HALF, SMALL = at_size(SCAN, 128, 128), at_size(OTHER, 64, 64)


@pytest.mark.parametrize(
    ("name", "mpp"), [("macro image", 16), ("Macro", None), ("", 16)]
)
def test_a_macro_that_comes_first_is_not_the_slide(tmp_path, name, mpp):
    images = (SMALL, name, mpp, ()), (SCAN, "scan", 0.5, (HALF,))
    with open_slide(write_ome(tmp_path / "m.ome.tif", *images)) as slide:
        np.testing.assert_array_equal(whole(slide), SCAN)
        np.testing.assert_array_equal(whole(slide, 1), HALF)
        assert slide.mpp.mean == 0.5
        assert [i.role for i in slide.info.images] == ["macro", "slide"]
        assert [i.height for i in slide.info.images] == [64, 256]
        assert slide.info.image == 1
        assert slide.associated_images == ("macro",)
        np.testing.assert_array_equal(slide.read_associated("macro"), SMALL)


def test_a_label_larger_than_the_scan_is_not_the_slide(tmp_path):
    label = picture(400, 400, seed=9)
    images = (label, "label image", None, ()), (SCAN, "", None, ())
    with open_slide(write_ome(tmp_path / "l.ome.tif", *images)) as slide:
        np.testing.assert_array_equal(whole(slide), SCAN)
        assert slide.info.images[0].role == "label"


def test_a_macro_larger_than_the_scan_is_known_by_its_scale(tmp_path):
    images = (picture(300, 300, seed=9), "", 12, ()), (SCAN, "", 0.5, ())
    with open_slide(write_ome(tmp_path / "l.ome.tif", *images)) as slide:
        np.testing.assert_array_equal(whole(slide), SCAN)
        assert [i.role for i in slide.info.images] == ["macro", "slide"]


def test_a_label_larger_than_the_scan_is_known_without_a_name(tmp_path):
    # of the same proportions: the scan was taken for its second level
    images = (picture(400, 400, seed=9), "", None, ()), (SCAN, "", 0.5, (HALF,))
    with open_slide(write_ome(tmp_path / "l.ome.tif", *images)) as slide:
        np.testing.assert_array_equal(whole(slide), SCAN)
        np.testing.assert_array_equal(whole(slide, 1), HALF)
        assert [i.role for i in slide.info.images] == ["other", "slide"]


@pytest.mark.parametrize("dpi", [None, 300])
def test_a_larger_label_of_a_plain_tiff_is_known_without_a_name(tmp_path, dpi):
    path = tmp_path / "l.tif"
    printed = {"resolution": (dpi, dpi), "resolutionunit": "INCH"} if dpi else {}
    with tifffile.TiffWriter(path) as tif:
        label = picture(400, 400, seed=9)
        tif.write(label, photometric="rgb", metadata=None, **printed)
        measured = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
        tif.write(SCAN, photometric="rgb", metadata=None, tile=(64, 64), **measured)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), SCAN)
        assert (slide.mpp.mean, len(slide.level_infos)) == (0.5, 1)
        assert [i.role for i in slide.info.images] == ["other", "slide"]


def test_a_picture_without_a_scale_is_the_slide_if_it_is_far_larger(tmp_path):
    images = (picture(520, 400, seed=9), "", None, ()), (SMALL[:40], "", 0.5, ())
    with open_slide(write_ome(tmp_path / "l.ome.tif", *images)) as slide:
        assert slide.shape == (520, 400)


def test_an_image_called_label_opens_if_it_is_alone(tmp_path):
    path = write_ome(tmp_path / "l.ome.tif", (SCAN, "label", 0.5, ()))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), SCAN)


def test_two_scenes_can_be_chosen_between(tmp_path):
    images = (SCAN, "Scene 1", 0.5, (HALF,)), (OTHER, "Scene 2", 0.25, ())
    path = write_ome(tmp_path / "s.ome.tif", *images)
    with open_slide(path) as first:
        assert first.name == "s.ome.tif"
        assert [i.role for i in first.info.images] == ["slide", "slide"]
        assert (first.info.image, first.mpp.mean) == (0, 0.5)
        np.testing.assert_array_equal(whole(first), SCAN)
        digest = first.info.digest
    for asked in ("Scene 2", "scene 2", 1, "1"):
        with open_slide(path, image=asked) as second:
            np.testing.assert_array_equal(whole(second), OTHER)
            assert second.name == "s.ome.tif · Scene 2"
            assert (second.info.image, second.mpp.mean) == (1, 0.25)
            assert second.info.digest != digest, "or their maps would be mixed up"
    with open_slide(path, image=0) as again:
        assert (again.info.digest, again.name) == (digest, "s.ome.tif")


@pytest.mark.parametrize("asked", ["Scene 3", 2, -1, "macro", "", "²"])
def test_an_unknown_image_is_refused_with_a_list(tmp_path, asked):
    images = (SCAN, "Scene 1", 0.5, ()), (OTHER, "Scene 2", 0.5, ())
    path = write_ome(tmp_path / "s.ome.tif", *images)
    with pytest.raises(InputError, match=r"s\.ome\.tif: .*0 'Scene 1' .*1 'Scene 2'"):
        open_slide(path, image=asked)


def test_a_file_of_one_image_refuses_another(tmp_path):
    from PIL import Image

    made = write_tiff(tmp_path / "one.tif")
    Image.fromarray(SCAN).save(tmp_path / "one.png")
    for path in (made.path, tmp_path / "one.png"):
        with open_slide(path, image=0) as slide:
            assert len(slide.info.images) == 1
        with pytest.raises(InputError, match="no image 'two' in it"):
            open_slide(path, image="two")


@pytest.mark.parametrize("scale", [1, None])
def test_levels_stored_as_images_are_one_pyramid(tmp_path, scale):
    images = [
        (at_size(SCAN, 256 // k, 256 // k), f"level {k}", scale and k * 0.5, ())
        for k in (4, 1, 2)
    ]
    path = write_ome(tmp_path / "p.ome.tif", *images)
    with open_slide(path) as slide:
        assert [level.height for level in slide.level_infos] == [256, 128, 64]
        assert len(slide.info.images) == 1
        assert slide.mpp is None or slide.mpp.mean == 0.5


def test_a_smaller_scene_of_the_same_scale_is_not_a_level(tmp_path):
    images = (SCAN, "A", 0.5, ()), (at_size(OTHER, 128, 128), "B", 0.5, ())
    with open_slide(write_ome(tmp_path / "s.ome.tif", *images)) as slide:
        assert len(slide.level_infos) == 1
        assert [i.role for i in slide.info.images] == ["slide", "slide"]


def test_scenes_of_a_plain_tiff_keep_their_own_levels(tmp_path):
    path = tmp_path / "scenes.tif"
    with tifffile.TiffWriter(path) as tif:
        for image in (SCAN, at_size(SCAN, 128, 128), OTHER, at_size(OTHER, 128, 128)):
            tif.write(image, photometric="rgb", metadata=None)
    for k, image in ((0, SCAN), (1, OTHER)):
        with open_slide(path, image=k) as slide:
            assert [i.name for i in slide.info.images] == ["page 0", "page 2"]
            np.testing.assert_array_equal(whole(slide), image)
            np.testing.assert_array_equal(whole(slide, 1), at_size(image, 128, 128))


@pytest.mark.parametrize(
    "mark",
    [
        {"subfiletype": 9},
        {"description": "Macro"},
        {"extratags": [(285, 2, 0, "macro")]},
    ],
)
def test_a_page_of_a_plain_tiff_says_it_is_a_macro(tmp_path, mark):
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(picture(400, 300), photometric="rgb", metadata=None, **mark)
        tif.write(SCAN, photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), SCAN)
        assert [i.role for i in slide.info.images] == ["macro", "slide"]


def test_a_macro_of_the_scans_proportions_is_not_a_level(tmp_path):
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as tif:
        for image, per_cm in ((SCAN, 20000), (SMALL, 600)):
            resolution = {"resolution": (per_cm, per_cm), "resolutionunit": 3}
            tif.write(image, photometric="rgb", metadata=None, **resolution)
    with open_slide(path) as slide:
        assert len(slide.level_infos) == 1
        assert slide.info.images[1].role == "macro"


def test_a_mask_of_transparency_is_not_a_level(tmp_path):
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as tif:
        bits = SCAN[..., 0] > 128
        tif.write(bits, photometric="minisblack", metadata=None)
        mask = np.ones((128, 128), bool)
        tif.write(mask, photometric="mask", subfiletype=4, metadata=None)
    with open_slide(path) as slide:
        assert len(slide.level_infos) == 1
        assert slide.info.images[1].role == "other"


def test_aperio_images_are_listed_and_open_on_request(tmp_path):
    path = tmp_path / "a.svs"
    label = picture(90, 70, seed=5)
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "metadata": None, "compression": "zlib"}
        text = APERIO.format(w=256, h=256) + "|MPP = 0.5"
        tif.write(SCAN, tile=(64, 64), description=text, **options)
        tif.write(SMALL, description=text, **options)
        tif.write(HALF, tile=(64, 64), description=text, **options)
        tif.write(label, subfiletype=1, description="Aperio\nlabel 70x90", **options)
    with open_slide(path) as slide:
        roles = {i.name: i.role for i in slide.info.images}
        assert roles == {"scan": "slide", "thumbnail": "thumbnail", "label": "label"}
        assert len(slide.level_infos) == 2
        assert set(slide.associated_images) == {"thumbnail", "label"}
    with open_slide(path, image="label") as slide:
        np.testing.assert_array_equal(whole(slide), label)
        assert slide.name == "a.svs · label"


def test_openslide_lists_the_same_and_opens_them_on_request(tmp_path):
    pytest.importorskip("openslide")
    from napari_histodistill.slides.formats.associated import associated_slide
    from napari_histodistill.slides.formats.openslide import open_with_openslide

    path = tmp_path / "a.svs"
    label = picture(90, 70, seed=5)
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "metadata": None, "compression": "jpeg"}
        text = APERIO.format(w=256, h=256) + "|MPP = 0.5"
        tif.write(SCAN, tile=(64, 64), description=text, **options)
        tif.write(SMALL, description=text, **options)
        options["compression"] = None
        tif.write(label, subfiletype=1, description="Aperio\nlabel 70x90", **options)
    with open_with_openslide(path) as slide:
        images = {i.name: (i.role, i.height, i.width) for i in slide.info.images}
        assert images == {
            "a.svs": ("slide", 256, 256),
            "label": ("label", 90, 70),
            "thumbnail": ("thumbnail", 64, 64),
        }
        (place,) = (i.index for i in slide.info.images if i.role == "label")
        digest = slide.info.digest
        asked = associated_slide(slide, place)
    np.testing.assert_array_equal(whole(asked), label)
    assert (asked.name, asked.info.image) == ("a.svs · label", place)
    assert asked.info.digest != digest
    assert asked.mpp is None, "that of the slide is not the label's"


def test_equal_scenes_are_noted(tmp_path):
    images = (SCAN, "A", 0.5, ()), (OTHER, "B", 0.5, ())
    with open_slide(write_ome(tmp_path / "s.ome.tif", *images)) as slide:
        assert "2 images that can be the slide: 'A' is shown" in slide.info.notes


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("label", "label"),
        ("Label Image", "label"),
        ("LABELIMAGE", "label"),
        ("case 7.svs [macro image]", "macro"),
        ("MACROIMAGE", "macro"),
        ("Overview", "macro"),
        ("SlidePreview", "macro"),
        ("Thumbnail", "thumbnail"),
        ("Label_Image", "label"),
        ("Label of the slide", "label"),
        ("overview scan", "macro"),
        ("label-free imaging", None),
        ("unlabelled", None),
        ("macrophages", None),
        ("", None),
    ],
)
def test_names_say_what_an_image_is(name, role):
    assert role_of_name(name) == role
