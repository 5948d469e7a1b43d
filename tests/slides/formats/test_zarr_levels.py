"""Levels in any order, with the scale and the place that belong to each."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_histodistill.slides import open_slide
from tests.slides.factory import picture

UNIT = "micrometer"


def write_levels(path, levels, *, unit=UNIT, common=(), zarr_format=2):
    """Write ``(array yxc, scale, translation or None)`` in the order given."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    datasets = []
    for k, (array, scale, shift) in enumerate(levels):
        group.create_array(str(k), shape=array.shape, dtype=array.dtype)[...] = array
        steps = [{"type": "scale", "scale": [*scale, 1.0]}]
        if shift is not None:
            steps.append({"type": "translation", "translation": [*shift, 0.0]})
        datasets.append({"path": str(k), "coordinateTransformations": steps})
    axes = [{"name": n, "type": "space", "unit": unit} for n in "yx"]
    if unit is None:
        axes = [{"name": n, "type": "space"} for n in "yx"]
    multiscale = {"axes": [*axes, {"name": "c", "type": "channel"}]}
    multiscale |= {"datasets": datasets, "coordinateTransformations": list(common)}
    names = {"channels": [{"label": name} for name in "RGB"]}
    content = {"multiscales": [multiscale], "omero": names}
    group.attrs.update({"ome": content} if zarr_format == 3 else content)
    return path


def pyramid(mpp=0.5, shift=None):
    image = picture(200, 300)
    found = []
    for k in (1, 2, 4):
        level = np.ascontiguousarray(image[::k, ::k])
        moved = shift and tuple(s + (k - 1) / 2 * mpp for s in shift)
        found.append((level, (mpp * k, mpp * k), moved))
    return found


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_levels_are_sorted_with_their_scales_and_places(tmp_path, order, zarr_format):
    levels = pyramid(shift=(1000.0, 2000.0))
    path = write_levels(
        tmp_path / "s.zarr", [levels[k] for k in order], zarr_format=zarr_format
    )
    with open_slide(path) as slide:
        assert slide.shape == (200, 300)
        assert (slide.mpp.y, slide.mpp.x) == (0.5, 0.5)
        assert slide.info.origin_um == (1000.0, 2000.0)
        assert any("sorted, scales with them" in n for n in slide.info.notes)
        for k, (level, _, _) in enumerate(levels):
            found = slide.read_pixels(k, 0, 0, *level.shape[:2])
            np.testing.assert_array_equal(found, level)


def test_levels_in_order_need_no_note(tmp_path):
    with open_slide(write_levels(tmp_path / "s.zarr", pyramid())) as slide:
        assert slide.info.notes == ()
        assert slide.info.origin_um == (0.0, 0.0)


def test_scales_that_contradict_the_sizes_are_not_believed(tmp_path):
    fine, middle, coarse = (level for level, _, _ in pyramid())
    mixed = [(fine, (2, 2), None), (middle, (1, 1), None), (coarse, (0.5, 0.5), None)]
    with open_slide(write_levels(tmp_path / "s.zarr", mixed)) as slide:
        assert slide.mpp is None, "2 µm would make areas sixteen times too large"
        assert any("contradict their sizes" in n for n in slide.info.notes)


def test_one_scale_for_all_levels_is_the_finest_ones(tmp_path):
    same = [(level, (0.5, 0.5), None) for level, _, _ in pyramid()]
    with open_slide(write_levels(tmp_path / "s.zarr", same)) as slide:
        assert slide.mpp.mean == 0.5


def test_the_image_is_placed_by_all_its_transformations(tmp_path):
    common = [
        {"type": "scale", "scale": [2.0, 2.0, 1.0]},
        {"type": "translation", "translation": [5.0, -7.0, 0.0]},
    ]
    path = write_levels(
        tmp_path / "s.zarr", pyramid(shift=(100.0, 200.0)), common=common
    )
    with open_slide(path) as slide:
        assert slide.mpp.mean == 1.0
        assert slide.info.origin_um == (205.0, 393.0)


@pytest.mark.parametrize(
    ("unit", "origin"),
    [("millimeter", (1000.0, 2000.0)), ("nanometer", (0.001, 0.002)), (None, (0, 0))],
)
def test_places_are_converted_to_micrometres(tmp_path, unit, origin):
    scale = {"millimeter": 0.0005, "nanometer": 500}.get(unit, 0.5)
    level = pyramid()[0][0]
    path = write_levels(
        tmp_path / "s.zarr", [(level, (scale, scale), (1.0, 2.0))], unit=unit
    )
    with open_slide(path) as slide:
        assert slide.info.origin_um == pytest.approx(origin)


@pytest.mark.parametrize("far", [1e12, float("nan")])
def test_a_place_that_cannot_be_is_said_and_not_used(tmp_path, far):
    level = pyramid()[0][0]
    path = write_levels(tmp_path / "s.zarr", [(level, (0.5, 0.5), (far, 0.0))])
    with open_slide(path) as slide:
        assert slide.info.origin_um == (0.0, 0.0)
        assert any("cannot be a slide's and is not used" in n for n in slide.info.notes)


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("Micrometer", 1),
        ("micrometre", 1),
        ("micrometers", 1),
        ("microns", 1),
        ("\\u00B5m", 1),
        ("\u03bcm", 1),
        ("Nanometer", 1e-3),
        ("millimetre", 1e3),
        ("inches", 25400),
    ],
)
def test_units_are_recognised_as_people_write_them(tmp_path, unit, um):
    levels = [(picture(20, 30), (0.5 / um, 0.5 / um), (100 / um, 200 / um))]
    with open_slide(write_levels(tmp_path / "s.zarr", levels, unit=unit)) as slide:
        assert slide.mpp.mean == pytest.approx(0.5)
        assert slide.info.origin_um == pytest.approx((100, 200))
