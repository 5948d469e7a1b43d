"""Jobs on the GUI thread: one timer asks all of them what is new."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from qtpy.QtCore import QObject, QTimer

from napari_histodistill.controllers.shared.job import Job, JobKey, Work

QUICK_MS = 40
"""How soon an answer to a click is seen."""

SLOW_S = 0.2
"""A map is redrawn at most five times a second."""


@dataclass
class _Watched:
    job: Job[Any]
    on_reports: Callable[[list[Any]], None]
    on_end: Callable[[Job[Any]], None] | None
    period_s: float
    due: float = field(default=0.0)


class JobPump(QObject):
    """Starts jobs by key and hands their reports to the GUI thread.

    The timer runs only while something is going on. Starting a job abandons the one of
    the same key: its reports are never seen again.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._watched: dict[JobKey, _Watched] = {}
        self._leaving: list[Job[Any]] = []
        self._timer = QTimer(self)
        self._timer.setInterval(QUICK_MS)
        self._timer.timeout.connect(self._turn)

    def start(
        self,
        work: Work,
        *,
        key: JobKey,
        on_reports: Callable[[list[Any]], None],
        on_end: Callable[[Job[Any]], None] | None = None,
        slow: bool = False,
    ) -> Job[Any]:
        """Run ``work`` in a thread; ``slow`` jobs are asked five times a second."""
        self.abandon(key)
        job: Job[Any] = Job(work, name=key.title)
        period = SLOW_S if slow else 0.0
        self._watched[key] = _Watched(job, on_reports, on_end, period)
        job.start()
        self._timer.start()
        return job

    def is_active(self, key: JobKey) -> bool:
        """Whether this job is going on."""
        return key in self._watched

    @property
    def busy(self) -> bool:
        """Whether anything is going on."""
        return bool(self._watched)

    def cancel(self, key: JobKey) -> None:
        """Ask a job to stop; its end is still reported."""
        if key in self._watched:
            self._watched[key].job.cancel()

    def abandon(self, *keys: JobKey) -> None:
        """Stop jobs and forget them."""
        for key in keys:
            watched = self._watched.pop(key, None)
            if watched is not None:
                watched.job.abandon()
                self._leaving.append(watched.job)
        self._leaving = [job for job in self._leaving if not job.join(0)]

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop everything and wait, at most so long, for the threads to end."""
        self._timer.stop()
        self.abandon(*self._watched)
        until = time.monotonic() + timeout_s
        for job in self._leaving:
            job.join(max(0.0, until - time.monotonic()))

    def _turn(self) -> None:
        now = time.monotonic()
        for key, watched in list(self._watched.items()):
            if now >= watched.due or watched.job.has_ended:
                watched.due = now + watched.period_s
                self._serve(key, watched)
        if not self._watched:
            self._timer.stop()

    def _serve(self, key: JobKey, watched: _Watched) -> None:
        # A handler that came first in this turn may have abandoned or replaced it.
        if self._watched.get(key) is not watched:
            return
        reports = watched.job.poll()
        if reports:
            watched.on_reports(reports)
        # A handler may have started another job of this key.
        if self._watched.get(key) is watched and watched.job.state.is_final:
            del self._watched[key]
            if watched.on_end is not None:
                watched.on_end(watched.job)
