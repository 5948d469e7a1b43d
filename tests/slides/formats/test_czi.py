"""CZI files written by the maker's library: colour, channels, damage."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.formats.czi import open_czi
from tests.slides.factory import picture

library = pytest.importorskip("pylibCZIrw.czi", reason="extra [czi]")


def colour_file(path, image, mpp=0.25):
    with library.create_czi(str(path)) as czi:
        middle = image.shape[1] // 2
        # Blue first, and a corner that is not at the origin.
        czi.write(np.ascontiguousarray(image[:, :middle, ::-1]), location=(-50, 20))
        czi.write(
            np.ascontiguousarray(image[:, middle:, ::-1]), location=(middle - 50, 20)
        )
        czi.write_metadata("slide", scale_x=mpp * 1e-6, scale_y=mpp * 1e-6)
    return path


def test_colour_scale_and_place(tmp_path):
    image = picture(300, 1400)
    path = colour_file(tmp_path / "slide.czi", image)
    with open_czi(path) as slide:
        assert slide.info.backend == "pylibCZIrw"
        assert slide.info.is_rgb
        assert slide.mpp.mean == pytest.approx(0.25)
        assert slide.mpp.source == "CZI Scaling"
        np.testing.assert_array_equal(slide.levels[0].compute(), image)
        np.testing.assert_array_equal(
            slide.read_pixels(0, 100, 650, 120, 200), image[100:220, 650:850]
        )
        assert slide.level_infos[1].width == 700


def test_channels_keep_their_names_and_values(tmp_path):
    path = tmp_path / "cells.czi"
    planes = np.random.default_rng(0).integers(0, 60000, (2, 90, 120)).astype(np.uint16)
    with library.create_czi(str(path)) as czi:
        for k, plane in enumerate(planes):
            czi.write(plane[..., None], plane={"C": k})
        czi.write_metadata("cells", channel_names={0: "DAPI", 1: "CK"})
    with open_slide(path) as slide:
        assert slide.info.channels == ("DAPI", "CK")
        assert slide.mpp is None
        np.testing.assert_array_equal(
            slide.read_pixels(0, 0, 0, 90, 120), planes.transpose(1, 2, 0)
        )


def test_damage_and_closing_are_said(tmp_path):
    path = colour_file(tmp_path / "slide.czi", picture(100, 200))
    slide = open_czi(path)
    slide.close()
    slide.close()
    with pytest.raises(ClosedSlideError, match="was closed"):
        slide.read_pixels(0, 0, 0, 5, 5)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(SlideError, match=r"slide\.czi: .*(damaged|cannot open it)"):
        open_slide(path)


REAL = {
    "100x100.czi": ((10, 10), "uint8", ("C1",), 0.1),
    "compressed.czi": ((512, 512), "uint16", ("grey",), None),
    "dapi-gfp.czi": ((640, 640), "uint8", ("channel 1", "channel 2"), None),
    "mosaic.czi": ((624, 1756), "uint16", ("EGFP",), 1.0833),
    "rgb-8bit.czi": ((624, 924), "uint8", ("R", "G", "B"), 1.0833),
    "tiles.czi": ((512, 510), "uint8", ("Ch1", "T PMT"), 0.8303),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(data, name):
    shape, dtype, channels, mpp = REAL[name]
    with open_slide(data / "formats" / name) as slide:
        assert (slide.shape, str(slide.dtype)) == (shape, dtype)
        assert slide.info.channels == channels
        assert (slide.mpp and slide.mpp.mean) == (mpp and pytest.approx(mpp, rel=1e-4))
        ours = slide.levels[0].compute()
    with library.open_czi(str(data / "formats" / name)) as czi:
        theirs = [czi.read(plane={"C": k})[..., ::-1] for k in czi.pixel_types]
    np.testing.assert_array_equal(ours, np.concatenate(theirs, axis=2))
    assert ours.max() > 0


def test_a_real_file_of_several_colour_channels_names_them(data):
    with open_slide(data / "formats" / "rgb-multichannel.czi") as slide:
        assert slide.info.channels[:4] == (
            "Bright red", "Bright green", "Bright blue", "Pol_0 red",
        )  # fmt: skip
        assert len(slide.info.channels) == slide.levels[0].shape[2] == 21
        assert slide.mpp.mean == pytest.approx(2.9585, rel=1e-4)
