"""Written pyramids can be read, here and by other programs."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import InputError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.slides.factory import picture


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
@pytest.mark.parametrize("samples", [1, 3])
def test_round_trip(tmp_path, compression, samples):
    image = picture(700, 1001, samples)
    image = image if samples == 3 else image[..., 0]
    path = write_pyramid(
        tmp_path / "new/slide.ome.tif",
        image,
        mpp=0.325,
        name="A slide",
        tile_px=128,
        compression=compression,
        note="made by a test",
    )
    assert [p.name for p in path.parent.iterdir()] == ["slide.ome.tif"]
    with open_slide(path) as slide:
        assert slide.info.vendor == "OME-TIFF"
        assert slide.mpp.mean == pytest.approx(0.325)
        assert slide.info.is_rgb == (samples == 3)
        sizes = [(i.height, i.width) for i in slide.level_infos]
        assert sizes == [(700, 1001), (350, 500), (175, 250)]
        pixels = slide.read_pixels(0, 0, 0, 700, 1001).squeeze()
        difference = np.abs(pixels - image.astype(int))
        # JPEG of quality 92 without chroma subsampling.
        assert difference.max() <= (0 if compression == "zlib" else 30)
        assert difference.mean() <= (0 if compression == "zlib" else 3)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert "made by a test" in tif.ome_metadata
        assert "A slide" in tif.ome_metadata
        assert tif.pages[0].tile == (128, 128)


def test_openslide_reads_it(tmp_path):
    openslide = pytest.importorskip("openslide", reason="extra [openslide]")
    path = write_pyramid(
        tmp_path / "s.ome.tif", picture(600, 700), mpp=0.5, compression="zlib"
    )
    with openslide.OpenSlide(path) as theirs:
        pixels = np.asarray(theirs.read_region((0, 0), 0, (700, 600)))[..., :3]
    np.testing.assert_array_equal(pixels, picture(600, 700))


def test_an_existing_file_is_replaced_whole(tmp_path):
    path = tmp_path / "s.ome.tif"
    write_pyramid(path, picture(100, 100), mpp=1)
    write_pyramid(path, picture(50, 60), mpp=1)
    with open_slide(path) as slide:
        assert slide.shape == (50, 60)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((9, 9, 4), np.uint8), {}, r"takes \(height, width, 3\) uint8"),
        (np.zeros((9, 9)), {}, r"not \(9, 9\) float64"),
        (np.zeros((9, 9), np.uint16), {}, "JPEG holds 8 bits"),
        (np.zeros((9, 9), np.uint8), {"mpp": 0}, "mpp must be a positive"),
        (np.zeros((9, 9), np.uint8), {"tile_px": 100}, "multiple of 16 px, got 100"),
    ],
)
def test_what_cannot_be_written(tmp_path, image, options, message):
    with pytest.raises(InputError, match=message):
        write_pyramid(tmp_path / "s.tif", image, **({"mpp": 1} | options))
    assert list(tmp_path.iterdir()) == []
