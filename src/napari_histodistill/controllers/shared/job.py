"""A job: one generator of reports, run in one plain thread, polled by the caller.

Threads of superqt and napari swallow a ``RuntimeError`` and never end, and their
``quit()`` leaves the generator to the garbage collector. A job is smaller: the thread
pulls the generator into a queue of its own, every ending (also an unforeseen one)
becomes a state, and the thread calls nothing back. The queue lives and dies
with its job, so a stale message cannot end the next run.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Generic, TypeVar

from napari_histodistill.errors import (
    Cancelled,
    HistodistillError,
    bounded_message,
    traceback_of,
)
from napari_histodistill.running import CancelToken

ReportT = TypeVar("ReportT")

Work = Callable[[CancelToken], Iterator[Any]]
"""What a job runs: given its token, an iterator of frozen reports."""

_log = logging.getLogger(__name__)


class JobKey(Enum):
    """The key of a job: a panel lists its own in a subclass.

    A member's value is its title, for the thread's name and for messages. Code compares
    members, never titles, so that a title can be reworded.
    """

    @property
    def title(self) -> str:
        """The job's name where people read it."""
        title: str = self.value
        return title


class SlideJob(JobKey):
    """Jobs that every panel about a slide has."""

    OPENING = "Opening"
    LISTING = "Listing slides"
    READING = "Reading pixels"
    FINDING_TISSUE = "Finding tissue"
    IMPORTING = "Importing"
    EXPORTING = "Export"


class JobState(Enum):
    """Where a job is; the last three are final."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come."""
        return self in (JobState.DONE, JobState.CANCELLED, JobState.FAILED)


class Job(Generic[ReportT]):
    """Run ``work(cancel_token)`` in a thread; call :meth:`poll` for what it reported.

    Parameters
    ----------
    work : callable
        Takes the job's :class:`CancelToken`, returns an iterator of frozen reports. It
        must look at the token several times a second and raise :class:`Cancelled`.
    name : str
        What the job is, for the thread's name and for messages.
    capacity : int
        Reports that may wait unread. A full queue holds the work back, so a GUI that
        is busy cannot pile up memory.
    """

    def __init__(
        self,
        work: Callable[[CancelToken], Iterator[ReportT]],
        *,
        name: str,
        capacity: int = 256,
    ) -> None:
        self.name = name
        self.error = ""
        self._token = CancelToken()
        self._work = work
        self._reports: queue.Queue[ReportT] = queue.Queue(maxsize=capacity)
        self._state = JobState.IDLE
        self._ending: tuple[JobState, str] | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"histodistill {name}")

    @property
    def state(self) -> JobState:
        """The state as of the last :meth:`poll`: final once all reports are out."""
        if self._state is JobState.RUNNING and self._token.cancelled:
            return JobState.CANCELLING
        return self._state

    @property
    def has_ended(self) -> bool:
        """Whether the work is over, polled or not."""
        return self._ending is not None

    @property
    def is_active(self) -> bool:
        """Whether the job was started and its ending has not been polled yet."""
        return self.state in (JobState.RUNNING, JobState.CANCELLING)

    def start(self) -> None:
        """Start the thread; a job runs once."""
        self._state = JobState.RUNNING
        self._thread.start()

    def poll(self) -> list[ReportT]:
        """Return the reports that came since the last call, oldest first; never waits.

        After the last report the state becomes final, and for a failure :attr:`error`
        says in one sentence what happened.
        """
        # Read before draining: what the thread queued before it ended is then drained.
        ending = self._ending
        reports: list[ReportT] = []
        while True:
            try:
                reports.append(self._reports.get_nowait())
            except queue.Empty:
                break
        if ending is not None and not self._state.is_final:
            self._state, self.error = ending
        return reports

    def cancel(self) -> None:
        """Ask the work to stop; it keeps what it has done."""
        self._token.cancel()

    def abandon(self) -> None:
        """Cancel, and throw away the reports that are still to come."""
        self._abandoned.set()
        self.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread, at most ``timeout`` seconds; return whether it ended."""
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for report in self._work(self._token):
                self._put(report)
        except Cancelled:
            self._ending = (JobState.CANCELLED, "")
        except HistodistillError as error:
            self._ending = (JobState.FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - said below
            # The last line of defence: whatever a library raises must reach a person
            # as a sentence, and the log as a traceback. Nobody waits for a job that was
            # abandoned: Python refuses its threads when napari is closed.
            level = logging.DEBUG if self._abandoned.is_set() else logging.ERROR
            _log.log(level, "%s failed:\n%s", self.name, traceback_of(error))
            words = bounded_message(str(error).strip()) or "no further words"
            self._ending = (
                JobState.FAILED,
                f"{self.name} failed: {words} ({type(error).__name__}).",
            )
        else:
            self._ending = (JobState.DONE, "")

    def _put(self, report: ReportT) -> None:
        while not self._abandoned.is_set():
            try:
                self._reports.put(report, timeout=0.1)
            except queue.Full:
                continue
            return
        self._token.check()
