"""Judging, wired: a map is compared in the background, then marked and said."""

from __future__ import annotations

from qtpy.QtCore import QObject

from napari_histodistill.controllers.explore.jobs import ExploreJob
from napari_histodistill.controllers.explore.judging import Judged, JudgeProgress
from napari_histodistill.controllers.explore.trust import (
    hatching_tip,
    headline_on,
    like_only_tip,
    notes_on,
    where_on,
)
from napari_histodistill.controllers.shared.job import Job
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.legend import ClassesPanel
from napari_histodistill.widgets.explore.trust import TrustPanel


class Judging(QObject):
    """Keeps the verdict, the trust panel, the hatching and the map in step."""

    def __init__(
        self, bench: ExploreBench, panel: TrustPanel, classes_panel: ClassesPanel
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel, self.classes_panel = bench, panel, classes_panel
        panel.like_only_wanted.connect(self.leave_out)

    def leave_out(self, wanted: bool) -> None:
        """Leave out unlike squares, once all are compared; or show them again."""
        self.bench.pump.abandon(ExploreJob.JUDGING)
        self.bench.session.leave_out_unlike(wanted=wanted)
        self._redraw()
        self.bench.changed.emit()

    def show(self) -> None:
        """Draw the panel and the hatching; compare a map that was not yet."""
        self._judge()
        session, panel = self.bench.session, self.panel
        self.show_notes()
        panel.show_like_only(
            wanted=session.map_trust.leave_out,
            tooltip=like_only_tip(session),
            why_not=session.why_not_leave_out,
        )
        panel.explain(session.why_not_export)
        self._show_hatching()

    def show_notes(self) -> None:
        """Write the verdict and the notes again."""
        session = self.bench.session
        self.panel.show_verdict(headline_on(session), where_on(session))
        self.panel.show_notes(notes_on(session))

    def _judge(self) -> None:
        pump = self.bench.pump
        if any(
            pump.is_active(job)
            for job in (ExploreJob.JUDGING, ExploreJob.STORED_MAP, ExploreJob.RUN)
        ):
            return
        work = self.bench.session.judge_work()
        if work is not None:
            pump.start(
                work,
                key=ExploreJob.JUDGING,
                on_reports=self._compared,
                on_end=self._ended,
                slow=True,
            )

    def _compared(self, reports: list[JudgeProgress | Judged]) -> None:
        for report in reports:
            self.bench.session.take_judged(report)
        if isinstance(reports[-1], Judged):
            self._redraw()
        self.show_notes()

    def _ended(self, job: Job[object]) -> None:
        self.bench.session.judging_ended(job.error)
        self.bench.changed.emit()

    def _redraw(self) -> None:
        if self.bench.overlays is not None:
            self.bench.overlays.refresh_classes()
        session = self.bench.session
        self.classes_panel.show_rows(
            session.class_rows(), taught=session.taught is not None
        )

    def _show_hatching(self) -> None:
        session, overlays = self.bench.session, self.bench.overlays
        hatching = session.hatching
        if overlays is not None:
            if session.live is not None and hatching:
                overlays.show_hatching(hatching, session.live.grid)
            else:
                overlays.hide_hatching()
        self.classes_panel.show_hatched(
            session.hatching_in_words, tooltip=hatching_tip(session)
        )
