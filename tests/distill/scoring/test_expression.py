"""Genes as the judge: correlations by hand; nothing held out reaches the map."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill.scoring.expression import (
    ExpressionScore,
    MeasuredTiles,
    correlations,
    score_expression,
)
from napari_histodistill.errors import InputError


@pytest.fixture
def tiles(rng):
    cases = np.repeat(["s1", "s2", "s3", "s4"], 40)
    folds = np.repeat(["1", "1", "2", "2"], 40)
    genes = rng.normal(size=(160, 3)).astype(np.float32)
    genes[:, 2] = np.where(cases == "s4", 0, genes[:, 2])
    return MeasuredTiles(genes, ("a", "b", "c"), cases, folds)


@pytest.fixture
def embeddings(tiles, rng):
    """They hold gene a, nothing of b, and a jump between sections."""
    noise = rng.normal(size=(160, 5))
    noise[:, 0] += 2 * tiles.genes[:, 0] + 9 * (tiles.cases == "s3")
    return noise.astype(np.float32)


def judge(embeddings, tiles):
    return score_expression(embeddings, tiles, held_out="2", variant="v", seed=3)


def test_what_a_map_finds(embeddings, tiles):
    score, predicted = judge(embeddings, tiles)
    assert (score.cases, score.tiles) == (("s3", "s4"), (40, 40))
    found = np.array(score.correlations, float)
    assert (found[:, 0] > 0.8).all(), "the jump between sections does not count"
    assert (np.abs(found[:, 1]) < 0.5).all()
    assert score.correlations[1][2] is None, "the gene is constant on this section"
    here = tiles.genes[tiles.cases == "s3", 0]
    by_hand = np.corrcoef(here, predicted[:40, 0])[0, 1]
    assert score.correlations[0][0] == pytest.approx(by_hand, abs=1e-4)
    again = ExpressionScore.from_dict(json.loads(json.dumps(score.as_dict())))
    assert again == score


def test_nothing_held_out_reaches_the_map(embeddings, tiles):
    genes = tiles.genes.copy()
    genes[tiles.folds == "2"] = 7
    lied, predicted = judge(embeddings, replace(tiles, genes=genes))
    score, expected = judge(embeddings, tiles)
    np.testing.assert_array_equal(predicted, expected)
    assert (lied.strength, lied.inner) == (score.strength, score.inner)


def test_correlations_of_constants_are_not_numbers():
    values = np.array([[1, 2], [1, 3], [1, 5]], np.float32)
    found = correlations(values, values)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("folds", "match"),
    [(["1", "2", "2", "2"], "two sections"), (["1", "1", "3", "3"], "fold '2'")],
)
def test_folds_that_cannot_be_judged_are_refused(embeddings, tiles, folds, match):
    with pytest.raises(InputError, match=match):
        judge(embeddings, replace(tiles, folds=np.repeat(folds, 40)))
