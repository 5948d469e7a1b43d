"""Probe, folds and pooled tokens."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_histodistill.errors import InputError
from napari_histodistill.students.folds import (
    folds_around_every_class,
    group_folds,
)
from napari_histodistill.students.probe import STRENGTHS, fit_probe
from napari_histodistill.students.token_pooling import pool_tokens


def blobs(rng, n=120, dim=20, classes=3, spread=1.0):
    labels = np.arange(n) % classes
    centres = rng.normal(size=(classes, dim)) * 3
    values = centres[labels] + rng.normal(size=(n, dim)) * spread
    return (values * 7 + 100).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_separable_classes_are_found_on_raw_embeddings(rng, classes):
    x, y = blobs(rng, classes=classes)
    fit = fit_probe(x, y)
    assert (fit.head.probabilities(x).argmax(axis=1) == y).all()
    assert fit.head.weight.shape == (classes, 20)
    assert fit.score > 0.95
    assert fit.strength in STRENGTHS
    assert fit.counts == tuple(np.bincount(y))


def test_two_classes_are_the_logistic_function(rng):
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(rng, classes=2, spread=12)
    fit = fit_probe(x, y)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    model = LogisticRegression(C=fit.strength, class_weight="balanced", tol=1e-6)
    expected = model.fit(standard, y).decision_function(standard)
    logits = x @ fit.head.weight.T + fit.head.bias
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=0.02)


def test_the_same_data_give_the_same_head(rng):
    x, y = blobs(rng)
    first, second = fit_probe(x, y), fit_probe(x, y)
    assert first.head.weight.tobytes() == second.head.weight.tobytes()


def test_groups_keep_a_leak_from_choosing_the_strength(rng):
    """Labels are noise, but samples of a group are near copies: groups reveal it."""
    groups = np.repeat(np.arange(24), 10)
    y = np.repeat(np.arange(24) % 2, 10)
    x = (rng.normal(size=(24, 30))[groups] + rng.normal(size=(240, 30)) / 50).astype(
        np.float32
    )
    assert fit_probe(x, y).score > 0.95
    assert fit_probe(x, y, groups=groups).score < 0.8


def test_overconfident_probes_are_cooled(rng):
    x, y = blobs(rng, n=200, dim=150, classes=2, spread=40)
    fit = fit_probe(x, y)
    assert fit.head.temperature > 1


def test_a_single_sample_a_class_still_fits():
    x = np.array([[0, 0], [1, 1]], np.float32)
    fit = fit_probe(x, np.array([0, 1]))
    assert fit.score is None
    assert fit.head.temperature == 1
    assert (fit.head.probabilities(x).argmax(axis=1) == [0, 1]).all()


def test_constant_features_do_no_harm(rng):
    x, y = blobs(rng)
    x[:, 3] = 5
    head = fit_probe(x, y).head
    assert (head.weight[:, 3] == 0).all()


def test_a_few_hundred_strokes_fit_in_two_seconds(rng):
    x, y = blobs(rng, n=300, dim=1280, classes=6, spread=30)
    began = time.process_time()
    fit_probe(x, y, groups=np.arange(300) // 5)
    assert time.process_time() - began < 4  # process time: the machine may be busy


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 0, 0], "at least two classes"),
        ([0, 2, 2], "class 1 has no samples"),
        ([-1, 0, 1], "class -1 has no samples"),
        ([0, 1], "as many labels"),
    ],
)
def test_unusable_labels_are_refused(labels, words):
    with pytest.raises(InputError, match=words):
        fit_probe(np.eye(3, dtype=np.float32), np.array(labels))


def test_embeddings_that_are_not_finite_are_refused():
    x = np.array([[0.0], [np.nan]], np.float32)
    with pytest.raises(InputError, match="finite"):
        fit_probe(x, np.array([0, 1]))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=80),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_folds_never_split_a_group(samples, folds, seed):
    groups, labels = (np.array(v) for v in zip(*samples, strict=True))
    fold = group_folds(labels, groups, folds=folds, seed=seed)
    assert fold.min() >= 0
    assert fold.max() < folds
    for group in np.unique(groups):
        assert len(np.unique(fold[groups == group])) == 1
    assert (fold == group_folds(labels, groups, folds=folds, seed=seed)).all()


def test_a_rare_class_is_in_as_many_folds_as_it_has_groups():
    labels = np.array([0] * 30 + [1] * 4)
    fold = group_folds(labels, np.arange(34), folds=4)
    assert sorted(fold[labels == 1]) == [0, 1, 2, 3]
    assert set(np.bincount(fold)) <= {8, 9}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
@example(137)
def test_groups_of_several_classes_never_leave_a_fit_without_one(seed):
    # Cases that hold several classes: dealt as they come, one in fifty draws takes all
    # of a class into one fold.
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 6, (5, 3)) * (rng.random((5, 3)) < 0.5)
    table[0, :2], table[1, 1:] = 1, 1
    groups = np.repeat(np.arange(5), table.sum(axis=1))
    labels = np.concatenate([np.repeat(np.arange(3), row) for row in table])
    folds = min(
        4, int((table > 0).sum(axis=0).min())
    )  # as many as the rarest class has
    fold = folds_around_every_class(labels, groups, folds=folds, seed=seed)
    if fold is not None:
        assert all(len(np.unique(labels[fold != k])) == 3 for k in np.unique(fold))
    fit = fit_probe(rng.normal(size=(len(labels), 4)), labels, groups=groups, seed=seed)
    assert (fit.score is None) == (fold is None)


def test_fewer_folds_are_dealt_where_more_would_swallow_a_class():
    # Of two cases with class 2 one holds nearly all of class 1 as well.
    table = np.array([[0, 9, 1], [0, 0, 1], [1, 1, 0], [1, 0, 0]])
    groups = np.repeat(np.arange(4), table.sum(axis=1))
    labels = np.concatenate([np.repeat(np.arange(3), row) for row in table])
    fold = folds_around_every_class(labels, groups, folds=2)
    if fold is not None:
        assert all(len(np.unique(labels[fold != k])) == 3 for k in (0, 1))
    alone = folds_around_every_class(np.array([0, 0, 1]), np.array([0, 1, 2]), folds=3)
    assert alone is None  # the one group of class 1 lies in some fold


def test_tokens_under_a_tile_are_averaged_by_area():
    tokens = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    pooled = pool_tokens(
        tokens, stride_px=10, tile_px=20, centers_y_px=[10, 15], centers_x_px=[10]
    )
    rows = tokens[:, :2, 0].mean(axis=1)
    expected = [(rows[0] + rows[1]) / 2, rows[0] / 4 + rows[1] / 2 + rows[2] / 4]
    np.testing.assert_allclose(pooled[:, 0, 0], expected)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.floats(1, 200), st.floats(-0.4, 1.4))
def test_equal_tokens_pool_to_themselves(h, w, tile, place):
    tokens = np.full((h, w, 3), 2.5, np.float32)
    y = np.clip(place * h * 32, 1 - tile / 2, h * 32 + tile / 2 - 1)
    pooled = pool_tokens(
        tokens, stride_px=32, tile_px=tile, centers_y_px=[y], centers_x_px=[w * 16]
    )
    np.testing.assert_allclose(pooled, 2.5, rtol=1e-5)


def test_a_tile_off_the_window_is_refused():
    with pytest.raises(InputError, match="outside the window"):
        pool_tokens(
            np.ones((2, 2, 1), np.float32),
            stride_px=32,
            tile_px=64,
            centers_y_px=[200],
            centers_x_px=[32],
        )
