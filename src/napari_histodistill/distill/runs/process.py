"""A training run in a process of its own, and how to watch and steer it from outside.

The run's folder is the only thing both sides share: the process writes ``events.jsonl``
and holds the lock; a process that watches reads the end of that file and makes the
files ``pause`` and ``stop``. So a window may close and another may find the run again,
and whatever ends the training (a kill, memory) does not end the window.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from napari_histodistill.distill.runs.events import EventLog
from napari_histodistill.distill.runs.folder import (
    LOCK,
    PAUSE,
    STOP,
    check_run,
    read_run,
)
from napari_histodistill.errors import InputError
from napari_histodistill.files import open_new, open_own, read_plain
from napari_histodistill.lock import is_held
from napari_histodistill.running import SAFE_PATH, python_command

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.running import CancelToken

OUTPUT = "output.txt"
"""Output of the process: the last words of a library, if it was killed."""

RunState = Literal[
    "starting", "running", "paused", "finished", "stopped", "failed", "dead", "gone"
]

_ENDS = ("finished", "stopped", "failed")
_WAIT_S = 60.0
"""Seconds to wait for a new process to hold the run; it shows as starting after."""
_MODULE = "napari_histodistill.distill.runs.begin"
_LAST_WORDS = 400
_NICE = 5
_GONE = (
    "its disk may be away, or it was moved. It is found again when it is back under "
    "this name."
)


@dataclass(frozen=True, slots=True)
class RunView:
    """The state of a run; see :func:`look_at`.

    Attributes
    ----------
    state : str
        ``starting`` and ``running``: a process works on it; ``paused``: it waits;
        ``finished``, ``stopped``, ``failed``: it ended and said so; ``dead``: it ended
        without a report (killed, out of memory); ``gone``: its folder is not there,
        or cannot be read now.
    events : tuple of dict
        See :func:`~napari_histodistill.distill.runs.events.read_events`.
    message : str
        Reason why a run ended.
    reason : str
        Reason for a failure: ``memory`` if a batch did not fit.
    stopping : bool
        Whether a process works on it that was asked to end.
    """

    state: RunState
    events: tuple[dict[str, Any], ...] = ()
    message: str = ""
    reason: str = ""
    stopping: bool = False

    @property
    def works(self) -> bool:
        """Whether a process works on it."""
        return self.state in {"starting", "running", "paused"}

    @property
    def is_paused(self) -> bool:
        """Whether a process holds it and waits to be let go on."""
        return self.state == "paused"

    @property
    def resumable(self) -> bool:
        """Whether it can continue where it ended."""
        return self.state in {"stopped", "failed", "dead"}

    @property
    def may_lack_memory(self) -> bool:
        """Whether it ended for lack of memory, or was killed and may have."""
        return self.state == "dead" or self.reason == "memory"

    @property
    def step(self) -> int:
        """Optimiser steps that were taken."""
        return max((int(event["step"]) for event in self.events), default=0)


@dataclass(slots=True)
class RunProcess:
    """A run and, where it was started here, its process.

    Attributes
    ----------
    folder : Path
        Folder of the run.
    """

    folder: Path
    _process: subprocess.Popen[bytes] | None = None
    _log: EventLog = field(init=False)
    _before: tuple[dict[str, Any], ...] = ()  # the last event before it was started

    def __post_init__(self) -> None:
        self._log = EventLog(self.folder)

    def view(self) -> RunView:
        """Return how the run stands now; reads what is new, never waits."""
        # Collects a process that ended: no zombie is left.
        alive = self._process is not None and self._process.poll() is None
        found = look_at(self.folder, self._log)
        if not alive or found.works or found.state == "gone":
            return found
        # It holds no lock: not yet, or not any more, and is about to exit.
        begun = self._has_ended(found.events)
        stopping = (self.folder / STOP).exists()
        state: RunState = "running" if begun else "starting"
        return RunView(state, found.events, stopping=stopping)

    def start(
        self,
        *,
        device: str = "auto",
        threads: int | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        """Start or continue the run in a process of its own, which outlives this one.

        What was asked of it before counts: a run that is asked to stop is not started.
        Waits until the process holds the run, so that every other window sees it.

        Parameters
        ----------
        device : str
            As for :func:`~napari_histodistill.distill.runs.run.train`.
        threads : int or None
            CPU threads; by default, as many as :func:`threads_beside_a_window` says.
        cancel : CancelToken or None
            Ends the waiting, not the process.

        Raises
        ------
        InputError
            If the folder is not a run, a process works on it already, or the process
            cannot be started.
        """
        if threads is None:
            threads = threads_beside_a_window()
        read_run(self.folder)
        check_run(self.folder)
        if is_held(self.folder / LOCK):
            msg = f"{self.folder}: this run is being trained already: stop that first."
            raise InputError(msg)
        self._before = self._log.read()[-1:]
        if (self.folder / STOP).exists():
            return
        process = self._process = _spawned(self.folder, device, threads)
        until = time.monotonic() + _WAIT_S
        while process.poll() is None:
            waited = time.monotonic() > until or (
                cancel is not None and cancel.cancelled
            )
            if waited or is_held(self.folder / LOCK):
                return
            time.sleep(0.02)

    def forget_requests(self) -> None:
        """Forget what an earlier process was asked: to pause, or to stop.

        Raises
        ------
        InputError
            If the run's folder cannot be written to.
        """
        for asked in (PAUSE, STOP):
            try:
                (self.folder / asked).unlink(missing_ok=True)
            except OSError as error:
                msg = f"{self.folder} cannot be written to ({error.strerror})."
                raise InputError(msg) from error

    def pause(self) -> None:
        """Ask it to wait after the current step."""
        _make(self.folder / PAUSE)

    def go_on(self) -> None:
        """Let a paused run go on."""
        (self.folder / PAUSE).unlink(missing_ok=True)

    def stop(self) -> None:
        """Ask it to end after the current step and to keep the best so far."""
        _make(self.folder / STOP)

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether a request to end is waiting in its folder."""
        return (self.folder / STOP).exists()

    def wait(self, seconds: float) -> bool:
        """Wait for the process, at most so long; return whether it has ended."""
        until = time.monotonic() + seconds
        while self.view().works:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def leave(self) -> None:
        """Stop watching it; it runs on, and leaves no zombie when it ends."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            # It must be waited for, or its entry stays as long as this process.
            threading.Thread(target=process.wait, name="collector", daemon=True).start()

    def kill(self) -> None:
        """End the process at once; what its last checkpoint holds is kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _has_ended(self, events: tuple[dict[str, Any], ...]) -> bool:
        """Whether the process, which is still there, has said that it ended."""
        last = events[-1:]
        return bool(last) and last != self._before and last[0]["kind"] in _ENDS


