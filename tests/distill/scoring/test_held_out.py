"""A held-out fold must never reach the probe that judges it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill.scoring.held_out import (
    LabelledTiles,
    RunScore,
    _labelled,
    score_held_out,
)
from napari_histodistill.errors import InputError
from napari_histodistill.students.head import Head


@pytest.fixture
def tiles():
    cases = np.repeat([f"c{k}" for k in range(20)], 10)
    folds = np.repeat([str(k % 4 + 1) for k in range(20)], 10)
    labels = np.tile([0, 0, 0, 0, 0, 1, 1, 1, 2, 2], 20).astype(np.intp)
    return LabelledTiles(labels, cases, folds)


@pytest.fixture
def embeddings(tiles, rng):
    centres = np.eye(3, 6)[tiles.labels] * 2
    return (centres + rng.normal(size=(200, 6))).astype(np.float32)


def score(embeddings, tiles, **options):
    return score_held_out(embeddings, tiles, held_out="2", variant="v", **options)


def test_what_is_judged(embeddings, tiles):
    found = score(embeddings, tiles, seed=4, minutes=1.5)
    rows = np.array(found.rows)
    assert (tiles.folds[rows] == "2").all()
    assert len(rows) == 50
    assert found.truth == tuple(tiles.labels[rows])
    assert np.mean(np.array(found.predicted["1.0"]) == found.truth) > 0.8
    assert 1 < found.effective_rank <= 6
    assert (found.seed, found.minutes) == (4, 1.5)
    kept = np.array(found.probabilities)
    assert kept.shape == (50, 2), "that of the last class is what is left of 1"
    whole = np.column_stack([kept, 1 - kept.sum(axis=1)])
    np.testing.assert_array_equal(whole.argmax(axis=1), found.predicted["1.0"])
    assert np.array_equal(kept, kept.round(4))


def test_labels_of_the_held_out_fold_change_no_prediction(embeddings, tiles):
    labels = tiles.labels.copy()
    labels[tiles.folds == "2"] = 0
    lied = score(embeddings, replace(tiles, labels=labels))
    assert lied.predicted == score(embeddings, tiles).predicted


def test_embeddings_of_the_held_out_fold_change_no_probe(embeddings, tiles):
    moved = embeddings.copy()
    inside = np.flatnonzero(tiles.folds == "2")
    moved[inside[1:]] *= 100
    one, other = score(embeddings, tiles), score(moved, tiles)
    assert one.strength == other.strength
    assert one.predicted["1.0"][0] == other.predicted["1.0"][0]


@pytest.mark.parametrize(("share", "counts"), [(1.0, [75, 45, 30]), (0.1, [8, 4, 3])])
def test_small_shares_are_drawn_by_class(tiles, share, counts):
    rows = _labelled(tiles, tiles.folds != "2", share, 0)
    assert np.bincount(tiles.labels[rows]).tolist() == counts
    assert not (tiles.folds[rows] == "2").any()


def test_the_smallest_share_keeps_one_of_a_class(tiles):
    rows = _labelled(tiles, tiles.folds != "2", 0.01, 0)
    assert np.bincount(tiles.labels[rows]).tolist() == [1, 1, 1]
    assert not np.array_equal(rows, _labelled(tiles, tiles.folds != "2", 0.01, 1))


def test_a_trained_head_is_judged_beside_the_probe(embeddings, tiles):
    head = Head(np.eye(3, 6, dtype=np.float32), np.zeros(3, np.float32))
    found = score(embeddings, tiles, head=head)
    rows = np.array(found.rows)
    assert found.predicted["head"] == tuple(embeddings[rows, :3].argmax(axis=1))
    np.testing.assert_allclose(found.logits, embeddings[rows, :3], atol=1e-4)


def test_a_score_survives_json(embeddings, tiles):
    head = Head(np.eye(3, 6, dtype=np.float32), np.zeros(3, np.float32))
    found = score(embeddings, tiles, head=head)
    assert RunScore.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_a_class_that_only_the_held_out_fold_has_is_never_predicted(embeddings, tiles):
    labels = np.where((tiles.labels == 2) & (tiles.folds != "2"), 1, tiles.labels)
    found = score(embeddings, replace(tiles, labels=labels))
    assert 2 in found.truth
    assert 2 not in found.predicted["1.0"]


def test_an_unknown_fold_is_refused(embeddings, tiles):
    with pytest.raises(InputError, match="fold '9'"):
        score_held_out(embeddings, tiles, held_out="9", variant="v")
