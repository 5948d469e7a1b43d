"""A level that is sliced gives what numpy would give, and reads no more than that."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.slides import slide_from_arrays

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
LEVEL = slide_from_arrays([PIXELS], name="small").views[0]

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


def test_it_is_an_array_to_numpy_and_to_napari():
    assert np.array_equal(np.asarray(LEVEL), PIXELS)
    assert np.asarray(LEVEL, float).dtype == float
    assert (LEVEL.shape, LEVEL.ndim, LEVEL.size) == (PIXELS.shape, 3, PIXELS.size)
    assert len(LEVEL) == 37
    assert len(LEVEL.chunks) == 3


@pytest.mark.parametrize("key", [37, -38, (0, 53), (0, 0, 0, 0), 1.5, "a"])
def test_what_numpy_refuses_is_refused(key):
    with pytest.raises((IndexError, TypeError)):
        LEVEL[key]


def test_chunks_follow_the_tiles_of_the_file_whatever_the_size():
    big = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (5000, 9000, 3))
    height, width, channels = slide_from_arrays([big], name="big").views[0].chunks
    assert 256 <= height <= 1024
    assert 256 <= width <= 1024
    assert channels == 3
