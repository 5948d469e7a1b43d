"""The levels of a slide are dask arrays that read no more than is asked for."""

from __future__ import annotations

import gc
import pickle
import weakref

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.errors import SlideError
from napari_histodistill.geometry import Region
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.pyramid.damage import StripedSource
from napari_histodistill.slides.pyramid.level_array import (
    MOST_BLOCKS,
    LevelArray,
    chunk_shape,
)
from napari_histodistill.slides.pyramid.levels import LevelInfo

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
SLIDE = slide_from_arrays([PIXELS], name="small")
LEVEL = LevelArray(StripedSource(SLIDE.source, PIXELS[:1, :1]), 0)

keys = st.one_of(
    st.slices(37), st.integers(-37, 36), st.just(Ellipsis), st.just(slice(None))
)


@given(
    first=keys, second=st.one_of(st.slices(53), st.integers(-53, 52)), band=st.slices(3)
)
def test_it_is_sliced_like_numpy(first, second, band):
    key = (first, second, band)
    if first is Ellipsis:
        key = (Ellipsis, slice(None), band)
    found = LEVEL[key]
    assert np.array_equal(found, PIXELS[key])
    assert found.dtype == np.uint8
    if not isinstance(first, type(Ellipsis)):
        assert np.array_equal(LEVEL[first], PIXELS[first])


@pytest.mark.parametrize("key", [37, -38, (0, 53), (0, 0, 0, 0), 1.5, "a"])
def test_what_numpy_refuses_is_refused(key):
    with pytest.raises((IndexError, TypeError)):
        LEVEL[key]


def big_slide(height=1300, width=2100):
    rng = np.random.default_rng(1)
    return slide_from_arrays(
        [rng.integers(0, 256, (height, width, 3), np.uint8)], name="big", digest="d"
    )


@pytest.mark.parametrize(
    "key",
    [
        (slice(500, 530), slice(1020, 1050)),
        (slice(None, None, 7), slice(2000, 5, -3)),
        700,
        (Ellipsis, 1),
        (slice(3, 900), [5, 2000, 1024]),
        ([1, 1299, 0],),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_what_dask_computes_is_what_the_slide_reads(key, fused):
    slide = big_slide()
    whole = slide.read(Region(y=0, x=0, height=1300, width=2100))
    level = slide.levels[0]
    assert type(level) is da.Array
    # napari turns fusing off where it slices in a thread of its own.
    with dask.config.set({"optimization.fuse.active": fused}):
        assert np.array_equal(level[key].compute(), whole[key])
        assert int(level[key].astype(int).sum().compute()) == int(
            whole[key].astype(int).sum()
        )


def test_chunks_are_whole_tiles_and_about_as_large_as_a_view_needs():
    info = LevelInfo(height=20_000, width=9_000, tile_height=240, tile_width=256)
    assert chunk_shape(info) == (480, 512)
    strips = LevelInfo(height=300, width=5_000, tile_height=8, tile_width=5_000)
    assert chunk_shape(strips) == (300, 512)


@pytest.mark.parametrize("side", [100_000, 200_000, 1_000_000])
@pytest.mark.parametrize("tile", [(256, 256), (240, 240), (4096, 4096), (1, 200_000)])
def test_blocks_are_bounded_whatever_the_size(side, tile):
    info = LevelInfo(
        height=side, width=side, tile_height=tile[0], tile_width=min(side, tile[1])
    )
    height, width = chunk_shape(info)
    blocks = -(-side // height) * -(-side // width)
    assert MOST_BLOCKS / 5 < blocks <= MOST_BLOCKS
    if side <= 200_000:
        assert max(height, width) <= 4096, "a viewer reads whole chunks"


def test_a_slide_of_200_000_pixels_has_few_blocks_at_every_level():
    blank = da.zeros((200_000, 200_000, 3), dtype=np.uint8, chunks=(4096, 4096, 3))
    pyramid = [blank, blank[::4, ::4], blank[::16, ::16]]
    slide = slide_from_arrays(pyramid, name="huge", digest="d")
    assert slide.levels[0].shape == (200_000, 200_000, 3)
    assert all(level.npartitions <= MOST_BLOCKS for level in slide.levels)


def test_two_openings_share_no_name():
    """Else dask's cache would answer for the one with pixels of the other."""
    names = {big_slide().levels[0].name for _ in range(3)}
    assert len(names) == 3


def test_arrays_keep_the_files_open_but_not_the_slide():
    gc.collect()
    gc.disable()
    try:
        slide = big_slide()
        level, source = slide.levels[0], weakref.ref(slide.source)
        gone = weakref.ref(slide)
        before = slide.read_pixels(0, 600, 600, 9, 9)
        del slide
        assert gone() is None, "a circle would keep it until the collector runs"
        assert np.array_equal(level[600:609, 600:609].compute(), before)
        del level
        assert source() is None
    finally:
        gc.enable()


def test_a_closed_slide_is_said_to_be_closed():
    slide = big_slide()
    slide.close()
    with pytest.raises(SlideError, match="big: the slide was closed"):
        slide.levels[0][:5, :5].compute()


def test_another_process_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="cannot go to another process; compute with"):
        pickle.dumps(big_slide().levels[0])
