"""All scores of an experiment in one small file, ``scores.jsonl.gz``.

It holds every prediction behind a table, cases as digests, so a table can be checked,
compared anew, or gone on with, without the runs' folders: copy it into an empty ``OUT``
and what it holds is not run again.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

from napari_histodistill.distill.scoring.held_out import RunScore
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCORES = "scores.jsonl.gz"

Key = tuple[str, str, int]
"""Variant, fold, seed."""


def read_scores(path: Path) -> dict[Key, RunScore]:
    """Return the scores of a book; none where there is no file.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            scores = [RunScore.from_dict(json.loads(line)) for line in file]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        msg = (
            f"{path} cannot be read ({error}): remove it, and its runs are done again."
        )
        raise InputError(msg) from error
    return {(s.variant, s.fold, s.seed): s for s in scores}


def write_scores(path: Path, scores: Iterable[RunScore]) -> None:
    """Write a book: equal scores in equal order give equal bytes."""
    lines = (json.dumps(score.as_dict()) + "\n" for score in scores)
    part = path.with_name(f"{path.name}.part")
    # No name, no time: a table that is run again gives the same file.
    part.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    part.replace(path)
