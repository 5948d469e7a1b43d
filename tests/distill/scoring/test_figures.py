"""Figures: written, not blank, and the caller's matplotlib is left alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.distill.experiments.comparison import compare
from napari_histodistill.distill.experiments.figures import (
    draw_gains,
    draw_intervals,
)
from napari_histodistill.distill.scoring.figures import (
    draw_confusion,
    draw_curves,
    draw_embedding_map,
)
from tests.distill.experiments.test_comparison import DESIGN, two_folds


def shades(path):
    with Image.open(path) as image:
        return len(np.unique(np.asarray(image.convert("L"))))


EVENTS = [
    {"kind": "started", "step": 0},
    *(
        {
            "kind": "step",
            "step": k,
            "total": 30 / (k + 1),
            "terms": {"invariance": 1 / (k + 1), "variance": 0.5},
            "effective_rank": k + 1.0,
            "feature_std": 0.5,
        }
        for k in range(20)
    ),
    {"kind": "validation", "step": 10, "total": 8.0},
]


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: draw_curves(EVENTS, path),
        lambda path: draw_curves(EVENTS[:1], path),
        lambda path: draw_intervals(
            compare([*two_folds("base"), *two_folds("other")], DESIGN), path
        ),
        lambda path: draw_gains(
            compare([*two_folds("base"), *two_folds("other")], DESIGN), path
        ),
        lambda path: draw_confusion(((5, 1), (0, 7)), ("normal", "tumour"), path),
        lambda path: draw_embedding_map(
            np.random.default_rng(0).normal(size=(40, 8)),
            np.arange(40) % 2,
            (("a", "#009e73"), ("b", "#d55e00")),
            path,
        ),
    ],
    ids=["curves", "curves of nothing", "intervals", "gains", "confusion", "map"],
)
def test_a_figure_is_drawn(draw, tmp_path, monkeypatch):
    # Another test may have brought pyplot in; what counts is who does it here.
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    draw(tmp_path / "figure.png")
    assert shades(tmp_path / "figure.png") > 20
    assert "matplotlib.pyplot" not in sys.modules


def test_equal_embeddings_are_drawn_alike(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 5))
    for name in ("a", "b"):
        draw_embedding_map(x, np.zeros(30, int), (("a", "#009e73"),), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
