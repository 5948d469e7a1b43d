"""The way to a CUDA card and back, on an imitated card that finds fault with order."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from napari_histodistill.slides.pyramid.resample import LevelWindow
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
    plain, subject = backend("cpu"), backend()
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


class Odd(Small):
    """Uses an operation that no other student here does."""

    def forward_features(self, x):
        return super().forward_features(x).tanh()


@pytest.fixture
def begin(monkeypatch):
    """Return a function that begins something in a thread of its own.

    It comes back as soon as that thread waits for another one, or is done.
    """
    plain, stands = threading.Condition.wait, threading.Event()

    def wait(condition, timeout=None):
        if threading.current_thread().name.startswith("other"):
            stands.set()
        return plain(condition, timeout)

    def begin(action):
        future = pool.submit(action)
        future.add_done_callback(lambda _: stands.set())
        assert stands.wait(60)
        return future

    monkeypatch.setattr(threading.Condition, "wait", wait)
    with ThreadPoolExecutor(1, "other") as pool:
        yield begin


TOO_MANY = 257
"""Tiles of a batch that is larger than any graph."""

BLACK = LevelWindow(np.zeros((30, 30, 3), np.uint8), (0.0, 0.0, 30.0, 30.0), 20, 20)


@pytest.mark.parametrize(
    "action",
    [
        lambda other: other.embed(pixels(3)),
        lambda other: other.embed(pixels(TOO_MANY)),
        lambda other: other.lay(BLACK),
        lambda other: other._lanes.release(),
        lambda other: other._lanes.settle(),
    ],
    ids=["records", "computes", "resamples", "frees memory", "waits for weights"],
)
def test_while_a_lane_records_no_other_does_what_breaks_it(
    monkeypatch, card, begin, action
):
    """Not a lane of another student either: a card knows processes."""
    monkeypatch.setenv(GRAPHS, "1")
    module, other, begun = Small(), backend(module=Odd()), []

    def during(x):
        if card.recording is not None and not begun:
            begun.append(begin(lambda: action(other)))

    module.during = during
    subject = backend(module=module)
    found = subject.embed(pixels(8))
    begun[0].result(60)
    assert not card.faults
    assert not subject.take_note()
    assert not other.take_note()
    assert (8, EDGE, EDGE, 3) in card.recorded
    np.testing.assert_allclose(found, backend("cpu").embed(pixels(8)), atol=1e-5)


def test_a_lane_does_not_begin_to_record_while_another_computes(
    monkeypatch, card, begin
):
    monkeypatch.setenv(GRAPHS, "1")
    module, odd, begun, computed = Small(), Odd(), [], threading.Event()
    subject, other = backend(module=module), backend(module=odd)

    def during(x):  # of what is recorded: the other one goes on meanwhile
        if card.recording is not None:
            assert computed.wait(60)

    module.during = during
    odd.during = lambda x: begun.append(begin(lambda: subject.embed(pixels(8))))
    try:
        other.embed(pixels(TOO_MANY))
    finally:
        computed.set()
    begun[0].result(60)
    assert not card.faults
    assert not subject.take_note()
    assert card.recorded


def test_weights_are_laid_while_a_lane_records(monkeypatch, card, begin):
    """Their copies wait for the default stream, which only the recorder must not."""
    monkeypatch.setenv(GRAPHS, "1")
    module, begun = Small(), []

    def during(x):
        if card.recording is not None and not begun:
            begun.append(begin(backend))

    module.during = during
    subject = backend(module=module)
    subject.embed(pixels(8))
    begun[0].result(60)
    assert card.waits
    assert not card.faults
    assert not subject.take_note()


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


def test_another_stain_map_is_recorded_again(monkeypatch, card):
    """None is computed by the graph of one that is gone."""
    monkeypatch.setenv(GRAPHS, "1")
    subject, plain = backend(), backend("cpu")
    for k in range(1, 4):
        glass = (255.0 - 20 * k,) * 3
        stains = StainMap(tuple(map(tuple, np.eye(3))), glass, (240.0,) * 3)
        stained = subject.seen_through(stains)
        found = stained.embed(pixels(8))
        expected = plain.seen_through(stains).embed(pixels(8))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert len(card.recorded) == k
        del stained
        gc.collect()
    assert not card.faults
    assert not subject.take_note()


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


@pytest.mark.parametrize("mode", ["thread_local", "global"])
@pytest.mark.parametrize(
    ("words", "action", "always"),
    [
        ("unused memory was given back", lambda _: torch.cuda.empty_cache(), True),
        ("the whole card was waited for", lambda _: torch.cuda.synchronize(), True),
        ("the code of tanh was loaded", lambda weights: weights.tanh(), True),
        ("a copy waited for stream 0", lambda weights: weights.cpu(), False),
        ("an event was waited for", lambda _: torch.cuda.Event().synchronize(), False),
    ],
)
def test_a_card_finds_what_another_thread_must_not_do_during_a_recording(
    card, begin, mode, words, action, always
):
    weights, graph = torch.ones(3, device="cuda:0"), torch.cuda.CUDAGraph()
    weights.cpu() * weights.cpu()
    weights * weights
    stream = torch.cuda.Stream("cuda:0")
    how = {"stream": stream, "capture_error_mode": mode}

    def record():
        with torch.cuda.graph(graph, **how):
            begin(lambda: action(weights)).exception(60)
            weights * weights

    if always or mode == "global":
        with pytest.raises(RuntimeError, match="during capture"):
            record()
        assert card.faults == [f"{words} while a graph was recorded"]
    else:
        record()
        assert not card.faults
