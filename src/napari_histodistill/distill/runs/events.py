"""Reports of a training run, and ``events.jsonl``, the file that holds them.

The file is the interface: any process can watch a run by reading its end.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_histodistill.errors import ComputeError, InputError
from napari_histodistill.files import open_own

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EVENTS = "events.jsonl"
_ONCE = frozenset({"step", "validation", "checkpoint", "preview"})

EventKind = Literal[
    "started",
    "step",
    "validation",
    "checkpoint",
    "preview",
    "changed",
    "paused",
    "saving",
    "finished",
    "stopped",
    "failed",
]

_KINDS = get_args(EventKind)

MAX_EVENTS_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """One line of ``events.jsonl``.

    Attributes
    ----------
    kind : str
        ``started`` (also after a stop), ``step``, ``validation``, ``checkpoint``,
        ``preview`` (a student to look at was written, or its message says why not),
        ``changed`` (the recipe, on purpose), ``paused``, ``saving`` (the message says
        what the student still needs after the last step), ``finished``, ``stopped``,
        ``failed``.
    step, steps : int
        Optimiser steps taken, and how many there will be.
    total : float or None
        The loss, for ``step`` and ``validation``.
    terms : dict of str to float
        Parts of the loss.
    learning_rate : float or None
        Learning rate of this step.
    feature_std, effective_rank : float or None
        Health of the embeddings: see ``health.py``.
    pairs_per_second : float or None
        Pace since the last ``step`` report.
    seconds_left : float or None
        Time left at this pace.
    retrieval, chance : float or None
        For ``validation``: how often a sparse view finds its own partner among others
        that were held out, and how often it would by chance.
    retrievals : tuple of float
        The same for every partner, in the recipe's order, where there are several.
    message : str
        Message for the user.
    reason : str
        Reason for ``failed``: ``memory`` if a batch did not fit.
    threads : int or None
        For ``started``: number of CPU threads in use; None on another device.
    warning : str
        For ``started``: a reason why this run is needlessly slow; empty without one.
    """

    kind: EventKind
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
    retrievals: tuple[float, ...] = ()
    message: str = ""
    reason: str = ""
    threads: int | None = None
    warning: str = ""


def append_event(folder: Path, report: TrainingReport) -> None:
    """Add a line to a run's ``events.jsonl``.

    Raises
    ------
    ComputeError
        If it cannot be written (a full disk).
    """
    line = json.dumps({"time": round(time.time(), 3), **asdict(report)})
    try:
        with open_own(folder / EVENTS, create=True, append=True) as file:
            if file.seek(0, 2) and not _ends_a_line(folder / EVENTS):
                line = "\n" + line  # half a line of a run that was killed
            file.write(f"{line}\n".encode())
    except OSError as error:
        msg = f"{folder / EVENTS} cannot be written ({error}): free space and continue."
        raise ComputeError(msg) from error


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


def warning_of(events: Sequence[dict[str, Any]]) -> str:
    """Return the warning of a run's last start; empty if there is none."""
    starts = [e for e in events if e["kind"] == "started"]
    return str(starts[-1].get("warning", "")) if starts else ""


def health_in_words(events: Sequence[dict[str, Any]]) -> str:
    """Return a warning in plain words if the student stops telling places apart."""
    steps = [e for e in events if e["kind"] == "step" and e.get("effective_rank")]
    if len(steps) < 4:
        return ""
    best = max(e["effective_rank"] for e in steps)
    if steps[-1]["effective_rank"] < min(3.0, best / 4):
        return (
            "The student tells fewer and fewer places apart: more pairs, or another "
            "preset, may help."
        )
    return ""


def events_of(
    events: Sequence[dict[str, Any]], kind: EventKind
) -> tuple[dict[str, Any], ...]:
    """Return a run's events of one kind, in order."""
    return tuple(event for event in events if event["kind"] == kind)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return a run's events in order; steps that were taken again count once.

    A run that was killed may leave half a line, and takes the steps since its last
    checkpoint again: the later report of a step replaces the earlier.
    """
    return list(EventLog(folder).read())


class EventLog:
    """Events of a run for a caller that asks repeatedly: only new lines are read.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._place = self._lines = 0
        self._found: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._events: tuple[dict[str, Any], ...] = ()

    def read(self) -> tuple[dict[str, Any], ...]:
        """Return all events so far; see :func:`read_events`.

        Raises
        ------
        InputError
            If the file exists and cannot be read.
        """
        try:
            size = self._path.stat().st_size
            if size < self._place:  # another run took the folder
                self._place = self._lines = 0
                self._found.clear()
            if size > self._place:
                with self._path.open("rb") as file:
                    # A run of a million steps fits; no real run is longer.
                    self._place = max(self._place, size - MAX_EVENTS_BYTES)
                    file.seek(self._place)
                    self._take(file.read(MAX_EVENTS_BYTES))
                self._events = tuple(self._found.values())
        except FileNotFoundError:
            return ()
        except OSError as error:
            msg = f"{self._path} cannot be read ({error.strerror})."
            raise InputError(msg) from error
        return self._events

    def _take(self, new: bytes) -> None:
        whole = new[: new.rfind(b"\n") + 1]  # the last line may still be written
        self._place += len(whole)
        for line in whole.splitlines():
            self._lines += 1
            event = _event(line)
            if event is None:
                continue
            once = event["kind"] in _ONCE
            key = (event["kind"], event["step"]) if once else ("", self._lines)
            self._found.pop(key, None)
            self._found[key] = event