def start_process(
    folder: Path, *, device: str = "auto", threads: int | None = None
) -> RunProcess:
    """Start or continue a run, whatever an earlier process was asked.

    Parameters
    ----------
    folder : Path
        From :func:`~napari_histodistill.distill.runs.folder.start_run`.
    device, threads
        As for :meth:`RunProcess.start`.

    Raises
    ------
    InputError
        If the folder is not a run, or a process works on it already.
    """
    run = RunProcess(folder)
    if not is_held(folder / LOCK):  # else they are for that process
        run.forget_requests()
    run.start(device=device, threads=threads)
    return run


def _spawned(folder: Path, device: str, threads: int) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {}
    if sys.platform == "win32":  # pragma: no cover
        below_normal = subprocess.BELOW_NORMAL_PRIORITY_CLASS
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | below_normal
    else:
        # Ctrl-C in the terminal of napari is not meant for the training.
        options["start_new_session"] = True
    command = python_command(_MODULE, str(folder), device, str(threads))
    try:
        with open_new(folder / OUTPUT) as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | SAFE_PATH,
                **options,
            )
    except OSError as error:
        msg = f"{folder}: the training cannot be started ({error.strerror})."
        raise InputError(msg) from error
    _step_back(process)
    return process


def threads_beside_a_window() -> int:
    """Return the number of CPU threads for a training beside an open window.

    One core stays free for the window, and at least one thread runs. Where torch has to
    share a core, its threads wait for each other at every operation: on two cores with
    other work, two threads trained eight times slower than one. Cores count, not
    hyperthreads, and only those that this process may use.
    """
    from joblib import cpu_count

    return max(1, int(cpu_count(only_physical_cores=True)) - 1)


def _step_back(process: subprocess.Popen[bytes]) -> None:
    """Let the window go first where both need the same core."""
    if sys.platform != "win32":
        rank = min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
        with contextlib.suppress(OSError):  # it ended at once
            os.setpriority(os.PRIO_PROCESS, process.pid, rank)


def look_at(folder: Path, log: EventLog | None = None) -> RunView:
    """Return the state of a run, whichever process started it.

    Parameters
    ----------
    folder : Path
        Folder of the run; without an ``events.jsonl`` it has not begun.
    log : EventLog or None
        Log of a caller that looks often.
    """
    if not folder.is_dir():
        return RunView("gone", message=f"{folder} is not there: {_GONE}")
    try:
        events = (log or EventLog(folder)).read()
        held = is_held(folder / LOCK)
    except InputError as error:
        return RunView("gone", message=f"{error} {_GONE.capitalize()}")
    last: Any = events[-1]["kind"] if events else ""
    if held:
        state: RunState = "paused" if last == "paused" else "running"
        return RunView(state, events, stopping=(folder / STOP).exists())
    if last in _ENDS:
        reason = str(events[-1].get("reason", ""))
        return RunView(last, events, str(events[-1]["message"]), reason)
    if not events and not (folder / OUTPUT).is_file():
        return RunView("stopped", events, "It has not been started yet.")
    return RunView("dead", events, _last_words(folder))


def _make(path: Path) -> None:
    try:
        open_own(path, create=True).close()
    except OSError as error:
        msg = (
            f"{path} cannot be written ({error.strerror}), so the request does not "
            "reach the run."
        )
        raise InputError(msg) from error


def _last_words(folder: Path) -> str:
    """Return what is known of a process that ended without a report."""
    said = ""
    with contextlib.suppress(OSError):
        end = read_plain(folder / OUTPUT, 4 * _LAST_WORDS, last=True)
        said = end.decode("utf-8", errors="replace").strip()
    words = "The training process ended without a report: it was killed, or memory ran "
    words += "out. It can continue from its last checkpoint."
    return f"{words} Its last output: {said[-_LAST_WORDS:]}" if said else words
