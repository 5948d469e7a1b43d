"""The way to a CUDA card and back, on an imitated card that finds fault with order."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from napari_histodistill.slides.tissue.stain import StainMap
from napari_histodistill.students.backends.torch import TorchBackend
from napari_histodistill.students.student import DeviceChoice
from tests.card import Card, imitated_card

GRAPHS = "HISTODISTILL_CUDA_GRAPHS"
EDGE = 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Small(torch.nn.Module):
    """Two convolutions, the first with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.default_generator.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(4)
        self.last = torch.nn.Conv2d(4, 6, 3, padding=1)
        torch.nn.init.normal_(self.norm.running_mean, std=0.3)
        self.during = lambda x: None

    def forward_features(self, x):
        self.during(x)
        return self.last(self.norm(self.conv(x)).relu())

    def forward_head(self, x, *, pre_logits):
        return x.mean(dim=(2, 3))


def backend(
    device: str = "cuda:0", precision: str = "float32", module=None, **options
) -> TorchBackend:
    choice = DeviceChoice(device, "a card", "a test", precision)
    return TorchBackend(module or Small(), choice, mean=MEAN, std=STD, **options)


def pixels(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, EDGE, EDGE, 3), dtype=np.uint8)


@pytest.fixture
def card(monkeypatch):
    with imitated_card(monkeypatch) as made:
        yield made


@pytest.fixture(params=["eager", "graphs"])
def way(request, monkeypatch) -> str:
    monkeypatch.setenv(GRAPHS, "1" if request.param == "graphs" else "0")
    return request.param


SIZES = (3, 40, 1, 5, 97, 33, 8, 40, 180, 2)


def test_two_threads_get_the_numbers_of_the_cpu_and_every_wait_is_there(way, card):
    """Weights are waited for, copies end before their memory is used again."""
    plain, module = backend("cpu"), Small()

    def during(x):  # long enough for the other thread to interfere
        if card.recording is not None:
            time.sleep(0.02)

    module.during = during
    subject = backend(module=module)
    assert subject.streams == 2
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(subject.embed, map(pixels, SIZES)))
    for size, embeddings in zip(SIZES, found, strict=True):
        np.testing.assert_allclose(embeddings, plain.embed(pixels(size)), atol=1e-5)
    windows = pixels(1)
    np.testing.assert_allclose(
        subject.tokens(windows), plain.tokens(windows), atol=1e-5
    )
    assert not card.faults
    assert not subject.take_note()
    if way == "eager":
        assert not card.recorded
        assert not card.spins, "a thread that waits for the card takes no core"
        return
    # A lane records a size once, and there are few sizes, whatever borders ask for.
    # Two calls of the forward pass: tiles and windows; of each the same shape.
    counts = [shape[0] for shape in card.recorded]
    assert set(counts) <= {1, 8, 32, 64, 128, 256}
    assert max(map(counts.count, counts)) <= 2 * 2


def test_run_after_run_the_card_holds_no_more(way, card):
    subject = backend()
    held = []
    for _ in range(3):  # every run of the engine has threads of its own
        for _ in range(2):
            with ThreadPoolExecutor(1) as pool:
                list(pool.map(subject.embed, map(pixels, SIZES[:4])))
        held.append(card.reserved)
    assert card.streams == 2
    assert held[2] == held[0]


def test_graphs_go_with_the_stain_map_that_they_were_recorded_for(monkeypatch, card):
    monkeypatch.setenv(GRAPHS, "1")
    subject = backend()
    subject.embed(pixels(8))
    before = sum(card.live().values())
    eye = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    stains = StainMap(eye, (255.0,) * 3, (240.0,) * 3)
    stained = subject.seen_through(stains)
    assert not np.allclose(stained.embed(pixels(8)), subject.embed(pixels(8)))
    assert sum(card.live().values()) > before
    del stained
    gc.collect()
    assert sum(card.live().values()) == before


def test_a_shortage_is_answered_when_nothing_of_the_pass_is_left(monkeypatch):
    """A traceback holds the activations of the pass that failed."""
    with imitated_card(monkeypatch, memory=200_000) as card:
        subject = backend()
        weights = sum(card.live().values())
        found = subject.embed(pixels(64))
        assert "ran out of memory" in subject.take_note()
        assert card.left
        assert set(card.left) == {weights}
        assert not card.faults
    np.testing.assert_allclose(found, backend("cpu").embed(pixels(64)), atol=1e-5)


