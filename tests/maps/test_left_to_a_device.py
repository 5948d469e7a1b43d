"""Where a device resamples, a map is the same, and what it cannot do the CPU does.

torch's CPU device stands in for the other one.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_histodistill.maps import EmbeddingStore, embed_slide, plan_grid
from napari_histodistill.maps.block_reading import PixelWindow, read_window
from napari_histodistill.maps.provenance import Provenance, provenance_of, store_key
from napari_histodistill.slides import open_slide
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.student import DeviceChoice, Student
from tests.fakes import array_slide, colour_student
from tests.maps.test_engine import textured
from tests.slides.pyramid.test_damage import damaged_slide
from tests.students.test_cuda_lanes import MEAN, STD, Small


class Counting(TorchBackend):
    """Lays windows on the CPU, and counts them."""

    def __init__(self, *, resamples: bool) -> None:
        choice = DeviceChoice("cpu", "a device", "a test")
        super().__init__(Small(), choice, mean=MEAN, std=STD)
        self.resamples, self.laid = resamples, []

    def lay(self, window):
        self.laid.append(window)
        return super().lay(window)


def student_of(*, resamples: bool, mpp: float = 1.0, tile_px: int = 16) -> Student:
    spec = colour_student(with_head=False, mpp=mpp, tile_px=tile_px).spec
    spec = spec.model_copy(update={"token_stride_px": 2})
    return Student(spec, Counting(resamples=resamples), digest="c0" * 16)


def embedded(slide, student, path, mode="tiles") -> tuple[np.ndarray, np.ndarray]:
    grid = plan_grid(slide, student, stride_um=12, mode=mode)
    list(embed_slide(slide, student, path, grid=grid, mode=mode, tissue=None))
    with EmbeddingStore.open(path) as store:
        return store.read(), store.status


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
@pytest.mark.parametrize("mpp", [0.5, 0.37, 0.9, 1.7])
def test_the_map_is_the_one_of_the_cpu(tmp_path, mode, mpp):
    slide = array_slide(textured(300, 420), mpp=mpp)
    here, there = student_of(resamples=False), student_of(resamples=True)
    expected = embedded(slide, here, tmp_path / "here", mode)
    found = embedded(slide, there, tmp_path / "there", mode)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not here.backend.laid
    laid = len(there.backend.laid)
    # 0.5 is half of the student's 1.0, which the slide has as a level of its own.
    assert (laid == 0) == (mpp == 0.5)
    kept = []
    for name in ("here", "there"):
        with EmbeddingStore.open(tmp_path / name) as store:
            kept.append(store.provenance.resampled_on)
    assert kept == ["", "cpu" if laid else ""]


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
def test_damaged_blocks_are_the_cpus_and_others_are_not(tmp_path, mode):
    path, _ = damaged_slide(tmp_path, 8)
    here = student_of(resamples=False, mpp=0.7)
    there = student_of(resamples=True, mpp=0.7)
    with open_slide(path) as slide:
        expected = embedded(slide, here, tmp_path / "here", mode)
        found = embedded(slide, there, tmp_path / "there", mode)
    assert there.backend.laid
    assert (expected[1] == 2).any(), "some squares cannot be read"
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_window_too_large_to_wait_in_memory_is_the_cpus(monkeypatch):
    slide = array_slide(textured(300, 420), mpp=0.37)
    grid = plan_grid(slide, student_of(resamples=True))
    window, stop = PixelWindow(-3, 8, 40, 50), threading.Event()
    left = read_window(slide, grid, window, stop, leave=True)
    assert left.left is not None
    assert not left.pixels.size
    limit = "napari_histodistill.maps.block_reading.MOST_LEFT_BYTES"
    monkeypatch.setattr(limit, left.left.pixels.nbytes)
    assert read_window(slide, grid, window, stop, leave=True).left is not None
    monkeypatch.setattr(limit, left.left.pixels.nbytes - 1)
    read = read_window(slide, grid, window, stop, leave=True)
    assert read.left is None
    np.testing.assert_array_equal(read.pixels, left.left.resampled())


def test_where_it_was_resampled_is_kept_and_is_no_part_of_the_key():
    slide = array_slide(textured(300, 420), mpp=0.37)
    here, there = student_of(resamples=False), student_of(resamples=True)
    grid = plan_grid(slide, there)
    one, other = (provenance_of(slide, s, "tiles") for s in (here, there))
    assert (one.resampled_on, other.resampled_on) == ("", "cpu")
    assert store_key(grid, one) == store_key(grid, other)
    assert "resampled_on" not in one.to_json()
    assert Provenance.from_json(other.to_json()) == other
    assert Provenance.from_json(one.to_json()) == one
