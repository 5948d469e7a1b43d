"""The engine: right numbers, resumable, cancellable, honest about damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histodistill.errors import (
    Cancelled,
    ComputeError,
    InputError,
    SlideError,
    StoreError,
)
from napari_histodistill.geometry import Region
from napari_histodistill.maps import (
    EmbeddingStore,
    EmbedOptions,
    class_map,
    embed_slide,
    plan_grid,
)
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import Slide
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.student import DeviceChoice, Student
from tests.fakes import (
    PURPLE,
    ColourBackend,
    array_slide,
    colour_student,
    tissue_image,
)


def run(slide, student, path, **kwargs):
    return list(embed_slide(slide, student, path, **kwargs))


def read(path) -> tuple[np.ndarray, np.ndarray]:
    with EmbeddingStore.open(path) as store:
        return store.read(), store.status


def textured(height=600, width=800, seed=0) -> np.ndarray:
    """An image in which no two tiles are alike."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return np.clip(tissue_image(height, width) - noise, 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def _no_thread_stays():
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.is_alive()]
    assert not [t for t in left if t.name.startswith("histodistill")]


@pytest.mark.parametrize("stride_um", [32, 10, 48])
@pytest.mark.parametrize("mpp", [0.5, 0.37])
def test_each_cell_holds_its_tile(tmp_path, stride_um, mpp):
    slide, student = array_slide(textured(), mpp=mpp), colour_student()
    grid = plan_grid(slide, student, stride_um=stride_um)
    run(slide, student, tmp_path / "s", grid=grid, tissue=None)
    values, status = read(tmp_path / "s")
    np.testing.assert_array_equal(status == 1, grid.tiles_on_slide())
    rows, columns = grid.shape
    cells = [(0, 0), np.argwhere(status)[-1], (rows // 2, columns // 3), (1, 2)]
    for row, column in cells:
        region = grid.tile_region(row, column)
        tile = read_resampled(slide, region, height=32, width=32)
        wish = student.embed(tile[np.newaxis])[0]
        # float16, and a grey level where resampling rounds the other way.
        np.testing.assert_allclose(values[row, column], wish, atol=2e-3)


def test_whole_pixel_tiles_are_exact(tmp_path):
    image = textured(256, 320)
    slide, student = array_slide(image, mpp=1.0), colour_student()
    run(slide, student, tmp_path / "s", tissue=None)
    values, _ = read(tmp_path / "s")
    tiles = image.reshape(8, 32, 10, 32, 3).swapaxes(1, 2).reshape(80, 32, 32, 3)
    wish = student.embed(tiles).reshape(8, 10, 6).astype(np.float16)
    np.testing.assert_array_equal(values, wish)


def test_aligned_tokens_equal_tiles(tmp_path):
    """The fake's tokens are exact means, so pooled tokens are tile means."""
    slide, student = array_slide(textured(400, 480), mpp=1.0), colour_student()
    grid = plan_grid(slide, student, stride_um=16, mode="tokens")
    options = EmbedOptions(block=5)
    run(
        slide,
        student,
        tmp_path / "k",
        grid=grid,
        mode="tokens",
        tissue=None,
        options=options,
    )
    run(slide, student, tmp_path / "t", grid=grid, tissue=None, options=options)
    tokens, tiles = read(tmp_path / "k")[0], read(tmp_path / "t")[0]
    # Squares of means differ from means of squares; means must not differ at all.
    np.testing.assert_allclose(tokens[..., :3], tiles[..., :3], atol=1e-3)


@pytest.mark.parametrize("halo", [0, 3, None])
def test_tokens_by_hand(tmp_path, halo):
    slide, student = array_slide(textured(200, 260), mpp=1.0), colour_student()
    grid = plan_grid(slide, student, stride_um=8, mode="tokens")
    options = EmbedOptions(halo_px=halo)
    run(
        slide,
        student,
        tmp_path / "s",
        grid=grid,
        mode="tokens",
        tissue=None,
        options=options,
    )
    values, status = read(tmp_path / "s")
    assert (status == 1).all()
    # Cell (7, 9): 8 px stride, 32 px tile, so tokens 5.5 … 9.5 and 7.5 … 11.5.
    pixels = textured(200, 260).astype(np.float64) / 255
    weights = np.array([0.5, 1, 1, 1, 0.5]) / 4
    mean = pixels[40:80, 56:96].reshape(5, 8, 5, 8, 3).mean(axis=(1, 3))
    wish = np.einsum("i,j,ijc->c", weights, weights, mean)
    np.testing.assert_allclose(values[7, 9, :3], wish, atol=1e-3)


def test_token_map_does_not_depend_on_what_is_wanted(tmp_path):
    slide, student = array_slide(textured(), mpp=0.7), colour_student()
    grid = plan_grid(slide, student, stride_um=16, mode="tokens")
    some = np.zeros(grid.shape, bool)
    some[3:9, 5:6] = some[20, 30] = True
    run(slide, student, tmp_path / "a", grid=grid, mode="tokens", tissue=None)
    run(slide, student, tmp_path / "b", grid=grid, mode="tokens", tissue=some)
    (all_, _), (part, status) = read(tmp_path / "a"), read(tmp_path / "b")
    np.testing.assert_array_equal(status == 1, some)
    np.testing.assert_array_equal(part[some], all_[some])


def test_reports(tmp_path):
    slide, student = array_slide(), colour_student()
    options = EmbedOptions(block=4, batch_size=5)
    reports = run(slide, student, tmp_path / "s", options=options)
    with EmbeddingStore.open(tmp_path / "s") as store:
        total = int(store.wanted.sum())
        final = np.zeros(store.grid.shape, bool)
        for report in reports:
            if report.block:
                final[report.block] = True
        assert final[store.wanted].all()
    assert reports[0].done == 0
    assert reports[0].total > 0
    assert (reports[-1].done, reports[-1].total) == (total, total)
    done = [r.done for r in reports]
    assert done == sorted(done)
    assert reports[-1].cells_per_s > 0
    assert reports[-1].seconds_left == 0
    assert reports[-1].unreadable == 0


def test_a_reported_block_is_in_the_store(tmp_path):
    seen = 0
    for report in embed_slide(
        array_slide(), colour_student(), tmp_path / "s", options=EmbedOptions(block=4)
    ):
        if report.block:
            with EmbeddingStore.open(tmp_path / "s") as store:
                status = store.status[report.block]
                assert (status[store.wanted[report.block]] == 1).all()
            seen += 1
    assert seen > 3


def test_finished_store_needs_no_work(tmp_path):
    student = colour_student()
    run(array_slide(), student, tmp_path / "s")
    before = len(student.backend.batches)
    reports = run(array_slide(), student, tmp_path / "s")
    assert len(student.backend.batches) == before
    assert reports[-1].done == reports[-1].total
    assert "squares were there" in "".join(r.message for r in reports)


def test_cancel_within_one_batch_and_resume_without_recomputing(tmp_path):
    options = EmbedOptions(block=4, batch_size=2)
    whole = colour_student()
    run(array_slide(textured()), whole, tmp_path / "whole", options=options)

    student, token = colour_student(), CancelToken()

    class Cancelling(type(student.backend)):
        def embed(self, tiles):
            if len(self.batches) == 12:
                token.cancel()
            return super().embed(tiles)

    student.backend = Cancelling()
    slide = array_slide(textured())
    with pytest.raises(Cancelled, match="finished work is kept"):
        run(slide, student, tmp_path / "s", options=options, cancel=token)
    assert len(student.backend.batches) == 13  # the one that was running ended
    _, status = read(tmp_path / "s")
    kept = int((status == 1).sum())
    assert kept > 0

    again = colour_student()
    run(slide, again, tmp_path / "s", options=options)
    total = sum(whole.backend.batches)
    assert sum(again.backend.batches) == total - kept
    assert same_bytes(tmp_path / "whole", tmp_path / "s")


def test_cancelled_before_it_starts(tmp_path):
    token = CancelToken()
    token.cancel()
    student = colour_student()
    with pytest.raises(Cancelled):
        run(array_slide(), student, tmp_path / "s", cancel=token)
    assert student.backend.batches == []


def test_cancel_and_reports_while_a_read_hangs(tmp_path, monkeypatch):
    go, token = threading.Event(), CancelToken()

    def slow(slide, region, *, height, width):
        go.wait(10)
        return np.zeros((height, width, 3), np.uint8)

    monkeypatch.setattr("napari_histodistill.maps.block_reading.read_resampled", slow)
    steps = embed_slide(
        array_slide(), colour_student(), tmp_path / "s", tissue=None, cancel=token
    )
    start = time.perf_counter()
    for _ in range(4):
        next(steps)
    assert time.perf_counter() - start < 2
    token.cancel()
    threading.Timer(0.3, go.set).start()
    with pytest.raises(Cancelled):
        list(steps)


def test_closing_leaves_no_thread_and_no_lock(tmp_path):
    steps = embed_slide(
        array_slide(), colour_student(), tmp_path / "s", options=EmbedOptions(block=2)
    )
    for report in steps:
        if report.block:
            break
    steps.close()
    EmbeddingStore.open(tmp_path / "s", writable=True).close()


def test_two_runs_on_one_store(tmp_path):
    first = embed_slide(array_slide(), colour_student(), tmp_path / "s")
    next(first), next(first)
    with pytest.raises(StoreError, match="another run is writing"):
        run(array_slide(), colour_student(), tmp_path / "s")
    first.close()


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_waits_for_a_verdict_that_is_being_kept(tmp_path, restart):
    """The window judges a map when its run ends, and *Continue* may come right then."""
    run(array_slide(), colour_student(), tmp_path / "s")
    keeping = EmbeddingStore.open(tmp_path / "s", writable=True)
    keeping.keep_verdict("{}\n")
    kept = threading.Timer(0.3, keeping.close)
    kept.start()
    options = EmbedOptions(restart=restart)
    *_, last = run(array_slide(), colour_student(), tmp_path / "s", options=options)
    kept.join()
    assert last.done == last.total


def test_view_first(tmp_path):
    view = Region(y=280, x=520, height=20, width=20)
    asked = []

    def focus():
        asked.append(1)
        return view

    blocks = [
        r.block
        for r in embed_slide(
            array_slide(),
            colour_student(),
            tmp_path / "s",
            tissue=None,
            options=EmbedOptions(block=4),
            focus=focus,
        )
        if r.block
    ]
    assert blocks[0][0].start == 4
    assert blocks[0][1].start == 8
    assert len(asked) >= len(blocks)


def test_a_region_then_the_rest(tmp_path):
    slide, student = array_slide(textured()), colour_student()
    region = Region(y=200, x=200, height=200, width=200)
    small = run(slide, student, tmp_path / "s", region=region)
    assert small[-1].done == small[-1].total < 40
    everything = run(slide, student, tmp_path / "s")
    assert everything[-1].done == everything[-1].total > small[-1].total
    # A finished region stays finished although more was wanted meanwhile.
    assert (
        run(slide, student, tmp_path / "s", region=region)[-1].total == small[-1].total
    )
    run(slide, student, tmp_path / "whole")
    assert same_bytes(tmp_path / "whole", tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"student": {"mpp": 1.25}}, "stride 32 µm"),
        ({"slide": {"mpp": 0.51}}, "at 0.5 µm/px instead of 32 µm at 0.51"),
        ({"digest": "ff"}, "student 'colour' instead of 'colour'"),
        ({"mode": "tokens"}, "tiles instead of tokens"),
        ({"image": textured(seed=3)}, "slide 'array' before its file or its colours"),
    ],
)
def test_store_of_something_else_is_refused(tmp_path, change, words):
    run(array_slide(), colour_student(), tmp_path / "s")
    student = colour_student(**change.get("student", {}))
    student.digest = change.get("digest", student.digest)
    slide = array_slide(change.get("image"), **change.get("slide", {}))
    mode = change.get("mode", "tiles")
    with pytest.raises(StoreError, match=words) as caught:
        run(slide, student, tmp_path / "s", mode=mode)
    assert "--restart" in str(caught.value)
    run(slide, student, tmp_path / "s", mode=mode, options=EmbedOptions(restart=True))


