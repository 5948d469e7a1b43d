"""The way to a CUDA card and back, with stand-ins for the card."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from napari_histodistill.students.backends import cuda as subject
from napari_histodistill.students.backends.cuda import Lanes


class Stream:
    """Notes what is done on it."""

    made = ()

    def __init__(self, device) -> None:
        self.done = []
        Stream.made = (*Stream.made, self)

    def synchronize(self) -> None:
        self.done.append("wait")


class Graph:
    """Replays what was computed while it was recorded."""

    def replay(self) -> None:
        self.found.copy_(self.forward(self.raw))


@pytest.fixture(autouse=True)
def _card(monkeypatch):
    Stream.made = ()

    @contextmanager
    def on(stream):
        stream.done.append("enter")
        yield
        stream.done.append("leave")

    @contextmanager
    def recording(graph, *, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(
        subject, "_pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype)
    )


def mean_colour(raw: torch.Tensor) -> torch.Tensor:
    return raw.float().mean(dim=(1, 2))


@pytest.fixture
def batches(rng) -> list[np.ndarray]:
    sizes = (3, 5, 1, 5)
    return [rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8) for n in sizes]


def test_results_are_copies_of_their_own(batches):
    lanes = Lanes("cpu")
    found = [lanes.run(batch, "mean", mean_colour) for batch in batches]
    for batch, embeddings in zip(batches, found, strict=True):
        np.testing.assert_allclose(embeddings, batch.mean(axis=(1, 2)), rtol=1e-5)
    # No number is used before the stream has copied it.
    assert Stream.made[0].done == ["enter", "leave", "wait"] * 4


def test_every_thread_has_a_lane(batches):
    lanes, met = Lanes("cpu"), threading.Barrier(2)

    def forward(raw):
        met.wait(10)  # both batches are on their way at once
        return mean_colour(raw)

    found = {}

    def call(k):
        found[k] = lanes.run(batches[k], "mean", forward)

    threads = [threading.Thread(target=call, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Stream.made) == 2
    for k in (0, 1):
        np.testing.assert_allclose(found[k], batches[k].mean(axis=(1, 2)), rtol=1e-5)


def test_graphs_are_recorded_once_per_shape(monkeypatch, batches):
    monkeypatch.setenv(subject.GRAPHS, "1")
    recorded = []

    class Recorded(subject._Graph):
        def __init__(self, raw, forward, stream):
            super().__init__(raw, forward, stream)
            self._graph.raw, self._graph.forward = self._raw, forward
            self._graph.found = self._found
            recorded.append(self.room)

    monkeypatch.setattr(subject, "_Graph", Recorded)
    lanes = Lanes("cpu")
    for batch in batches:
        embeddings = lanes.run(batch, "mean", mean_colour)
        np.testing.assert_allclose(embeddings, batch.mean(axis=(1, 2)), rtol=1e-5)
    assert recorded == [3, 5]  # a larger batch is recorded again, a smaller one fits
    lanes.run(batches[0], "spread", lambda raw: raw.float().std(dim=(1, 2)))
    assert recorded == [3, 5, 3]