def test_a_shortage_frees_the_graphs_of_both_lanes(monkeypatch):
    monkeypatch.setenv(GRAPHS, "1")
    with imitated_card(monkeypatch) as card:
        subject = backend()
        weights = sum(card.live().values())
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(subject.embed, map(pixels, SIZES[:6])))
        recorded = sum(card.live().values())
        assert recorded > 2 * weights
        card.memory = recorded + 100_000
        subject.embed(pixels(300))  # more than any graph
        assert "ran out of memory" in subject.take_note()
        assert min(card.left) == weights
        card.memory = float("inf")
        found = subject.embed(pixels(8))
    np.testing.assert_allclose(found, backend("cpu").embed(pixels(8)), atol=1e-5)


def test_pixels_are_not_written_over_while_they_are_copied(card):
    """After an error, too: the copy was begun before it."""
    module = Small()
    subject = backend(module=module)
    subject.embed(pixels(4))

    def fail(x):
        if len(x) > 4:
            msg = "CUBLAS_STATUS_ALLOC_FAILED"
            raise RuntimeError(msg)

    module.during = fail
    subject.embed(pixels(8))
    assert "goes on with 4 tiles" in subject.take_note()
    assert not card.faults


def test_what_cannot_be_recorded_is_computed_without_a_graph(monkeypatch, card):
    monkeypatch.setenv(GRAPHS, "1")
    module = Small()
    module.during = lambda x: x.sum().item()  # waits for the card
    subject = backend(module=module)
    for _ in range(2):
        found = subject.embed(pixels(3))
        np.testing.assert_allclose(found, backend("cpu").embed(pixels(3)), atol=1e-5)
    note = subject.take_note()
    assert note.startswith("computing without a CUDA graph, which failed: CUDA error")
    assert not subject.take_note()
    assert not card.recorded
    assert not card.faults


@pytest.mark.parametrize(
    ("precision", "generation", "arithmetic"),
    [
        (
            "float16",
            9,
            "float16 weights, batch norm folded (TF32 where numbers are too large)",
        ),
        (
            "float16",
            7,
            "float16 weights, batch norm folded (float32 where numbers are too large)",
        ),
        ("float32", 9, "float32 by TF32"),
        ("float32", 7, "float32"),
        ("bfloat16", 8, "bfloat16 (early layers TF32)"),
    ],
)
def test_the_arithmetic_that_really_runs_has_a_name(
    monkeypatch, precision, generation, arithmetic
):
    with imitated_card(monkeypatch, capability=(generation, 0)):
        assert backend(precision=precision).arithmetic == arithmetic


def test_float16_is_near_and_what_overflows_is_computed_in_float32(way, card):
    plain = backend("cpu").embed(pixels(20))
    found = backend(precision="float16").embed(pixels(20))
    np.testing.assert_allclose(found, plain, atol=5e-3)
    assert np.abs(found - plain).max() > 1e-6, "it is another arithmetic"
    module = Small()
    with torch.no_grad():
        module.last.weight *= 3e5  # some tiles exceed what float16 can hold
    exact = backend("cpu", module=module).embed(pixels(20))
    subject = backend(precision="float16", module=module)
    found = subject.embed(pixels(20))
    np.testing.assert_allclose(found, exact, rtol=5e-3, atol=5e-3 * np.abs(exact).max())
    assert "too large for float16" in subject.take_note()
    assert not card.faults


def test_a_card_finds_faults(monkeypatch):
    """The imitation itself: what it must notice, it notices."""
    with imitated_card(monkeypatch) as card:
        stream = torch.cuda.Stream("cuda:0")
        weights = torch.ones(3, device="cuda:0")
        with torch.cuda.stream(stream):
            weights * 2
        assert card.faults == ["mul on 1 reads before 0 is done"]
        torch.cuda.synchronize()
        pinned = torch.empty(3, pin_memory=True)
        with torch.cuda.stream(stream):
            pinned.copy_(weights, non_blocking=True)
        pinned.numpy()
        assert card.faults[1:] == ["numpy on host writes before 1 is done"]
    assert isinstance(card, Card)
