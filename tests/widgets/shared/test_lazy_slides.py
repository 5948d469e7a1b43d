"""A colour slide in napari is lazy dask arrays, however it was opened."""

from __future__ import annotations

import copy

import dask.array as da
import numpy as np
import pytest
from napari.layers import Layer
from napari.settings import get_settings
from napari.utils import resize_dask_cache

from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.layers.reader import get_reader
from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.slides import open_slide, slide_from_arrays
from napari_histodistill.slides.pyramid.level_array import MOST_BLOCKS
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import tissue_image
from tests.widgets.conftest import wait_until

pytestmark = pytest.mark.gui

SIDE, DOWN = 40_000, (1, 8, 64)


class Painted:
    """A level whose colours say where one is; it counts what is read of it."""

    def __init__(self, down: int) -> None:
        self.shape = (SIDE // down, SIDE // down, 3)
        self.dtype = np.dtype(np.uint8)
        self.down, self.pixels_read = down, 0

    def __getitem__(self, key):
        rows, columns = (
            np.arange(n)[k] for n, k in zip(self.shape, key[:2], strict=False)
        )
        self.pixels_read += rows.size * columns.size
        out = np.empty((rows.size, columns.size, 3), np.uint8)
        out[..., 0] = (rows * self.down // 200)[:, None]
        out[..., 1] = (columns * self.down // 200)[None, :]
        out[..., 2] = 77
        return out


def colour_at(y, x):
    return [y // 200, x // 200, 77]


@pytest.fixture
def path(tmp_path):
    return write_pyramid(
        tmp_path / "a.tif", tissue_image(1200, 1600), mpp=0.5, compression="zlib"
    )


def by_the_reader(path, _explore, _qtbot):
    (made,) = get_reader(str(path))(str(path))
    return Layer.create(*made)


def by_the_panel(path, explore, qtbot):
    viewer, widget = explore()
    widget.choosing.open_path(path)
    wait_until(qtbot, lambda: len(viewer.layers) > 0 and not widget.bench.pump.busy)
    slide = widget.session.slide
    assert all(isinstance(level, da.Array) for level in slide.levels)
    return widget.bench.slide_layer


def from_a_script(path, _explore, _qtbot):
    return Layer.create(*slide_layer(open_slide(path)))


@pytest.mark.parametrize("opened", [by_the_reader, by_the_panel, from_a_script])
def test_other_plugins_compute_with_it(path, explore, qtbot, opened):
    layer = opened(path, explore, qtbot)
    slide = slide_of(layer.metadata)
    assert len(layer.data) > 1
    for k, level in enumerate(layer.data):
        assert isinstance(level, da.Array), "napari, dask-image and others look for it"
        assert level.npartitions <= MOST_BLOCKS
        height, width = slide.level_infos[k].height, slide.level_infos[k].width
        region = Region(y=0, x=0, height=height, width=width)
        assert np.array_equal(level.compute(), slide.read(region, k))
    part = layer.data[0][300:420, 500:640]
    inside = slide.read(Region(y=300, x=500, height=120, width=140))
    assert np.array_equal(part.compute(), inside)
    assert float(part.mean().compute()) == pytest.approx(inside.mean())
    grey = (layer.data[0] @ np.array([0.3, 0.6, 0.1]))[300:420, 500:640]
    assert np.allclose(grey.compute(), inside @ np.array([0.3, 0.6, 0.1]))


def test_napari_duplicates_it(path):
    layer = from_a_script(path, None, None)
    data, state, kind = layer.as_layer_data_tuple()
    twin = Layer.create(copy.deepcopy(data), state, kind)
    assert np.array_equal(twin.data[-1].compute(), layer.data[-1].compute())


@pytest.fixture(params=[False, True], ids=["at once", "asynchronously"])
def asynchronous(request):
    experimental = get_settings().experimental
    before = experimental.async_
    experimental.async_ = request.param
    yield request.param
    experimental.async_ = before


def test_panning_and_zooming_show_what_is_there(open_viewer, qtbot, asynchronous):
    viewer = open_viewer()
    levels = [Painted(down) for down in DOWN]
    mpp = Mpp(0.25, 0.25, "a test")
    slide = slide_from_arrays(levels, name="wide", mpp=mpp, digest="d")
    kept = resize_dask_cache().cache.total_bytes
    data, kwargs, _ = slide_layer(slide)
    layer = viewer.add_image(data, **kwargs)
    camera = viewer.scene.camera

    def settled():
        return layer.loaded and not viewer._layer_slicer._layers_to_task

    def shown_at(y, x, zoom):
        """Move; return level and value under the middle, and the canvas's colour."""
        camera.center = y * 0.25, x * 0.25
        camera.zoom = zoom / 0.25
        qtbot.wait(30)
        wait_until(qtbot, settled)
        level, value = layer.get_value((y * 0.25, x * 0.25), world=True)
        picture = viewer.screenshot(canvas_only=True, flash=False)
        middle = picture[picture.shape[0] // 2, picture.shape[1] // 2, :3]
        return level, value, middle

    wait_until(qtbot, settled)
    assert layer.thumbnail[..., :3].any()
    assert tuple(layer.contrast_limits) == (0, 255)
    assert levels[0].pixels_read <= 49, "opening reads a pixel of it, to learn its type"
    seen = set()
    for zoom in (1.0, 1 / 24, 1 / 100):
        for step in range(4):
            y, x = 9_100 + 3_000 * step, 30_900 - 4_000 * step
            level, value, middle = shown_at(y, x, zoom)
            seen.add(level)
            near = max(1, DOWN[level] // 32)
            assert np.abs(np.subtract(value, colour_at(y, x), dtype=int)).max() <= near
            assert np.abs(np.subtract(middle, value, dtype=int)).max() <= 1
    assert seen == {0, 1, 2}
    views = 4 * 4 * 1024**2  # at most four chunks of each view
    assert 0 < levels[0].pixels_read <= views
    assert resize_dask_cache().cache.total_bytes == kept, "our reader has its own"
