"""The book of scores: exact, reproducible, and honest about damage."""

from __future__ import annotations

import pytest

from napari_histodistill.distill.scoring.held_out import (
    SCORES,
    RunScore,
    read_scores,
    write_scores,
)
from napari_histodistill.errors import InputError


def score(variant, fold, seed=0):
    return RunScore(
        variant=variant,
        fold=fold,
        seed=seed,
        rows=(0, 2),
        truth=(1, 0),
        cases=("a", "b"),
        predicted={"1.0": (1, 1), "head": (0, 0)},
        logits=((0.5, -1.25), (2.0, 1.0)),
        inner=0.75,
        minutes=1.5,
    )


def test_what_was_written_comes_back_and_bytes_are_the_same(tmp_path):
    scores = [score("a", "1"), score("a", "2"), score("b", "1", seed=2)]
    write_scores(tmp_path / SCORES, scores)
    found = read_scores(tmp_path / SCORES, RunScore.from_dict)
    assert list(found.values()) == scores
    assert list(found) == [("a", "1", 0), ("a", "2", 0), ("b", "1", 2)]
    first = (tmp_path / SCORES).read_bytes()
    write_scores(tmp_path / SCORES, scores)
    assert (tmp_path / SCORES).read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [SCORES]


def test_no_book_is_an_empty_one(tmp_path):
    assert read_scores(tmp_path / SCORES, RunScore.from_dict) == {}


@pytest.mark.parametrize("damage", ["cut", "not gzip", "not a score"])
def test_damage_is_told(tmp_path, damage):
    path = tmp_path / SCORES
    write_scores(path, [score("a", "1")] * 50)
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "not gzip":
        path.write_text("{}")
    else:
        import gzip

        path.write_bytes(gzip.compress(b'{"variant": "a"}\n'))
    with pytest.raises(InputError, match=r"scores\.jsonl\.gz cannot be read"):
        read_scores(path, RunScore.from_dict)


def test_a_book_from_before_is_read():
    """It holds distances that nothing uses any more."""
    plain = score("a", "1").as_dict()
    old = plain | {"distances": [1.5, 2.5]}
    assert RunScore.from_dict(old) == RunScore.from_dict(plain)
