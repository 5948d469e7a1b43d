"""Two arms judged on one tile folder: students with a partner against those without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_histodistill.distill.pairs.held_out_tiles import BY_REGION, StoredTiles
from napari_histodistill.distill.pairs.tilefolder import TileFolder, read_tile_folder
from napari_histodistill.distill.scoring.evaluate import (
    choose_protocol,
    embed_tiles,
    predicted_labels,
    seen_cases,
)
from napari_histodistill.distill.scoring.helping import HelpReport, does_it_help
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_histodistill.distill.scoring.evaluate import ScoringProtocol
    from napari_histodistill.running import CancelToken
    from napari_histodistill.students.student import Student

_FEWEST_CASES = 2


@dataclass(frozen=True, slots=True)
class ArmsProgress:
    """How far the students have looked at the tiles."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ArmsJudged:
    """The answer, and how it was found.

    Attributes
    ----------
    report : HelpReport
        The difference.
    protocol : {"head", "probe"}
        The same for all students; see :func:`.evaluate_student`.
    reason : str
        Why this one.
    notes : tuple of str
        What a reader must know, such as tiles that were left out.
    """

    report: HelpReport
    protocol: Literal["head", "probe"]
    reason: str
    notes: tuple[str, ...]


def judge_arms(
    students: Sequence[Student],
    against: Sequence[Student],
    folder: str | Path | TileFolder,
    *,
    protocol: ScoringProtocol = "auto",
    cancel: CancelToken | None = None,
) -> Iterator[ArmsProgress | ArmsJudged]:
    """Score both arms on the same labelled tiles, of cases that none has seen.

    Parameters
    ----------
    students, against : sequence of Student
        Seeds of the first arm and of the second, one or more each.
    folder : str, Path or TileFolder
        Tiles with labels and cases.
    protocol : {"auto", "head", "probe"}
        As for :func:`.evaluate_student`; all students are judged in the same way.
    cancel : CancelToken, optional
        Looked at between batches of tiles.

    Yields
    ------
    ArmsProgress or ArmsJudged
        The last one is the answer.

    Raises
    ------
    InputError
        If a student is there twice, or tiles have no cases.
    TileFolderError
        If the folder cannot be used.
    ComputeError
        If a student fails.
    Cancelled
        If ``cancel`` asked for it.
    """
    everyone = [*students, *against]
    _check_distinct(everyone)
    tiles = folder if isinstance(folder, TileFolder) else read_tile_folder(folder)
    tiles.labels()  # a missing label is reported now
    tiles, notes = _unseen(everyone, tiles)
    chosen, reason = _one_protocol(everyone, tiles, protocol)
    sections = tiles.case_ids()
    assert sections is not None
    said: list[list[str]] = []
    total = len(everyone) * len(tiles)
    for k, student in enumerate(everyone):
        parts = []
        for report in embed_tiles(student, tiles):
            if cancel is not None:
                cancel.check()
            parts.append(report.embeddings)
            yield ArmsProgress(k * len(tiles) + report.done, total)
        embeddings = np.concatenate(parts)
        said.append(predicted_labels(student, tiles, embeddings, chosen).tolist())
    names = np.unique([*tiles.labels().tolist(), *(x for row in said for x in row)])
    codes = np.array([np.searchsorted(names, row) for row in said])
    split = len(students)
    found = does_it_help(
        np.searchsorted(names, tiles.labels()), codes[:split], codes[split:], sections
    )
    if isinstance(tiles, StoredTiles) and tiles.by_region:
        notes = (*notes, BY_REGION)
    yield ArmsJudged(found, chosen, reason, notes)


def _check_distinct(everyone: Sequence[Student]) -> None:
    digests = [student.digest for student in everyone]
    for student in everyone:
        if digests.count(student.digest) > 1:
            msg = f"{student.name} is there twice: give another student, or seed."
            raise InputError(msg)


def _unseen(
    everyone: Sequence[Student], tiles: TileFolder
) -> tuple[TileFolder, tuple[str, ...]]:
    """Leave out the cases that any student was trained on, if enough are left."""
    cases = tiles.case_ids()
    if cases is None:
        msg = (
            f"{tiles.folder}: without a column case_id nothing tells whether sections "
            "differ more than the two arms: add it to manifest.csv."
        )
        raise InputError(msg)
    seen = np.logical_or.reduce([seen_cases(s, cases) for s in everyone])
    if not seen.any():
        return tiles, ()
    count, left = len(np.unique(cases[seen])), len(np.unique(cases[~seen]))
    if left < _FEWEST_CASES:
        return tiles, (
            f"{count} of these {count + left} cases were trained on: flattering for "
            "both arms, and no measure of other sections.",
        )
    kept = tuple(t for t, out in zip(tiles.tiles, seen, strict=True) if not out)
    note = (
        f"{seen.sum()} tiles of {count} cases were left out: they were trained on. "
        f"{left} cases are left."
    )
    return replace(tiles, tiles=kept), (note,)


def _one_protocol(
    everyone: Sequence[Student], tiles: TileFolder, protocol: ScoringProtocol
) -> tuple[Literal["head", "probe"], str]:
    """Return the protocol that suits all: heads only where every student has one."""
    found = [choose_protocol(student, tiles, protocol) for student in everyone]
    probes = [one for one in found if one[0] == "probe"]
    return probes[0] if probes else found[0]
