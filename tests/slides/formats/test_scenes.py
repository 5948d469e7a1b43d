"""Scenes of one scan: all of them are the slide, and each can be opened alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import InputError
from napari_histodistill.slides import open_slide
from tests.slides.formats.made_slides import _qpi, _write, scene, shrunk, stored

if TYPE_CHECKING:
    from pathlib import Path

PLACES = [(20, -50), (30, 260)]


@pytest.fixture
def czi(tmp_path) -> tuple[Path, list[np.ndarray]]:
    """Two scenes at 0.25 µm, side by side; a corner that is not at the origin."""
    library = pytest.importorskip("pylibCZIrw.czi", reason="extra [czi]")
    parts = [scene(200, 300), scene(150, 180, seed=3)]
    path = tmp_path / "two.czi"
    with library.create_czi(str(path)) as file:
        for k, ((y, x), part) in enumerate(zip(PLACES, parts, strict=True)):
            blue_first = np.ascontiguousarray(part[..., ::-1])
            file.write(blue_first, location=(x, y), scene=k)
        file.write_metadata("two", scale_x=0.25e-6, scale_y=0.25e-6)
    return path, parts


def test_scenes_of_a_czi_are_listed_and_opened_alone(czi):
    path, parts = czi
    with open_slide(path) as whole:
        assert [i.name for i in whole.info.images] == ["two.czi", "scene 1", "scene 2"]
        assert whole.info.image == 0
        assert whole.shape == (200, 490)
        everything = whole.levels[0].compute()
    for k, part in enumerate(parts):
        for name in (f"scene {k + 1}", k + 1):
            with open_slide(path, image=name) as slide:
                assert slide.info.image == k + 1
                assert slide.name == f"two.czi · scene {k + 1}"
                assert slide.mpp.mean == pytest.approx(0.25)
                np.testing.assert_array_equal(slide.levels[0].compute(), part)
                assert slide.info.digest != whole.info.digest
    # The second one lies over the first, and hides the part that both have.
    np.testing.assert_array_equal(everything[:, :300][:10], parts[0][:10])
    np.testing.assert_array_equal(everything[10:160, 310:], parts[1])
    with pytest.raises(InputError, match="1 'scene 1' "):
        open_slide(path, image="scene 3")


def test_one_scene_is_no_choice(tmp_path):
    library = pytest.importorskip("pylibCZIrw.czi", reason="extra [czi]")
    path = tmp_path / "one.czi"
    with library.create_czi(str(path)) as file:
        file.write(np.ascontiguousarray(scene(90, 120)), scene=0)
    with open_slide(path) as slide:
        assert len(slide.info.images) == 1


def test_scenes_of_an_openslide_slide_are_its_scanned_areas(made_scn):
    path, levels, areas = made_scn
    with open_slide(path) as whole:
        images = whole.info.images
        assert [i.name for i in images] == ["made.scn", "macro", "scene 1", "scene 2"]
        assert [i.role for i in images] == ["slide", "macro", "slide", "slide"]
    for k, (y, x, height, width) in enumerate(areas):
        with open_slide(path, image=f"scene {k + 1}") as slide:
            assert slide.shape == (height, width)
            assert slide.mpp.mean == 0.5
            for level in range(2):
                f = 2**level
                theirs = levels[level][
                    y // f : (y + height) // f, x // f : (x + width) // f
                ]
                np.testing.assert_array_equal(slide.levels[level].compute(), theirs)
            assert "macro" in slide.associated_images


@pytest.fixture
def made_scn(tmp_path):
    pytest.importorskip("openslide")
    from tests.slides.formats.made_slides import make_scn

    made = make_scn(tmp_path)
    return made.path, made.levels, [(40, 60, 100, 150), (180, 220, 90, 130)]


def test_a_level_that_a_scene_does_not_begin_on_is_left_out():
    from napari_histodistill.slides.formats.arrays import ArraySource
    from napari_histodistill.slides.formats.scenes import SceneSource
    from napari_histodistill.slides.pyramid.colours import RGB, Colours
    from napari_histodistill.slides.pyramid.levels import Rect

    image = scene(64, 64)
    levels = [image, shrunk(image, 2), shrunk(image, 4)]
    source = ArraySource(levels, Colours(RGB, background=255), name="made")
    part = SceneSource(source, Rect(6, 10, 40, 30))  # 6 / 4 is no whole pixel
    assert [(i.height, i.width) for i in part.levels] == [(40, 30), (20, 15)]
    np.testing.assert_array_equal(
        part.read_level(1, Rect(2, 3, 5, 6)), levels[1][5:10, 8:14]
    )


@pytest.mark.parametrize("interleaved", [True, False])
def test_two_brightfield_scans_of_a_qptiff_are_two_pyramids(tmp_path, interleaved):
    """The second became a coarser level of the first, or another channel of it."""
    path = tmp_path / "two.qptiff"
    first, second = scene(187, 313), scene(150, 120, seed=3)
    size = {"resolution": (20000, 20000), "resolutionunit": 3}
    coarse = {"subfiletype": 1}
    pages = [
        ("FullResolution", first, size),
        ("ReducedResolution", shrunk(first, 2), coarse),
        ("FullResolution", second, size),
        ("ReducedResolution", shrunk(second, 2), coarse),
        ("Label", scene(30, 25, seed=7), {"tile": None}),
    ]
    if not interleaved:
        pages = [pages[0], pages[2], pages[1], pages[3], pages[4]]
    with tifffile.TiffWriter(path) as tif:
        for kind, image, more in pages:
            _write(
                tif, image, software="PerkinElmer-QPI", description=_qpi(kind), **more
            )
    ours = {"scan 1": (0, 1), "scan 2": (2, 3)}
    if not interleaved:
        ours = {"scan 1": (0, 2), "scan 2": (1, 3)}
    with open_slide(path) as slide:
        assert [i.name for i in slide.info.images] == ["scan 1", "scan 2", "label"]
        assert slide.shape == (187, 313)
        assert slide.info.channels == ("R", "G", "B")
    for name, levels in ours.items():
        with open_slide(path, image=name) as slide:
            assert slide.mpp.mean == 0.5
            for k, page in enumerate(levels):
                np.testing.assert_array_equal(
                    slide.levels[k].compute(), stored(path, page)
                )


def test_two_equal_brightfield_scans_are_no_channels(tmp_path):
    path = tmp_path / "equal.qptiff"
    with tifffile.TiffWriter(path) as tif:
        for seed in (1, 3):
            _write(
                tif, scene(120, 100, seed=seed), software="PerkinElmer-QPI",
                description=_qpi("FullResolution"),
            )  # fmt: skip
    for name, page in (("scan 1", 0), ("scan 2", 1)):
        with open_slide(path, image=name) as slide:
            np.testing.assert_array_equal(slide.levels[0].compute(), stored(path, page))
