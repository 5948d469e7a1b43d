"""Resampling on a device gives the pixels of the CPU; tiles are cut there.

torch's CPU device stands in for another, and an imitated card where order matters.
"""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.errors import ComputeError, DeviceMemoryError
from napari_histodistill.geometry import Region
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.pyramid import filtering
from napari_histodistill.slides.pyramid.resample import LevelWindow, read_level_window
from napari_histodistill.slides.tissue.stain import StainMap
from napari_histodistill.students.backends import cuda, resampling
from napari_histodistill.students.backends.resampling import lay_window
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.student import DeviceChoice
from tests.card import Event, imitated_card
from tests.students.test_cuda_lanes import MEAN, STD, Small

GRAPHS = "HISTODISTILL_CUDA_GRAPHS"


def backend(device: str = "cuda:0", module=None) -> TorchBackend:
    choice = DeviceChoice(device, "a card", "a test")
    return TorchBackend(module or Small(), choice, mean=MEAN, std=STD)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def window(seed: int = 0, edge: int = 100, size: int = 40) -> LevelWindow:
    return LevelWindow(noise(edge, edge, seed), (3.3, 2.6, 96.2, 95.1), size, size)


def laid(one: LevelWindow) -> np.ndarray:
    return lay_window(one, torch.tensor, torch.tensor).pixels.numpy()


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Within one grey value; nearly always it is the same byte."""
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    shrink_y=st.floats(0.25, 8),
    shrink_x=st.floats(0.9, 1.1),
    y=st.floats(-60, 500),
    x=st.floats(-60, 700),
    ratios=st.sampled_from([(1,), (1, 2), (1, 4.003)]),
)
def test_every_window_has_the_pixels_of_the_cpu(
    seed, height, width, shrink_y, shrink_x, y, x, ratios
):
    """Any scale, between pixels, past every border, wide and tall."""
    levels = [noise(int(500 / r), int(700 / r), seed) for r in ratios]
    slide = slide_from_arrays(levels, name="noise")
    region = Region(
        y=y, x=x, height=height * shrink_y, width=width * shrink_y * shrink_x
    )
    one = read_level_window(slide, region, height=height, width=width)
    found = laid(one)
    assert found.shape == (height, width, 3)
    assert_same(found, one.resampled())


@pytest.mark.parametrize("size", [(200, 12), (12, 200)])
@pytest.mark.parametrize("shrink", [0.6, 1.7, 5.5])
def test_the_axis_that_pillow_begins_with_is_the_first_here_too(size, shrink):
    """Rounding between the axes makes a difference of many grey values."""
    height, width = size
    box = (0.4, 0.2, width - 0.3, height - 0.7)
    wanted = [max(1, round(n / shrink)) for n in size]
    one = LevelWindow(noise(height, width), box, *wanted)
    assert_same(laid(one), one.resampled())


def test_a_pillow_that_always_begins_with_the_width_is_met(monkeypatch):
    monkeypatch.setattr(filtering, "_orders_by_shape", lambda: False)
    assert not filtering.is_height_first((200, 12), (20, 10))
    monkeypatch.setattr(filtering, "_orders_by_shape", lambda: True)
    assert filtering.is_height_first((200, 12), (20, 10))
    assert not filtering.is_height_first((20, 200), (10, 20))


def test_bands_leave_no_trace(monkeypatch):
    whole = laid(window())
    monkeypatch.setattr(resampling, "_BAND", 7 * 40 * 3)
    np.testing.assert_array_equal(laid(window()), whole)


def test_tiles_are_cut_where_they_lie():
    one = window()
    expected = one.resampled()
    there = lay_window(one, torch.tensor, torch.tensor)
    corners = np.array([(0, 0), (7, 3), (24, 20), (1, 20), (24, 0)])
    tiles = there.tiles(corners, 16, 20)
    assert tiles.shape == (5, 16, 20, 3)
    some = tiles[np.array([True, False, True, True, False])]
    found = some.cut(torch.from_numpy(some.places))
    for pixels, (y, x) in zip(found.numpy(), corners[[0, 2, 3]], strict=True):
        assert_same(pixels, expected[y : y + 16, x : x + 20])


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (25, 0), (0, 25)])
def test_a_tile_outside_the_window_is_refused(corner):
    there = lay_window(window(), torch.tensor, torch.tensor)
    with pytest.raises(ValueError, match="16 × 16 px reach out of the window"):
        there.tiles(np.array([corner]), 16, 16)


# --- on an imitated card -------------------------------------------------------------


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(cuda, "STAGED_BYTES", 9_000)
    with imitated_card(monkeypatch) as made:
        yield made


@pytest.fixture(params=["eager", "graphs"])
def way(request, monkeypatch) -> str:
    monkeypatch.setenv(GRAPHS, "1" if request.param == "graphs" else "0")
    return request.param


CORNERS = np.array([(y, x) for y in (0, 5, 24) for x in (0, 11, 24)])


def expected_of(one: LevelWindow, corners: np.ndarray) -> np.ndarray:
    pixels = one.resampled()
    tiles = [pixels[y : y + 16, x : x + 16] for y, x in corners]
    return backend("cpu").embed(np.stack(tiles))


def test_two_threads_lay_windows_and_embed_their_tiles(way, card):
    subject = backend()
    assert subject.resamples
    assert not backend("cpu").resamples

    def embedded(seed: int) -> np.ndarray:
        one = window(seed)
        there = subject.lay(one)
        parts = [
            subject.embed(there.tiles(part, 16, 16))
            for part in (CORNERS[:5], CORNERS[5:])
        ]
        return np.concatenate(parts)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(embedded, range(6)))
    for seed, values in enumerate(found):
        np.testing.assert_allclose(
            values, expected_of(window(seed), CORNERS), atol=1e-2
        )
    assert not card.faults
    assert bool(card.recorded) == (way == "graphs")
    if way == "eager":
        assert not card.spins, "a thread that waits for the card takes no core"


@pytest.mark.parametrize(
    ("staged", "pieces", "waits"), [(30_000, 1, 1), (15_000, 2, 1), (6_000, 5, 4)]
)
def test_a_window_goes_up_while_its_next_piece_is_prepared(
    card, monkeypatch, staged, pieces, waits
):
    """A piece waits for the last but one; in the end, once for all of them."""
    plain, waited = Event.synchronize, []

    def noted(event):
        waited.append(event)
        plain(event)

    monkeypatch.setattr(cuda, "STAGED_BYTES", staged)
    monkeypatch.setattr(Event, "synchronize", noted)
    subject, one = backend(), window()
    for _ in range(2):  # in the same lane
        waited.clear()
        before = card.waits.total()
        found = subject.lay(one)
        assert len(waited) == max(0, pieces - 2) + 1 == waits
        assert card.waits.total() == before + waits, "a copy waited for the card"
    assert not card.faults
    assert_same(found.pixels.cpu().numpy(), one.resampled())


def test_a_window_is_finished_before_another_lane_uses_it(card):
    subject = backend()
    there = subject.lay(window())
    idle = subject._lanes._idle
    busy = idle.get()  # the lane that was free last: the one it was laid by
    found = subject.embed(there.tiles(CORNERS, 16, 16))
    idle.put(busy)
    np.testing.assert_allclose(found, expected_of(window(), CORNERS), atol=1e-2)
    assert not card.faults


def test_tokens_of_a_window_are_those_of_its_pixels(way, card):
    one = window()
    subject = backend()
    whole = subject.lay(one).tiles(np.zeros((1, 2), np.int64), 40, 40)
    expected = backend("cpu").tokens(one.resampled()[np.newaxis])
    np.testing.assert_allclose(subject.tokens(whole), expected, atol=3e-2)
    assert not card.faults


def test_a_stain_map_is_applied_to_what_was_resampled(card):
    matrix = ((1.1, 0.0, 0.1), (0.0, 0.9, 0.0), (0.0, 0.1, 1.0))
    stains = StainMap(matrix, (255.0,) * 3, (240.0,) * 3)
    one = window()
    subject = backend().seen_through(stains)
    found = subject.embed(subject.lay(one).tiles(CORNERS, 16, 16))
    pixels = one.resampled()
    tiles = np.stack([pixels[y : y + 16, x : x + 16] for y, x in CORNERS])
    expected = backend("cpu").seen_through(stains).embed(tiles)
    np.testing.assert_allclose(found, expected, atol=3e-2)
    assert not np.allclose(found, backend("cpu").embed(tiles), atol=3e-2)


def test_a_window_goes_when_its_tiles_go(card):
    subject = backend()
    before = sum(card.live().values())
    tiles = subject.lay(window()).tiles(CORNERS, 16, 16)
    assert sum(card.live().values()) == before + 40 * 40 * 3
    subject.embed(tiles)
    del tiles
    gc.collect()
    assert sum(card.live().values()) == before


def test_a_window_that_does_not_fit_is_tried_again_and_refused_in_words(monkeypatch):
    with imitated_card(monkeypatch) as card:
        subject = backend()
        card.memory = sum(card.live().values()) + 20_000
        with pytest.raises(DeviceMemoryError, match="ran out of memory"):
            subject.lay(window())
        assert len(card.left) == 1, "unused memory was freed once"
        card.memory = float("inf")
        tiles = subject.lay(window()).tiles(CORNERS, 16, 16)
        np.testing.assert_allclose(
            subject.embed(tiles), expected_of(window(), CORNERS), atol=1e-2
        )


def test_memory_that_another_lane_held_is_enough_the_second_time(monkeypatch):
    """What graphs hold is freed for a window."""
    monkeypatch.setenv(GRAPHS, "1")
    with imitated_card(monkeypatch) as card:
        subject = backend()
        free = sum(card.live().values())
        subject.embed(noise(16 * 64, 16).reshape(64, 16, 16, 3))
        held = sum(card.live().values())
        assert held > free + 300_000
        card.memory = held + 50_000
        subject.lay(window())
        assert card.left[-1] == free


def test_other_failures_are_words_too(card, monkeypatch):
    def fail(*_):
        msg = "CUDA error: an illegal address"
        raise RuntimeError(msg)

    monkeypatch.setattr(cuda, "lay_window", fail)
    with pytest.raises(ComputeError, match="failed on a card: CUDA error"):
        backend().lay(window())
