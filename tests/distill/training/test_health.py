"""Collapse is seen, health is not called collapse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_histodistill.distill.training.health import (
    LEAST_RANK,
    LEAST_STD,
    collapsed,
    effective_rank,
    feature_std,
)
from napari_histodistill.errors import InputError


def star(k, *, width=None):
    """Plus and minus every axis: 2k points whose k directions count alike."""
    width = width or k
    eye = torch.eye(k, width)
    return torch.cat([eye, -eye])


@pytest.mark.parametrize("d", [1, 3, 16])
def test_points_all_over_the_sphere_have_std_one(d):
    assert feature_std(star(d)) == pytest.approx(1, rel=1e-6)


def test_std_is_that_of_directions(rng):
    x = rng.normal(size=(20, 7)) + 1
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = units.std(axis=0).mean() * np.sqrt(7)
    lengths = rng.uniform(0.1, 10, size=(20, 1))
    assert feature_std(torch.from_numpy(x)) == pytest.approx(expected)
    assert feature_std(torch.from_numpy(x * lengths)) == pytest.approx(expected)


def test_std_does_not_depend_on_the_width(rng):
    many = [feature_std(torch.from_numpy(rng.normal(size=(400, d)))) for d in (8, 512)]
    assert many == pytest.approx([1, 1], abs=0.02)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_rank_counts_directions_that_count_alike(k):
    assert effective_rank(star(k, width=12)) == pytest.approx(k, rel=1e-6)


def test_rank_of_known_singular_values():
    # Columns ±3, ±1, ±1 have singular values in the proportion 3 : 1 : 1.
    shares = np.array([0.6, 0.2, 0.2])
    expected = math.exp(-(shares * np.log(shares)).sum())
    found = effective_rank(star(3) * torch.tensor([3.0, 1.0, 1.0]))
    assert found == pytest.approx(expected, rel=1e-6)


@given(n=st.integers(2, 12), d=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_rank_is_bounded_and_sees_the_shape_of_the_cloud_only(n, d, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    rank = effective_rank(torch.from_numpy(x))
    assert 1 - 1e-9 <= rank <= min(n - 1, d) + 1e-9
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    moved = torch.from_numpy(3 * x[::-1] @ turn + rng.normal(size=d))
    assert effective_rank(moved) == pytest.approx(rank, rel=1e-6)


def test_same_embeddings_are_collapsed_though_rounding_differs():
    same = torch.linspace(0.1, 3, 64).repeat(32, 1)
    assert effective_rank(same) == 0
    last_bit = 1 + (torch.rand(32, 64, generator=torch.manual_seed(0)) - 0.5) * 2e-7
    noisy = same * last_bit
    assert not torch.equal(noisy, same)
    assert effective_rank(noisy) == 0
    assert feature_std(noisy) == pytest.approx(0, abs=1e-5)
    assert effective_rank(torch.zeros(4, 3)) == 0
    assert feature_std(torch.zeros(4, 3)) == 0


@pytest.mark.parametrize("measure", [feature_std, effective_rank])
def test_any_floating_type_with_or_without_gradients(measure, rng):
    x = torch.from_numpy(rng.normal(size=(16, 5))).bfloat16()
    found = measure(x.clone().requires_grad_())
    assert type(found) is float
    assert found == measure(x.double())


@pytest.mark.parametrize("measure", [feature_std, effective_rank])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_finite_gives_nan(measure, value):
    x = star(3)
    x[1, 1] = value
    assert math.isnan(measure(x))


@pytest.mark.parametrize("measure", [feature_std, effective_rank])
@pytest.mark.parametrize("shape", [(4,), (1, 4), (0, 4), (4, 0), (2, 2, 2)])
def test_a_table_is_needed(measure, shape):
    with pytest.raises(InputError, match="at least two"):
        measure(torch.ones(shape))


@pytest.mark.parametrize(
    ("std", "rank", "dim", "words"),
    [
        (0.7, 60.0, 1280, ""),
        (LEAST_STD, LEAST_RANK, 1280, ""),
        (0.049, 60.0, 1280, "0.049"),
        (0.7, 1.94, 1280, "1.94 of 1280 dimensions"),
        (0.0, 0.0, 1280, "same embedding"),
        (0.7, 1.0, 2, ""),
        (0.7, 1.0, 3, "one direction"),
        (math.nan, 60.0, 1280, "finite"),
        (0.7, math.nan, 1280, "finite"),
    ],
)
def test_collapse_is_a_sentence(std, rank, dim, words):
    found = collapsed(std, rank, dim)
    assert (found == "") if words == "" else (words in found)
    assert not found.endswith(".")  # a place and an advice follow


def test_a_healthy_and_a_collapsed_cloud(rng):
    healthy = torch.from_numpy(rng.normal(size=(64, 32)))
    line = torch.from_numpy(rng.normal(size=(64, 1)) * np.ones(32))
    point = torch.from_numpy(1 + 0.01 * rng.normal(size=(64, 32)))

    def words(x):
        return collapsed(feature_std(x), effective_rank(x), 32)

    assert words(healthy) == ""
    assert "one direction" in words(line)
    assert "same embedding" in words(point)
