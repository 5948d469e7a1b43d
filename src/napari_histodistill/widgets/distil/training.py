"""The training run as seen from the window: step 4 of *Distil a student*."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from qtpy.QtCore import QObject, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.pairs import Planned
from napari_histodistill.controllers.distil.run import (
    controls_of,
    goes_on,
    health_of,
    run_name,
    run_to_show,
    say_run,
    share_done,
)
from napari_histodistill.controllers.distil.session import Written
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.recipes.presets import preset_named
from napari_histodistill.distill.runs.command import command_again, shell_here
from napari_histodistill.distill.runs.process import (
    RunProcess,
    RunView,
    start_process,
    threads_beside_a_window,
)
from napari_histodistill.distill.runs.smaller_batch import halve_batch
from napari_histodistill.running import CancelToken
from napari_histodistill.widgets.distil.bench import DistilBench, Panel
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.controls import explain

if TYPE_CHECKING:
    from napari_histodistill.widgets.explore.dock import ExploreWidget

WATCH_MS = 400
START_TIP = "Train in a process of its own, beside napari."
USE_TIP = "Open the model in Explore slide, on this slide."


class Distilling(QObject):
    """Starts, watches and steers the run; it lives in its folder, not here."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self._timer = bench.timer(WATCH_MS, self.look)
        step.preset.activated.connect(self._preset_chosen)
        step.alone.toggled.connect(self._alone_toggled)
        step.title.textEdited.connect(self._titled)
        step.start.clicked.connect(self.start)
        step.pause.clicked.connect(self.pause)
        step.stop.clicked.connect(self.stop)
        step.smaller.clicked.connect(self.go_on_smaller)
        step.use.clicked.connect(self.use)
        step.report.clicked.connect(self.report)
        step.command.clicked.connect(self.command)
        step.folder.clicked.connect(self._open_folder)

    def close(self) -> None:
        """Watch no longer; a training runs on."""
        self._timer.stop()
        if self.bench.session.run is not None:
            self.bench.session.run.leave()

    def find(self) -> None:
        """Show the newest run, if it still works or could go on."""
        if self.bench.session.run is not None:
            return
        found = run_to_show(self.bench.runs)
        if found is not None:
            self.bench.session.follow(found)
            self._timer.start()
            self.look()

    def start(self) -> None:
        """Write the pairs and train; or go on with a run that ended early."""
        bench, session = self.bench, self.bench.session
        if bench.pump.is_active(DistilJob.STARTING):
            return
        if session.run is not None and goes_on(session):
            self._begin(session.run.folder)
            return
        if session.why_no_training:
            bench.said.emit(session.why_no_training)
            return
        name = run_name()
        bench.pump.start(
            session.write_work(bench.runs / name, name),
            key=DistilJob.WRITING,
            on_reports=partial(self._written, session.sections),
            on_end=self._ended,
            slow=True,
        )
        bench.changed.emit()

    def pause(self) -> None:
        """Pause the run, or let it go on."""
        run = self.bench.session.run
        if run is not None:
            self.bench.attempt(run.go_on if run.view().is_paused else run.pause)
            self.look()

    def stop(self) -> None:
        """Ask the run to end and keep the best."""
        if self.bench.session.run is not None:
            self.bench.attempt(self.bench.session.run.stop)

    def use(self) -> ExploreWidget | None:
        """Open the student in *Explore slide*; returns that panel."""
        student = self.bench.session.best_student
        if student is None:
            return None
        panel = cast("ExploreWidget", self.bench.open_panel(Panel.EXPLORE))
        if self.bench.sparse_layer is not None:
            panel.choosing.choose_layer(self.bench.sparse_layer)
        panel.choosing.open_bundle(student)
        return panel

    def command(self) -> str:
        """Copy, and return, the command line that trains the same again."""
        run = self.bench.session.run
        if run is None:
            return ""
        words = command_again(run.folder, threads=threads_beside_a_window())
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(words)
        self.bench.said.emit(f"The command was copied, for {shell_here().value}.")
        return words

    def go_on_smaller(self) -> None:
        """Go on with a run that lacked memory, with half as many pairs a step."""
        run = self.bench.session.run
        if run is not None and self.bench.attempt(lambda: halve_batch(run.folder)):
            self._begin(run.folder)

    def report(self) -> Path | None:
        """Open the report; return where it is."""
        page = self.bench.session.report
        if page is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(page)))
        return page

    def look(self) -> None:
        """Show how the run stands."""
        run, step = self.bench.session.run, self.step
        if run is None:
            return
        view = run.view()
        if not view.works:
            self._timer.stop()
            # Buttons of other parts depend on it.
            self.bench.changed.emit()
        share = share_done(view)
        step.bar.setVisible(view.works)
        step.bar.setValue(round(1000 * (share or 0)))
        step.curves.setVisible(share is not None)
        step.curves.show_events(view.events)
        step.warn(health_of(view))
        step.say(say_run(view))
        self._enable(view)

    def show(self) -> None:
        """Draw the step."""
        session = self.bench.session
        self.step.words.setText(preset_named(session.preset).words)
        self._enable(None if session.run is None else session.run.view())

    def _enable(self, view: RunView | None) -> None:
        pump, step = self.bench.pump, self.step
        can = controls_of(
            self.bench.session,
            view,
            writing=pump.is_active(DistilJob.WRITING),
            starting=pump.is_active(DistilJob.STARTING),
        )
        step.start.setText("Go on" if can.goes_on else "Start")
        explain(step.start, START_TIP, can.why_no_start)
        step.smaller.setVisible(can.smaller is not None)
        if can.smaller is not None:
            explain(step.smaller, can.smaller.words, can.smaller.why_not)
        step.pause.setEnabled(can.works)
        step.pause.setText("Go on" if can.paused else "Pause")
        step.stop.setEnabled(can.works)
        explain(step.use, USE_TIP, can.why_no_use)
        step.report.setEnabled(can.has_report)
        step.command.setEnabled(can.has_run)
        step.folder.setEnabled(can.has_run)

    def _written(self, sections: tuple[Planned, ...], reports: list[Written]) -> None:
        last = reports[-1]
        self.step.say(f"Writing pairs: {last.done:,} of {last.total:,}.")
        if last.folder is not None:
            self.bench.session.mark_trained(sections)
            self._begin(last.folder)

    def _begin(self, folder: Path) -> None:
        def begin(cancel: CancelToken) -> Iterator[RunProcess]:
            run = start_process(folder)
            if cancel.cancelled:  # the panel has closed meanwhile
                run.leave()
                return
            yield run

        def begun(reports: list[RunProcess]) -> None:
            self.bench.session.follow(reports[-1])
            self._timer.start()
            self.look()
            self.bench.changed.emit()

        # A job: a process of the size of napari takes a while to make another.
        self.bench.pump.start(
            begin, key=DistilJob.STARTING, on_reports=begun, on_end=self._ended
        )
        self._enable(None)

    def _ended(self, job: Job[Written] | Job[RunProcess]) -> None:
        if job.state is JobState.FAILED:
            self.bench.said.emit(job.error)
        self.bench.changed.emit()

    def _preset_chosen(self, index: int) -> None:
        self.bench.session.choose_preset(self.step.preset.itemData(index))
        self.bench.changed.emit()

    def _alone_toggled(self, on: bool) -> None:
        self.bench.session.train_with_partner(use=not on)
        self.bench.changed.emit()

    def _titled(self, title: str) -> None:
        self.bench.session.call_student(title.strip())
        self.bench.changed.emit()

    def _open_folder(self) -> None:
        if self.bench.session.run is not None:
            QDesktopServices.openUrl(
                QUrl.fromLocalFile(str(self.bench.session.run.folder))
            )
