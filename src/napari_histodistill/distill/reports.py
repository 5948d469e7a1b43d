"""What a training run says while it runs, and ``events.jsonl``, where it says it.

The file is the interface: whoever watches a run reads its end, in any process.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_histodistill.errors import ComputeError, InputError

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = "events.jsonl"

Kind = Literal[
    "started",
    "step",
    "validation",
    "checkpoint",
    "paused",
    "finished",
    "stopped",
    "failed",
]

_KINDS = get_args(Kind)

MAX_EVENTS_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """One line of ``events.jsonl``.

    Attributes
    ----------
    kind : str
        ``started`` (also after a stop), ``step``, ``validation``, ``checkpoint``,
        ``paused``, ``finished``, ``stopped``, ``failed``.
    step, steps : int
        Optimiser steps taken, and how many there will be.
    total : float or None
        The loss, for ``step`` and ``validation``.
    terms : dict of str to float
        Its parts.
    learning_rate : float or None
        Of this step.
    feature_std, effective_rank : float or None
        Health of the embeddings: see ``health.py``.
    pairs_per_second : float or None
        Since the last ``step`` report.
    seconds_left : float or None
        At this pace.
    retrieval, chance : float or None
        For ``validation``: how often a sparse view finds its own twin among others that
        were kept aside, and how often by chance.
    message : str
        For people.
    """

    kind: Kind
    step: int
    steps: int
    total: float | None = None
    terms: dict[str, float] = field(default_factory=dict)
    learning_rate: float | None = None
    feature_std: float | None = None
    effective_rank: float | None = None
    pairs_per_second: float | None = None
    seconds_left: float | None = None
    retrieval: float | None = None
    chance: float | None = None
    message: str = ""


def append_event(folder: Path, report: TrainingReport) -> None:
    """Add a line to a run's ``events.jsonl``.

    Raises
    ------
    ComputeError
        If it cannot be written (a full disk).
    """
    line = json.dumps({"time": round(time.time(), 3), **asdict(report)})
    try:
        with (folder / EVENTS).open("ab") as file:
            if file.tell() and not _ends_a_line(folder / EVENTS):
                line = "\n" + line  # half a line of a run that was killed
            file.write(f"{line}\n".encode())
    except OSError as error:
        msg = f"{folder / EVENTS} cannot be written ({error}): free space and continue."
        raise ComputeError(msg) from error


def _lines(path: Path) -> list[bytes]:
    """Return the lines of the file's end; a run of a million steps fits."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_EVENTS_BYTES))
            return file.read(MAX_EVENTS_BYTES).splitlines()
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror})."
        raise InputError(msg) from error


def _event(line: bytes) -> dict[str, Any] | None:
    """Return one event, or None for what this program did not write."""
    try:
        event = json.loads(line)
        kind, step = event["kind"], event["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    fits = kind in _KINDS and isinstance(step, int) and "message" in event
    return event if fits else None


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return a run's events in order; steps that were taken again count once.

    A run that was killed may leave half a line, and takes the steps since its last
    checkpoint again: the later report of a step replaces the earlier.
    """
    path = folder / EVENTS
    if not path.is_file():
        return []
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for place, line in enumerate(_lines(path)):
        event = _event(line)
        if event is None:
            continue
        once = event["kind"] in {"step", "validation", "checkpoint"}
        key = (event["kind"], event["step"]) if once else ("once", place)
        found.pop(key, None)
        found[key] = event
    return list(found.values())
