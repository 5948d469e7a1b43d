"""Tissue is found, glass is not, and a mask meets a grid exactly."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.slides import TileGrid, open_slide, slide_from_arrays
from napari_histodistill.slides.tissue import tissue as tissue_module
from napari_histodistill.slides.tissue.tissue import TissueMask, find_tissue
from tests.fakes import array_slide, tissue_image


def glass(rng, height=500, width=700, colour=(243, 241, 244), noise=2.0):
    image = np.full((height, width, 3), colour, float)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def stain(rng, height, width, colour=(205, 150, 190), spread=18.0):
    """Return uneven stain: blobs of a few pixels around a colour."""
    coarse = rng.normal(0, spread, (height // 4 + 1, width // 4 + 1, 1))
    uneven = np.repeat(np.repeat(coarse, 4, 0), 4, 1)[:height, :width]
    return np.clip(np.array(colour) + uneven, 0, 255).astype(np.uint8)


def slide_of(image, mpp=4.0):
    known = None if mpp is None else Mpp(mpp, mpp, "test")
    return slide_from_arrays(image, name="tissue", mpp=known)


@pytest.mark.parametrize("mpp", [None, 0.5, 4.0])
def test_a_piece_of_tissue_on_glass(rng, mpp):
    image = glass(rng)
    image[100:300, 200:500] = stain(rng, 200, 300)
    mask = find_tissue(slide_of(image, mpp)).mask
    truth = np.zeros(mask.shape, bool)
    truth[100:300, 200:500] = True
    overlap = (mask & truth).sum() / (mask | truth).sum()
    assert overlap > 0.8
    assert mask[truth].mean() > 0.98


@pytest.mark.parametrize(
    "colour", [(255, 255, 255), (243, 241, 244), (225, 226, 220), (236, 230, 218)]
)
@pytest.mark.parametrize("noise", [0.0, 2.0, 5.0])
def test_no_tissue_is_invented_on_blank_glass(rng, colour, noise):
    image = glass(rng, colour=colour, noise=noise)
    # Uneven light: one corner is four percent darker.
    shade = np.linspace(1, 0.96, image.shape[1])[None, :, None]
    assert find_tissue(slide_of((image * shade).astype(np.uint8))).fraction == 0


@pytest.mark.parametrize(
    "colour", [(205, 150, 190), (120, 80, 150), (160, 110, 70), (232, 205, 222)]
)
def test_an_image_full_of_tissue_is_all_tissue(rng, colour):
    # Haematoxylin, eosin, DAB and the palest stroma, without any glass in view.
    found = find_tissue(slide_of(stain(rng, 400, 500, colour), mpp=0.5))
    assert found.fraction > 0.99


def test_the_ihc_sample_is_tissue():
    from skimage.data import immunohistochemistry

    slide = slide_of(immunohistochemistry(), mpp=0.5)
    found = find_tissue(slide)
    grid = TileGrid.over(slide.shape, slide.mpp, mpp=1, tile_px=224, stride_px=16)
    assert found.fraction > 0.9
    assert found.cells(grid).all()


def test_dust_goes_and_lumina_are_filled(rng):
    image = glass(rng)
    image[100:400, 150:550] = stain(rng, 300, 400)
    image[200:206, 300:306] = (245, 245, 245)  # a lumen of 24 µm
    image[20:24, 20:24] = (60, 60, 60)  # dust of 16 µm
    image[180:330, 400:530] = (244, 243, 245)  # a large hole stays open
    mask = find_tissue(slide_of(image)).mask
    assert mask[200:206, 300:306].all()
    assert not mask[:60, :60].any()
    assert not mask[210:300, 430:500].any()


def test_black_that_was_not_scanned_is_no_tissue(rng):
    image = glass(rng)
    image[100:300, 200:500] = stain(rng, 200, 300)
    image[:, 600:] = 0
    mask = find_tissue(slide_of(image)).mask
    assert not mask[:, 620:].any()
    assert mask[120:280, 220:480].all()


def test_fluorescence_is_what_is_brighter_than_its_background(rng):
    image = rng.poisson(20, (300, 400, 4)).astype(np.uint16)
    image[50:200, 100:300] += rng.poisson(300, (150, 200, 4)).astype(np.uint16)
    mask = find_tissue(slide_of(image)).mask
    assert mask[60:190, 110:290].all()
    assert mask.mean() < 0.35
    flat = np.full((100, 100, 4), 7, np.uint16)
    assert find_tissue(slide_of(flat)).fraction == 1


def test_a_grey_image_is_all_tissue(rng):
    image = rng.integers(0, 255, (100, 100), dtype=np.uint8)
    assert find_tissue(slide_of(image)).fraction == 1


@pytest.mark.parametrize(
    ("mpp", "by_default"),
    [(None, 600), (1.0, 600), (0.5, 300), (0.25, 150), (0.1, 150)],
)
def test_the_finest_level_under_the_limit_is_looked_at(mpp, by_default):
    """But none finer than is needed, if the slide has a coarser one."""
    slide = array_slide(tissue_image(600, 800), levels=3, mpp=mpp)
    assert find_tissue(slide).mask.shape[0] == by_default
    assert find_tissue(slide, max_side_px=500).mask.shape[0] == min(by_default, 300)
    assert find_tissue(slide, max_side_px=10).mask.shape == (150, 200)


def test_a_one_pixel_slide_has_a_mask():
    slide = slide_of(np.full((1, 1, 3), 250, np.uint8))
    assert find_tissue(slide).mask.shape == (1, 1)


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0.2, 3.0),
    st.integers(4, 60),
    st.integers(0, 2**32 - 1),
)
def test_cell_fractions_are_exact(height, width, mpp, stride, seed):
    # Mask pixels of 7.3 × 5.1 slide pixels against cells of any size: count sub-pixels.
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    shape = (round(height * 7.3) or 1, round(width * 5.1) or 1)
    grid = TileGrid.over(
        shape, Mpp(1, 1, "t"), mpp=mpp, tile_px=stride, stride_px=stride
    )
    fractions = TissueMask(mask, shape).cell_fractions(grid)
    assert fractions.shape == grid.shape
    slide = Region(y=0, x=0, height=shape[0], width=shape[1])
    py, px = shape[0] / height, shape[1] / width
    for row, column in {(0, 0), (grid.shape[0] - 1, grid.shape[1] - 1)}:
        cell = grid.cell_region(row, column).intersection(slide)
        assert cell is not None
        covered = 0.0
        for i, j in zip(*np.nonzero(mask), strict=True):
            pixel = Region(y=i * py, x=j * px, height=py, width=px)
            common = cell.intersection(pixel)
            covered += common.height * common.width if common else 0
        expected = covered / (cell.height * cell.width)
        assert fractions[row, column] == pytest.approx(expected, abs=1e-6)


def test_wanted_cells_need_a_part_of_tissue():
    mask = np.zeros((10, 10), bool)
    mask[0, :2] = True  # 2 of the 25 mask pixels of the first cell
    mask[5:, 5:] = True
    tissue = TissueMask(mask, (100, 100))
    grid = TileGrid.over((100, 100), Mpp(1, 1, "t"), mpp=1, tile_px=50, stride_px=50)
    assert tissue.cell_fractions(grid).tolist() == [[0.08, 0], [0, 1]]
    assert tissue.cells(grid).tolist() == [[False, False], [False, True]]
    assert tissue.cells(grid, min_fraction=0).tolist() == [[True, False], [False, True]]
    assert tissue.cells(grid, min_fraction=1).tolist() == [
        [False, False],
        [False, True],
    ]


def test_a_mask_lies_on_its_slide_in_the_world():
    tissue = TissueMask(np.ones((100, 200), bool), (1000, 2100))
    world = tissue.world(Mpp(0.5, 0.5, "t"))
    assert world.scale == pytest.approx((5, 5.25))
    assert world.translate == pytest.approx((2.25, 2.375))
    assert tissue.world(None).scale == pytest.approx((10, 10.5))


def test_an_edited_layer_becomes_a_mask_that_cannot_be_changed():
    edited = np.array([[0, 2], [1, 0]], np.uint8)
    tissue = TissueMask.from_array(edited, (20, 20))
    edited[:] = 0
    assert tissue.mask.tolist() == [[False, True], [True, False]]
    with pytest.raises(ValueError, match="read-only"):
        tissue.mask[0, 0] = True
    with pytest.raises(InputError, match=r"is \(height, width\), not \(2,\)"):
        TissueMask.from_array(np.zeros(2), (20, 20))


def test_a_grid_of_another_slide_is_refused():
    tissue = TissueMask(np.ones((10, 10), bool), (100, 100))
    grid = TileGrid.over((100, 99), Mpp(1, 1, "t"), mpp=1, tile_px=50, stride_px=50)
    with pytest.raises(InputError, match=r"for a slide of \(100, 100\) px, not"):
        tissue.cells(grid)


def test_a_gigapixel_grid_is_looked_up_in_little_memory():
    """Ten million cells: at once, fractions and their making took half a gigabyte."""
    side = 100_000
    mask = np.zeros((2048, 2048), bool)
    mask[300:1500, 200:1900] = True
    tissue = TissueMask(mask, (side, side))
    quarter = Mpp(0.25, 0.25, "t")
    grid = TileGrid.over((side, side), quarter, mpp=0.25, tile_px=224, stride_px=32)
    assert grid.shape == (3125, 3125)
    tracemalloc.start()
    cells = tissue.cells(grid)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024**2
    assert cells.mean() == pytest.approx(mask.mean(), abs=1e-3)


def test_strips_join_without_a_seam(monkeypatch, rng):
    tissue = TissueMask(rng.random((61, 83)) > 0.4, (1000, 1300))
    grid = TileGrid.over((1000, 1300), Mpp(1, 1, "t"), mpp=1, tile_px=7, stride_px=7)
    at_once = tissue.cell_fractions(grid)
    monkeypatch.setattr(tissue_module, "STRIP_CELLS", 400)
    np.testing.assert_array_equal(tissue.cell_fractions(grid), at_once)


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "low", "high"),
    [
        ("cmu-1-small-region.svs", 0.35, 0.5),
        ("tcga-cr-7395-01a-01-ts1.svs", 0.58, 0.7),
        ("kidney-48-5.tif", 0.002, 0.01),
        ("small_vectra.qptiff", 0.2, 0.8),
    ],
)
def test_real_slides_have_the_tissue_that_one_sees(data, file, low, high):
    with open_slide(data / "slides" / file) as slide:
        assert low < find_tissue(slide).fraction < high