def test_runtime_errors_are_converted(tmp_path):
    student = colour_student()

    def fail(tiles):
        raise RuntimeError("CUDA error: device-side assert")

    student.backend.embed = fail
    with pytest.raises(ComputeError, match="student colour failed on CPU · fake: CUDA"):
        run(array_slide(), student, tmp_path / "s")
    EmbeddingStore.open(tmp_path / "s", writable=True).close()


class LittleMemory(torch.nn.Module):
    """Mean colours for at most three images at once, like a device that is full."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.seen = room, []

    def forward_features(self, x):
        self.seen.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return torch.cat([x, x**2], dim=1)

    def forward_head(self, x, *, pre_logits):
        return x.mean(dim=(2, 3))


def test_a_full_device_halves_the_batch_and_says_so(tmp_path):
    def student_with(room: int) -> Student:
        module = LittleMemory(room)
        colour = colour_student()
        spec = colour.spec
        card = DeviceChoice("cpu", "CUDA:0 · Card", "a test's card")
        backend = TorchBackend(module, card, mean=spec.mean, std=spec.std)
        return Student(spec, backend, head=colour.head, digest=colour.digest)

    full, roomy = student_with(3), student_with(99)
    slide, options = array_slide(textured()), EmbedOptions(batch_size=8)
    reports = run(slide, full, tmp_path / "s", options=options)
    words = [r.message for r in reports if "memory" in r.message]
    assert words == [
        "CUDA:0 · Card ran out of memory; the run goes on with 2 tiles at a time "
        "for now"
    ]
    assert full.backend.module.seen[:3] == [8, 4, 2]
    assert max(full.backend.module.seen[3:]) == 2
    assert reports[-1].done == reports[-1].total > 0
    run(slide, roomy, tmp_path / "w", options=options)
    assert same_bytes(tmp_path / "s", tmp_path / "w")


class Crew(ColourBackend):
    """Takes calls side by side, and finishes the first one last."""

    streams = 3

    def __init__(self) -> None:
        super().__init__()
        self.together, self.most, self.lock = 0, 0, threading.Lock()
        self.full = threading.Event()

    def embed(self, tiles):
        with self.lock:
            first = not self.batches
            self.together += 1
            self.most = max(self.most, self.together)
            if self.together == self.streams:
                self.full.set()
            found = super().embed(tiles)
        self.full.wait(10)
        if first:
            time.sleep(0.05)
        with self.lock:
            self.together -= 1
        return found


def test_streams_work_side_by_side_and_no_block_waits_for_another(tmp_path):
    options = EmbedOptions(block=3, batch_size=9)
    student, alone = colour_student(), colour_student()
    student.backend = Crew()
    slide = array_slide(textured())
    reports = run(slide, student, tmp_path / "s", tissue=None, options=options)
    assert student.backend.most == 3
    corners = [(r.block[0].start, r.block[1].start) for r in reports if r.block]
    assert len(set(corners)) == len(corners)
    assert corners[0] != (0, 0), "the first to be begun is the last of its crew"
    run(slide, alone, tmp_path / "w", tissue=None, options=options)
    assert same_bytes(tmp_path / "s", tmp_path / "w")


def test_what_was_computed_when_asked_to_stop_is_kept(tmp_path):
    token = CancelToken()

    class Stopping(Crew):
        def embed(self, tiles):
            found = super().embed(tiles)
            with self.lock:
                if len(self.batches) >= 6:
                    token.cancel()
            return found

    student = colour_student()
    student.backend = Stopping()
    options = EmbedOptions(block=3, batch_size=9)
    slide = array_slide(textured())
    with pytest.raises(Cancelled):
        run(
            slide,
            student,
            tmp_path / "s",
            tissue=None,
            options=options,
            cancel=token,
        )
    _, status = read(tmp_path / "s")
    kept, computed = int((status == 1).sum()), sum(student.backend.batches)
    # Blocks of one batch: at most those that were running when it was asked are lost.
    assert computed - 9 * Crew.streams <= kept <= computed
    again, whole = colour_student(), colour_student()
    run(slide, again, tmp_path / "s", tissue=None, options=options)
    assert sum(again.backend.batches) == status.size - kept
    run(slide, whole, tmp_path / "w", tissue=None, options=options)
    assert same_bytes(tmp_path / "s", tmp_path / "w")


def test_another_backend_does_not_go_on_with_a_store(tmp_path):
    slide, student = array_slide(), colour_student()
    run(slide, student, tmp_path / "s")
    other = colour_student()
    other.backend.device = replace(other.device, backend="openvino")
    with pytest.raises(StoreError, match="by torch instead of openvino: the device"):
        run(slide, other, tmp_path / "s")
    run(slide, other, tmp_path / "s", options=EmbedOptions(restart=True))
    with EmbeddingStore.open(tmp_path / "s") as store:
        assert store.provenance.backend == "openvino"
    with pytest.raises(StoreError, match="cpu:openvino continues it"):
        run(slide, student, tmp_path / "s")


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
def test_memory_does_not_grow_with_the_slide(tmp_path, mode):
    """Nine times the area: no more than a few bytes per further cell."""

    def peak(side: int) -> tuple[int, int]:
        slide, student = array_slide(textured(side, side), mpp=1.0), colour_student()
        options = EmbedOptions(block=4, halo_px=8)
        tracemalloc.start()
        try:
            path = tmp_path / str(side)
            reports = run(slide, student, path, tissue=None, mode=mode, options=options)
            return tracemalloc.get_traced_memory()[1], reports[-1].total
        finally:
            tracemalloc.stop()

    peak(128)  # first of all: imports and caches must not count
    (small, few), (large, many) = peak(480), peak(1440)
    assert many == 9 * few
    # One byte of every pixel kept would be 1.8 MB more.
    assert large - small < 600_000 + 64 * (many - few)


def test_reading_stays_a_few_blocks_ahead(tmp_path, monkeypatch):
    """Pixels of a block are let go when it is computed, however slow the store is."""
    choice = sys.modules["napari_histodistill.maps.reading.choice"]
    begun, most, true = 0, 0, choice.read_window

    def counted(*args, **how):
        nonlocal begun
        begun += 1
        return true(*args, **how)

    monkeypatch.setattr(choice, "read_window", counted)
    options = EmbedOptions(block=2, readers=2)
    written = 0
    for report in embed_slide(
        array_slide(), colour_student(), tmp_path / "s", tissue=None, options=options
    ):
        if report.block:
            written += 1
            time.sleep(0.002)
            most = max(most, begun - written)
    assert written > 30
    assert 1 <= most <= 3


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="batch_size: 0"):
        EmbedOptions(batch_size=0)
    with pytest.raises(InputError, match="halo_px: -1"):
        EmbedOptions(halo_px=-1)


def test_slides_without_digest_are_refused(tmp_path):
    student = colour_student()
    student.digest = ""
    with pytest.raises(InputError, match="student has no digest"):
        run(array_slide(), student, tmp_path / "s")


def test_enlarging_is_said(tmp_path):
    reports = run(array_slide(mpp=2.0), colour_student(), tmp_path / "s")
    assert "enlarged 2 ×" in "".join(r.message for r in reports)


class Damaged:
    """A source in which one rectangle cannot be read."""

    def __init__(self, source, hole: Region) -> None:
        self._source, self._hole = source, hole
        self.levels = source.levels
        self.gone = False

    def read_level(self, level, rect):
        factor = self.levels[0].height / self.levels[level].height
        y, x, height, width = (side * factor for side in rect)
        region = Region(y=y, x=x, height=height, width=width)
        if self.gone or region.intersection(self._hole):
            raise SlideError("array: tile 7 is corrupt")
        return self._source.read_level(level, rect)

    def close(self):
        self._source.close()


def damaged(image, hole, mpp=0.5):
    slide = array_slide(image, mpp=mpp)
    return Slide(Damaged(slide._source, hole), slide.info)


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
def test_damage_is_marked_and_the_rest_computed(tmp_path, mode):
    hole = Region(y=300, x=400, height=20, width=20)
    slide, student = damaged(textured(), hole), colour_student()
    options = EmbedOptions(block=4, halo_px=8)
    reports = run(
        slide, student, tmp_path / "s", tissue=None, mode=mode, options=options
    )
    values, status = read(tmp_path / "s")
    assert status[4, 6] == 2
    assert reports[-1].unreadable == (status == 2).sum()
    assert 1 <= reports[-1].unreadable <= 12
    assert "tile 7 is corrupt" in reports[-1].message
    assert np.isnan(values[status == 2]).all()
    run(
        array_slide(textured()),
        student,
        tmp_path / "sound",
        tissue=None,
        mode=mode,
        options=options,
    )
    sound, _ = read(tmp_path / "sound")
    np.testing.assert_allclose(values[status == 1], sound[status == 1], atol=4e-3)
    # The next run leaves them alone, unless asked.
    before = len(student.backend.batches)
    run(slide, student, tmp_path / "s", tissue=None, mode=mode, options=options)
    assert len(student.backend.batches) == before


def test_a_repaired_file_is_read_when_asked(tmp_path):
    hole = Region(y=300, x=400, height=20, width=20)
    slide, student = damaged(textured(), hole), colour_student()
    run(slide, student, tmp_path / "s", tissue=None)
    slide._source._hole = Region(y=-9, x=-9, height=1, width=1)
    options = EmbedOptions(retry_unreadable=True)
    reports = run(slide, student, tmp_path / "s", tissue=None, options=options)
    assert reports[-1].unreadable == 0


def test_a_slide_that_is_gone_stops_the_run_and_marks_nothing(tmp_path):
    slide = damaged(textured(), Region(y=-9, x=-9, height=1, width=1))
    steps = embed_slide(
        slide,
        colour_student(),
        tmp_path / "s",
        tissue=None,
        options=EmbedOptions(block=2),
    )
    while next(steps).block is None:
        pass
    slide._source.gone = True
    with pytest.raises(SlideError, match="nothing of it can be read any more"):
        list(steps)
    _, status = read(tmp_path / "s")
    assert not (status == 2).any()
    assert (status == 1).any()


def test_the_square_is_where_the_class_map_says(tmp_path):
    image = np.full((1000, 1300, 3), (230, 150, 190), np.uint8)
    y0, x0, side = 431, 717, 260
    image[y0 : y0 + side, x0 : x0 + side] = PURPLE
    slide, student = array_slide(image, mpp=0.43), colour_student()
    grid = plan_grid(slide, student, stride_um=8)
    run(slide, student, tmp_path / "s", grid=grid, tissue=None)
    found = class_map(tmp_path / "s", student)
    rows, columns = np.nonzero(found.labels == 2)
    height, width = grid.cell_size
    for low, high, cell, start in (
        (rows.min(), rows.max() + 1, height, y0),
        (columns.min(), columns.max() + 1, width, x0),
    ):
        assert abs(low * cell - start) <= cell
        assert abs(high * cell - (start + side)) <= cell


def files(path: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name not in {"writer.lock"} and ".partial" not in p.name
    }


def same_bytes(a: Path, b: Path) -> bool:
    return files(a) == files(b)


_VICTIM = """
import os, sys, signal
sys.path.insert(0, {root!r})
from tests.fakes import array_slide, colour_student
from tests.maps.test_engine import textured
from napari_histodistill.geometry import Region
from napari_histodistill.maps import EmbedOptions, embed_slide
student = colour_student()
n = 0
for report in embed_slide(
    array_slide(textured()), student, sys.argv[1], tissue=None,
    options=EmbedOptions(block=2, batch_size=3),
    focus=lambda: Region(y=400, x=500, height=100, width=100),
):
    n += report.block is not None
    if n == 11:
        print("eleven", flush=True)
        {end}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "pass"])
def test_kill_9_and_resume_give_the_bytes_of_an_uninterrupted_run(tmp_path, end):
    code = _VICTIM.format(root=str(Path(__file__).parents[2]), end=end)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s")], stdout=subprocess.PIPE
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline().strip() == b"eleven"
        if end == "pass":  # at any moment: in the middle of a write, perhaps
            time.sleep(0.02)
            os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    options = EmbedOptions(block=2, batch_size=3)
    resumed, whole = colour_student(), colour_student()
    run(array_slide(textured()), resumed, tmp_path / "s", tissue=None, options=options)
    run(array_slide(textured()), whole, tmp_path / "w", tissue=None, options=options)
    assert sum(resumed.backend.batches) <= sum(whole.backend.batches) - 40
    assert same_bytes(tmp_path / "s", tmp_path / "w")
