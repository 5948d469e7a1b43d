"""Inference on a real CUDA card: what the imitated one cannot prove."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch

from napari_histodistill.maps.reading.choice import why_not_processes
from napari_histodistill.slides.pyramid.resample import LevelWindow
from napari_histodistill.slides.tissue.stain import StainMap
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.device import choose_device
from napari_histodistill.students.spec import StudentSpec, WeightsSpec
from napari_histodistill.students.student import DeviceChoice, Student

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch sees no CUDA card here"
    ),
]

GRAPHS = "HISTODISTILL_CUDA_GRAPHS"
CARD = "cuda:0"
EDGE = 96


def backend(device: str = CARD, precision: str = "float32") -> TorchBackend:
    torch.manual_seed(0)
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    choice = DeviceChoice(device, device, "a test", precision)
    return TorchBackend(module, choice, mean=(0.5,) * 3, std=(0.25,) * 3)


def student_at(mpp: float) -> Student:
    made = backend(precision="float16")
    spec = StudentSpec(
        name="measured",
        title="A student with fixed weights",
        backbone="tf_efficientnet_lite0",
        tile_px=EDGE,
        mpp=mpp,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        embedding_dim=made.embed(tiles(1)).shape[1],
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
    )
    return Student(spec, made, digest="ab" * 16)


def tiles(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, EDGE, EDGE, 3), dtype=np.uint8)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / lengths


@pytest.fixture(params=["eager", "graphs"])
def way(request, monkeypatch) -> str:
    monkeypatch.setenv(GRAPHS, "1" if request.param == "graphs" else "0")
    return request.param


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_embeddings_are_those_of_the_cpu(way, precision):
    exact = backend("cpu").embed(tiles(40))
    found = backend(precision=precision).embed(tiles(40))
    assert cosines(found, exact).min() > 0.999


def test_two_lanes_compute_what_one_does(way):
    """In graphs mode both record at the same time at first."""
    sizes = np.random.default_rng(0).integers(1, 257, 60).tolist()
    subject = backend(precision="float16")
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(subject.embed, map(tiles, sizes)))
    assert not subject.take_note()
    alone = backend(precision="float16")
    for size, embeddings in zip(sizes, found, strict=True):
        assert cosines(embeddings, alone.embed(tiles(size))).min() > 0.9999


@pytest.mark.parametrize("shrink", [0.7, 1.25, 2.0, 3.9, 8.0])
@pytest.mark.parametrize("size", [(384, 384), (384, 96), (96, 384)])
def test_a_window_is_resampled_to_the_pixels_of_the_cpu(shrink, size):
    stored = [round(n * shrink) + 30 for n in size]
    pixels = np.random.default_rng(0).integers(0, 256, (*stored, 3), dtype=np.uint8)
    box = (12.3, 11.6, 12.3 + size[1] * shrink, 11.6 + size[0] * shrink)
    window = LevelWindow(pixels, box, *size)
    found = backend().lay(window).pixels.cpu().numpy()
    assert np.abs(found.astype(int) - window.resampled()).max() <= 1


def test_both_lanes_embed_tiles_of_windows_on_the_card(way):
    subject, exact = backend(precision="float16"), backend("cpu")
    corners = np.argwhere(np.ones((4, 4))) * EDGE
    box = (3.4, 3.4, 3.4 + 1.9 * 4 * EDGE, 3.4 + 1.9 * 4 * EDGE)

    def window(seed: int) -> LevelWindow:
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (740, 740, 3), dtype=np.uint8)
        return LevelWindow(pixels, box, 4 * EDGE, 4 * EDGE)

    def embedded(seed: int) -> np.ndarray:
        return subject.embed(subject.lay(window(seed)).tiles(corners, EDGE, EDGE))

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(embedded, range(12)))
    for seed in (0, 5, 11):
        pixels = window(seed).resampled()
        cut = np.stack([pixels[y : y + EDGE, x : x + EDGE] for y, x in corners])
        assert cosines(found[seed], exact.embed(cut)).min() > 0.999


@pytest.mark.parametrize("reading", ["processes", "auto"])
def test_a_slide_that_processes_read_has_the_map_that_threads_give(tmp_path, reading):
    from napari_histodistill.maps import EmbeddingStore, EmbedOptions, embed_slide
    from napari_histodistill.slides import open_slide
    from napari_histodistill.slides.tissue.writing import write_pyramid

    if reading == "auto" and (why := why_not_processes(8)):
        pytest.skip(f"processes are not tried here: {why}")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    path = write_pyramid(tmp_path / "noise.ome.tif", pixels, mpp=0.4)
    kept = {}
    for how in ("threads", reading):
        student, said = student_at(0.7), []
        options = EmbedOptions(block=2, readers=8, reading=how)
        with open_slide(path) as slide:
            steps = embed_slide(
                slide, student, tmp_path / how, tissue=None, options=options
            )
            for last in steps:
                said += [last.message] if "read by" in last.message else []
                # A card would be done before the processes have started.
                time.sleep(0.1 if how == "auto" and not said else 0)
        with EmbeddingStore.open(tmp_path / how) as store:
            assert store.provenance.resampled_on == "cuda"
            kept[how] = store.read().reshape(-1, store.dim).astype(np.float32)
        assert last.done == last.total > 100
        assert how == "auto" or last.reading == how
        assert len(said) == (how == "auto")
        who = "threads; processes were" if last.reading == "threads" else "8 processes"
        assert how != "auto" or f"read by {who}" in said[0]
    assert cosines(*kept.values()).min() > 0.9999


def test_memory_stays_flat_over_many_runs(way):
    subject = backend(precision="float16")
    held = []
    for _ in range(20):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(subject.embed, map(tiles, (64, 64, 30, 1))))
        held.append(torch.cuda.memory_reserved())
    assert held[-1] <= held[2]


def test_graphs_go_with_their_stain_map(monkeypatch):
    monkeypatch.setenv(GRAPHS, "1")
    subject = backend()
    subject.embed(tiles(32))
    before = torch.cuda.memory_allocated()
    stains = StainMap(tuple(map(tuple, np.eye(3))), (255.0,) * 3, (240.0,) * 3)
    stained = subject.seen_through(stains)
    stained.embed(tiles(32))
    assert torch.cuda.memory_allocated() > before
    del stained
    gc.collect()
    assert torch.cuda.memory_allocated() <= before


def test_another_stain_map_is_recorded_again(monkeypatch):
    """What it is recorded into may be memory of a graph that is gone."""
    monkeypatch.setenv(GRAPHS, "1")
    subject, exact = backend(), backend("cpu")
    for k in range(1, 4):
        glass = (255.0 - 20 * k,) * 3
        stains = StainMap(tuple(map(tuple, np.eye(3))), glass, (240.0,) * 3)
        stained = subject.seen_through(stains)
        expected = exact.seen_through(stains).embed(tiles(8))
        for _ in range(2):
            assert cosines(stained.embed(tiles(8)), expected).min() > 0.999
        del stained
        gc.collect()
    assert not subject.take_note()


def test_a_thread_that_waits_for_the_card_takes_no_core():
    subject = backend()

    def slow(raw: torch.Tensor) -> torch.Tensor:
        torch.cuda._sleep(10**9)  # cycles of the card: about half a second
        return raw.float().mean((1, 2))

    with torch.inference_mode():
        subject._lanes.run(tiles(1), subject, None, slow)  # loads what it takes
        began, busy = time.perf_counter(), time.thread_time()
        subject._lanes.run(tiles(1), subject, None, slow)
    spent = time.perf_counter() - began
    assert spent > 0.2
    assert time.thread_time() - busy < 0.1 * spent


def test_a_shortage_makes_batches_smaller_and_the_numbers_stay(way):
    exact = backend("cpu").embed(tiles(8))
    subject = backend()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(300e6 / total)
    try:
        many = np.concatenate([tiles(8)] * 64)
        found = subject.embed(many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "ran out of memory" in subject.take_note()
    assert cosines(found, np.concatenate([exact] * 64)).min() > 0.999


def test_the_choice_names_the_card_and_what_it_computes_in():
    choice = choose_device("auto")
    assert choice.name == CARD
    assert torch.cuda.get_device_name(0) in choice.label
    assert choice.precision in choice.reason
