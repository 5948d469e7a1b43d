"""What lies inside a zarr is named, listed and opened on request."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.slides import open_slide
from tests.slides.factory import picture
from tests.slides.formats.test_omezarr import AXES_CYX, write
from tests.slides.formats.test_zarr_levels import write_levels

SIZES = {"0": (40, 60), "1": (200, 300), "2": (200, 300)}


def planes(height, width):
    return np.moveaxis(picture(height, width), 2, 0)


def group_of(path, attributes, *, ome=True, zarr_format=2):
    content = {"ome": attributes} if zarr_format == 3 and ome else attributes
    return zarr.open_group(path, mode="a", zarr_format=zarr_format, attributes=content)


def listed(slide):
    return [(i.name, i.height, i.width, i.role) for i in slide.info.images]


OME_XML = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image Name="case 7 - label"/><Image Name="scan"/><Image Name="rescan"/></OME>'
)


@pytest.fixture(params=[2, 3])
def series(request, tmp_path):
    """A label image first, then two scenes, as bioformats2raw lays them out."""
    path, form = tmp_path / "series.zarr", request.param
    group_of(path, {"bioformats2raw.layout": 3}, zarr_format=form)
    group_of(path / "OME", {"series": ["0", "1", "2"]}, zarr_format=form)
    (path / "OME/METADATA.ome.xml").write_text(OME_XML, "utf-8")
    for name, size in SIZES.items():
        write(LocalStore(path / name), [planes(*size)], zarr_format=form)
    return path


def test_a_series_is_listed_by_its_names_and_the_label_is_not_shown(series):
    with open_slide(series) as slide:
        assert listed(slide) == [
            ("case 7 - label", 40, 60, "label"),
            ("scan", 200, 300, "slide"),
            ("rescan", 200, 300, "slide"),
        ]
        assert slide.info.image == 1
        assert slide.shape == (200, 300)
        assert slide.info.images[1].mpp.mean == pytest.approx(0.5)
        assert "3 images are inside; scan is shown" in slide.info.notes


@pytest.mark.parametrize("image", ["rescan", "RESCAN", 2, "2"])
def test_another_of_a_series_opens_by_name_and_number(series, image):
    with open_slide(series) as main, open_slide(series, image=image) as other:
        assert (main.info.image, other.info.image) == (1, 2)
        assert other.info.digest != main.info.digest, "their stores are kept apart"
        assert other.name == "series.zarr · rescan"


def test_what_is_not_inside_is_said_with_what_is(series):
    with pytest.raises(InputError, match=r"no image 'x' in it.*'scan'"):
        open_slide(series, image="x")


def test_series_without_a_list_or_names_are_found(tmp_path):
    path = tmp_path / "s.zarr"
    group_of(path, {"bioformats2raw.layout": 3})
    for name, size in SIZES.items():
        write(LocalStore(path / name), [planes(*size)], zarr_format=2)
    with open_slide(path) as slide:
        assert [i.name for i in slide.info.images] == ["0", "1", "2"]
        assert slide.info.image == 1, "the largest"


def test_a_plate_opens_by_well_and_field(tmp_path):
    path = tmp_path / "plate.zarr"
    wells = [{"path": "A/1"}, {"path": "B/2"}]
    group_of(path, {"plate": {"wells": wells}})
    for k, well in enumerate(("A/1", "B/2")):
        zarr.open_group(path / well[0], mode="a", zarr_format=2)
        group_of(path / well, {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
        for field in "01":
            size = 100 + 10 * k, 80
            write(LocalStore(path / well / field), [planes(*size)], zarr_format=2)
    with open_slide(path) as slide:
        assert [i.name for i in slide.info.images] == [
            "A/1/0", "A/1/1", "B/2/0", "B/2/1",
        ]  # fmt: skip
    with open_slide(path, image="B/2/1") as slide:
        assert slide.info.image == 3
        assert slide.shape == (110, 80)
    with open_slide(path / "B/2") as well:
        assert [i.name for i in well.info.images] == ["0", "1"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_spatialdata_folder_shows_its_image(tmp_path, zarr_format):
    path = tmp_path / "sdata.zarr"
    about = {"spatialdata_attrs": {"version": "0.1"}}
    group_of(path, about, ome=False, zarr_format=zarr_format)
    for folder in ("images", "labels", "tables"):
        zarr.open_group(path / folder, mode="a", zarr_format=zarr_format)
    write(LocalStore(path / "images/he"), [planes(200, 300)], zarr_format=zarr_format)
    labels = np.ones((400, 600), np.int32)
    write(
        LocalStore(path / "labels/cells"), [labels], axes=AXES_CYX[1:], omero=None,
        zarr_format=zarr_format,
    )  # fmt: skip
    say_labels(path / "labels/cells", zarr_format)
    with open_slide(path) as slide:
        assert listed(slide) == [
            ("images/he", 200, 300, "slide"),
            ("labels/cells", 400, 600, "other"),
        ]
        assert slide.shape == (200, 300), "labels are never the slide"
    with open_slide(path, image="he") as slide:
        assert slide.info.image == 0
    with open_slide(path, image="labels/cells") as slide:
        assert slide.shape == (400, 600)


def say_labels(path, zarr_format):
    group = zarr.open_group(path, mode="a")
    if zarr_format == 3:
        group.attrs["ome"] = {**group.attrs["ome"], "image-label": {}}
    else:
        group.attrs["image-label"] = {}


def test_the_labels_of_an_image_are_named(tmp_path):
    path = tmp_path / "s.zarr"
    write(LocalStore(path), [planes(100, 80)], zarr_format=2)
    group_of(path / "labels", {"labels": ["nuclei"]})
    labels = np.arange(8000).reshape(100, 80)
    inside = LocalStore(path / "labels/nuclei")
    write(inside, [labels], axes=AXES_CYX[1:], omero=None, zarr_format=2)
    say_labels(path / "labels/nuclei", 2)
    with open_slide(path) as slide:
        assert [i.name for i in slide.info.images] == ["s.zarr", "labels/nuclei"]
        assert slide.info.is_rgb
    with open_slide(path, image="nuclei") as slide:
        found = slide.read_pixels(0, 0, 0, 100, 80)[..., 0]
        np.testing.assert_array_equal(found, labels)


def test_a_damaged_neighbour_is_passed_over_with_a_note(series):
    (series / "2/0/.zarray").unlink(missing_ok=True)
    (series / "2/0/zarr.json").unlink(missing_ok=True)
    with open_slide(series) as slide:
        assert len(slide.info.images) == 2
        assert any("the image '2' is damaged" in note for note in slide.info.notes)


def test_a_plate_with_more_fields_than_are_listed(tmp_path, monkeypatch):
    from napari_histodistill.slides.formats import omezarr

    monkeypatch.setattr(omezarr, "MOST_HERE", 2)
    path = tmp_path / "s.zarr"
    group_of(path, {"bioformats2raw.layout": 3})
    for name, size in SIZES.items():
        write(LocalStore(path / name), [planes(*size)], zarr_format=2)
    with open_slide(path) as slide:
        assert len(slide.info.images) == 2
        assert any("more images are inside than the 2" in n for n in slide.info.notes)
    with open_slide(path, image="2/") as slide:
        assert slide.shape == (200, 300)


def test_an_image_of_labels_is_no_slide(tmp_path):
    path = tmp_path / "labels.zarr"
    labels = np.ones((100, 80), np.uint8)
    write(LocalStore(path), [labels], axes=AXES_CYX[1:], omero=None, zarr_format=2)
    say_labels(path, 2)
    with pytest.raises(SlideError, match=r"labels\.zarr is an image of labels, not a"):
        open_slide(path)
    with open_slide(path, image=0) as slide:
        assert slide.info.channels == ("grey",)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("unit", "mpp", "role"), [("micrometer", 12.0, "macro"), (None, 1.0, "other")]
)
def test_a_label_larger_than_the_scan_is_known_by_its_scale(
    tmp_path, zarr_format, unit, mpp, role
):
    root = tmp_path / "s.zarr"
    group_of(root, {"bioformats2raw.layout": 3}, zarr_format=zarr_format)
    for k, size, scale, of in ((0, 90, mpp, unit), (1, 60, 0.5, "micrometer")):
        level = (picture(size, size), (scale, scale), None)
        write_levels(root / str(k), [level], unit=of, zarr_format=zarr_format)
    with open_slide(root) as slide:
        assert slide.shape == (60, 60)
        assert [i.role for i in slide.info.images] == [role, "slide"]
