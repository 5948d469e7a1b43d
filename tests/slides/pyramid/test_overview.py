"""Generated levels: exact, computed once, only where looked at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.pyramid import overview
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect
from napari_histodistill.slides.pyramid.overview import (
    OverviewSource,
    shrink,
    with_overviews,
)
from tests.slides.factory import picture


class Counting:
    """A source that remembers which rectangles were read."""

    def __init__(self, image):
        self.image = image
        self.levels = (LevelInfo(height=image.shape[0], width=image.shape[1]),)
        self.reads = []

    def read_level(self, level, rect):
        self.reads.append(rect)
        return self.image[rect.y : rect.bottom, rect.x : rect.right]

    def close(self):
        pass


def whole(source, level):
    info = source.levels[level]
    return source.read_level(level, Rect(0, 0, info.height, info.width))


def test_small_images_need_none():
    source = Counting(picture(1024, 700))
    assert with_overviews(source) is source


def test_levels_are_area_means():
    image = picture(2048, 1600)
    source = OverviewSource(Counting(image))
    sizes = [(i.height, i.width) for i in source.levels]
    assert sizes == [(2048, 1600), (1024, 800)]
    means = image.reshape(1024, 2, 800, 2, 3).mean(axis=(1, 3))
    assert np.abs(whole(source, 1) - means).max() <= 0.51


def test_a_generated_level_follows_the_stated_scale_of_the_one_before():
    # Four times coarser than level 0, whose last pixels the format left out.
    source = Counting(picture(1500, 2051))
    source.levels = (LevelInfo(height=1500, width=2051, scale=(4.0, 4.0)),)
    sizes = [(i.height, i.width) for i in OverviewSource(source).levels]
    assert sizes == [(1500, 2051), (750, 1026), (375, 513)]
    scales = [i.scale for i in OverviewSource(source).levels]
    assert scales[1] == pytest.approx((8.0, 4 * 2051 / 1026))
    assert scales[2] == pytest.approx((16.0, 4 * 2051 / 513))


def test_odd_sizes_keep_their_place():
    # A ramp reveals a shift: the area mean of a ramp is the ramp.
    y = (np.arange(2501) + 0.5) / 2501 * 250
    image = np.repeat(np.rint(y).astype(np.uint8)[:, None, None], 3, axis=2)
    image = np.repeat(image, 40, axis=1)
    source = OverviewSource(Counting(image))
    for level in (1, 2):
        rows = source.levels[level].height
        expected = (np.arange(rows) + 0.5) / rows * 250
        # Rounded twice or thrice; one level-0 pixel would be 0.1 in the mean.
        error = whole(source, level)[:, 0, 0] - expected
        assert np.abs(error).max() <= 1.2
        assert abs(error.mean()) < 0.01


def test_squares_join_without_a_seam():
    image = picture(2201, 1877)
    source = OverviewSource(Counting(image))
    at_once = whole(source, 1)
    piecewise = OverviewSource(Counting(image))
    for y in range(1000, -1, -100):
        piecewise.read_level(1, Rect(y, 7, 50, 900))
    np.testing.assert_array_equal(whole(piecewise, 1), at_once)


def test_only_what_is_looked_at_is_computed_and_only_once():
    counting = Counting(picture(2200, 2200))
    source = OverviewSource(counting)
    source.read_level(1, Rect(600, 600, 100, 100))
    assert counting.reads == [(1024, 1024, 1024, 1024)]
    source.read_level(1, Rect(700, 700, 300, 300))
    assert len(counting.reads) == 1


def test_many_threads_compute_each_square_once():
    image = picture(2200, 2200)
    counting = Counting(image)
    source = OverviewSource(counting)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: whole(source, 2), range(32)))
    assert len(counting.reads) == len(set(counting.reads)) == 9
    for result in results:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16"])
def test_every_type_and_number_of_channels(dtype):
    image = (picture(1300, 64, 5).astype(np.int32) * 3).astype(dtype)
    with slide_from_arrays(image, name="five") as slide:
        assert slide.dtype == dtype
        assert len(slide.level_infos) == 2
        small = slide.read_pixels(1, 0, 0, 650, 32)
        means = image.astype(float).reshape(650, 2, 32, 2, 5).mean(axis=(1, 3))
        assert np.abs(small - means).max() <= 0.51


def test_large_levels_go_to_a_temporary_file(monkeypatch):
    monkeypatch.setattr(overview, "IN_MEMORY_BYTES", 1000)
    image = picture(2200, 1500)
    on_disk = whole(OverviewSource(Counting(image)), 1)
    monkeypatch.undo()
    np.testing.assert_array_equal(on_disk, whole(OverviewSource(Counting(image)), 1))
    assert type(on_disk) is np.ndarray


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_whole_steps_take_the_short_way_to_the_same_means(step):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8)
    height, width = 48 // step, 60 // step
    exact = pixels.reshape(height, step, width, step, 3).mean((1, 3))
    short = shrink(pixels, (0, 0, 60, 48), height, width)
    np.testing.assert_array_equal(short, np.rint(exact))
