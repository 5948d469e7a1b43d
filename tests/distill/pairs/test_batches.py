"""The pairs of a step."""

from __future__ import annotations

import numpy as np
import torch

from napari_histodistill.distill.pairs import batches
from napari_histodistill.distill.pairs.batches import (
    balanced_rows,
    batch_rows,
    stream,
    torch_stream,
)


def test_every_pair_comes_once_an_epoch():
    rows = np.concatenate([batch_rows(30, 8, step, seed=3) for step in range(15)])
    for epoch in range(4):
        assert sorted(rows[epoch * 30 : (epoch + 1) * 30]) == list(range(30))
    assert not np.array_equal(rows[:30], rows[30:60])


def test_a_step_needs_no_history():
    before = [batch_rows(30, 8, step, seed=3).tolist() for step in range(9)]
    assert batch_rows(30, 8, 8, seed=3).tolist() == before[8]
    assert batch_rows(30, 8, 8, seed=4).tolist() != before[8]


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch):
    drawn = []

    def counted(*parts):
        drawn.append(parts)
        return stream(*parts)

    batches._order.cache_clear()
    monkeypatch.setattr(batches, "stream", counted)
    for step in range(15):  # four epochs: some steps reach from one into the next
        batch_rows(30, 8, step, seed=3)
    assert drawn == [(3, batches.ORDER, epoch) for epoch in range(4)]


def test_rare_classes_come_as_often_as_asked():
    labels = np.array([0] * 900 + [1] * 100)
    for balance, share in ((0, 0.1), (0.5, 0.25), (1, 0.5)):
        rows = balanced_rows(labels, 20000, 0, 0, balance=balance)
        assert abs(labels[rows].mean() - share) < 0.02


def test_streams_of_other_purposes_are_others():
    assert stream(0, 1).random() == stream(0, 1).random()
    assert stream(0, 1).random() != stream(0, 2).random()
    one = torch.rand(3, generator=torch_stream(0, 1, 5))
    assert torch.equal(one, torch.rand(3, generator=torch_stream(0, 1, 5)))
    assert not torch.equal(one, torch.rand(3, generator=torch_stream(0, 1, 6)))
