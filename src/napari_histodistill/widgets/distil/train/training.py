"""The training run as seen from the window: step 4 of *Distil a student*."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from qtpy.QtCore import QObject, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QPushButton

from napari_histodistill.controllers.distil.control import (
    NOTES,
    student_and_control,
    why_no_comparison,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.pairs import (
    Planned,
    Written,
    classes_on_offer,
)
from napari_histodistill.controllers.distil.run import (
    controls_of,
    free_run,
    goes_on,
    health_of,
    learns_elsewhere,
    origins_of,
    run_to_show,
    say_run,
    share_done,
)
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.recipes.presets import preset_named
from napari_histodistill.distill.runs.command import command_again, shell_here
from napari_histodistill.distill.runs.process import (
    RunProcess,
    RunView,
    threads_beside_a_window,
)
from napari_histodistill.distill.runs.smaller_batch import halve_batch
from napari_histodistill.running import CancelToken
from napari_histodistill.widgets.distil.bench import DistilBench, Panel, Turns
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.controls import explain
from napari_histodistill.widgets.shared.slide_layers import hide_over

if TYPE_CHECKING:
    from napari_histodistill.slides import Slide
    from napari_histodistill.widgets.compare.dock import CompareWidget
    from napari_histodistill.widgets.explore.dock import ExploreWidget

WATCH_MS = 400
ALONE_TIP = (
    "Train the control: a model that never sees the partner, everything else being the "
    "same. The comparison shows what the partner taught."
)
START_TIP = "Train in a process of its own, beside napari."
USE_TIP = "Open the model in Explore slide, on this slide."
COMPARE_TIP = (
    "Open Compare students on this slide: what did the partner teach? A is the model "
    "trained without it, B the one trained with it."
)


class Distilling(QObject):
    """Starts, watches and steers the run; it lives in its folder, not here."""

    wrote = Signal()
    """All pairs are in a run's folder."""
    using = Signal()
    """A student is about to be used on the H&E: what lies over it should go."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self._starting: RunProcess | None = None
        self._stop_asked = self._may_run_on = False
        self._timer = bench.timer(WATCH_MS, self.look)
        self._turns = Turns(self)
        self._explore: ExploreWidget | None = None
        self._slide: Slide | None = None
        step.preset.activated.connect(self._preset_chosen)
        step.alone.toggled.connect(self._alone_toggled)
        step.learn.toggled.connect(self._learn_toggled)
        step.title.textEdited.connect(self._titled)
        step.start.clicked.connect(self.start)
        step.pause.clicked.connect(self.pause)
        step.stop.clicked.connect(self.stop)
        step.smaller.clicked.connect(self.go_on_smaller)
        step.use.clicked.connect(self.use)
        step.report.clicked.connect(self.report)
        step.command.clicked.connect(self.command)
        step.folder.clicked.connect(self._open_folder)

    @property
    def is_writing(self) -> bool:
        """Whether pairs are being written, which ends with the panel."""
        return self.bench.pump.is_active(DistilJob.WRITING) and not self.is_starting

    @property
    def is_starting(self) -> bool:
        """Whether a process is being started."""
        return self.bench.pump.is_active(DistilJob.STARTING)

    def run_on(self) -> None:
        """Let a training that is being started go on when the panel closes."""
        self._may_run_on = True

    def end_start(self) -> None:
        """Have nothing trained that was not seen to train, unless that was allowed."""
        if self.is_starting and self._starting is not None and not self._may_run_on:
            self.bench.attempt(self._starting.stop)

    def close(self) -> None:
        """Watch no longer; a training runs on."""
        self._timer.stop()
        self._turns.stop()
        for run in (self.bench.session.run, self._starting):
            if run is not None:
                run.leave()

    def find(self) -> None:
        """Show the newest run, if it still works or could go on."""
        if self.bench.session.run is not None:
            return
        found = run_to_show(self.bench.runs)
        if found is not None:
            self.bench.session.follow(found)
            self.bench.attempt(partial(self._know_origins, found))
            self._timer.start()
            self.look()

    def _know_origins(self, run: RunProcess) -> None:
        self.bench.session.know_origins(origins_of(run))

    def start(self) -> None:
        """Write the pairs and train; or go on with a run that ended early."""
        bench, session = self.bench, self.bench.session
        if self.is_starting or self.is_writing:
            return
        if session.run is not None and goes_on(session):
            self.begin(session.run.folder)
            return
        if session.why_no_training:
            bench.said.emit(session.why_no_training)
            return
        self._stop_asked = False
        name = free_run(bench.runs)
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
        """Ask the run to end and keep the best; what leads to one ends, too."""
        run = self._starting if self.is_starting else self.bench.session.run
        if self.is_writing:
            self._stop_asked = True
            self.bench.pump.cancel(DistilJob.WRITING)
            self.step.say("Stopping…")
        elif run is not None and self.bench.attempt(run.stop):
            self.step.say("Stopping…")
        self.step.stop.setEnabled(False)

    def use(self) -> None:
        """Open the student in *Explore slide*, with nothing else over the H&E."""
        student = self.bench.session.best_student
        if student is None:
            return
        self.using.emit()
        self.bench.said.emit("Opening Explore slide…")
        self._turns.start(
            self._show_scale_bar,
            self._open_explore,
            self._show_slide,
            partial(self._open_student, student),
        )

    def _show_scale_bar(self) -> None:
        """Have napari make the bar that Explore shows: half of what its panel takes."""
        slide = self.bench.session.sparse
        if slide is not None and slide.usable_mpp is not None:
            self.bench.viewer.canvas.overlays.scale_bar.visible = True

    def _open_explore(self) -> None:
        if self.bench.sparse_layer is not None:
            # A panel that is new begins with the slide that is selected.
            self.bench.viewer.layers.selection.active = self.bench.sparse_layer
        self._explore = cast("ExploreWidget", self.bench.open_panel(Panel.EXPLORE))

    def _show_slide(self) -> None:
        layer, explore = self.bench.sparse_layer, self._explore
        if layer is not None and explore is not None:
            hide_over(self.bench.viewer, layer)
            explore.choosing.choose_layer(layer)

    def _open_student(self, student: Path) -> None:
        explore, self._explore = self._explore, None
        self.bench.said.emit("")
        if explore is not None:
            explore.choosing.open_bundle(student)

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
            self.begin(run.folder)

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
            if view.state != "gone":  # its disk may come back
                self._timer.stop()
            # Buttons of other parts depend on it.
            self.bench.changed.emit()
        share = share_done(view)
        step.bar.setVisible(view.works)
        step.bar.setValue(round(1000 * (share or 0)))
        step.curves.setVisible(share is not None)
        step.curves.show_events(view.events)
        step.say(learns_elsewhere(self.bench.session) + say_run(view))
        self._enable(view)

    def show(self) -> None:
        """Draw the step."""
        session = self.bench.session
        self.step.words.setText(preset_named(session.preset).words)
        view = None if session.run is None else session.run.view()
        if session.sparse is not self._slide and view is not None:
            self.step.say(learns_elsewhere(session) + say_run(view))
        self._slide = session.sparse
        offered = classes_on_offer(session.sections)
        names = [] if offered is None else [one.name for one in offered.classes]
        self.step.offer_learning(names, chosen=session.learns_classes)
        explain(self.step.alone, ALONE_TIP, session.why_only_alone)
        self._enable(view)

    def _enable(self, view: RunView | None) -> None:
        step = self.step
        can = controls_of(
            self.bench.session,
            view,
            writing=self.is_writing,
            starting=self.is_starting,
        )
        works = view is not None and view.works
        warnings = [] if works or can.goes_on else [self.bench.session.warning]
        warnings += [] if view is None else [health_of(view)]
        step.warn(" ".join(filter(None, warnings)))
        step.start.setText("Go on" if can.goes_on else "Start")
        explain(step.start, START_TIP, can.why_no_start)
        step.smaller.setVisible(can.smaller is not None)
        if can.smaller is not None:
            explain(step.smaller, can.smaller.words, can.smaller.why_not)
        stopping = self._is_stopping(view)
        step.pause.setEnabled(can.works and not stopping)
        step.pause.setText("Go on" if can.paused else "Pause")
        step.stop.setEnabled(can.may_stop and not stopping)
        explain(step.use, USE_TIP, can.why_no_use)
        step.report.setEnabled(can.has_report)
        step.command.setEnabled(can.has_run)
        step.folder.setEnabled(can.has_run)

    def _is_stopping(self, view: RunView | None) -> bool:
        if self.is_writing:
            return self._stop_asked
        if self.is_starting and self._starting is not None:
            return self._starting.is_asked_to_stop
        return view is not None and view.stopping

    def _written(self, sections: tuple[Planned, ...], reports: list[Written]) -> None:
        last = reports[-1]
        if not self._stop_asked:
            self.step.say(f"Writing pairs: {last.done:,} of {last.total:,}.")
        if last.folder is None:
            return
        self.bench.session.mark_trained(sections)
        self.wrote.emit()
        if self._stop_asked:  # they were complete at that moment
            self._follow(RunProcess(last.folder))
        else:
            self.begin(last.folder)

    def begin(self, folder: Path) -> None:
        """Start the run of a folder, and follow it."""
        run = self._starting = RunProcess(folder)
        self._stop_asked = self._may_run_on = False
        # Now: whatever is asked from here on is for the process that is started.
        if not self.bench.attempt(run.forget_requests):
            return

        def begin(cancel: CancelToken) -> Iterator[RunProcess]:
            run.start(cancel=cancel)
            if cancel.cancelled:  # the panel has closed meanwhile
                run.leave()
                return
            yield run

        # A job: a process of the size of napari takes a while to make another.
        self.bench.pump.start(
            begin,
            key=DistilJob.STARTING,
            on_reports=lambda reports: self._follow(reports[-1]),
            on_end=self._started,
        )
        self.step.say("Starting the training…")
        self._enable(None)

    def _follow(self, run: RunProcess) -> None:
        self.bench.session.follow(run)
        self._timer.start()
        self.look()
        self.bench.changed.emit()

    def _started(self, job: Job[RunProcess]) -> None:
        self._starting = None
        self._ended(job)

    def _ended(self, job: Job[Written] | Job[RunProcess]) -> None:
        if job.state is JobState.FAILED:
            self.bench.said.emit(job.error)
        if job.state is JobState.CANCELLED:
            self.step.say("Stopped before the pairs were written: nothing was trained.")
        self.bench.changed.emit()

    def _preset_chosen(self, index: int) -> None:
        self.bench.session.choose_preset(self.step.preset.itemData(index))
        self.bench.changed.emit()

    def _alone_toggled(self, on: bool) -> None:
        self.bench.session.train_with_partner(use=not on)
        self.bench.changed.emit()

    def _learn_toggled(self, on: bool) -> None:
        self.bench.session.learn_classes(learn=on)
        self.bench.changed.emit()

    def _titled(self, title: str) -> None:
        self.bench.session.call_student(title.strip())
        self.bench.changed.emit()

    def _open_folder(self) -> None:
        if self.bench.session.run is not None:
            QDesktopServices.openUrl(
                QUrl.fromLocalFile(str(self.bench.session.run.folder))
            )


class ControlComparing(QObject):
    """A button below the training that opens the comparison once both are there."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench = bench
        self.button = QPushButton("Compare with/without partner")
        step.column.addWidget(self.button)
        self.button.clicked.connect(self.compare)

    def show(self) -> None:
        """Enable the button, or say why not."""
        student = self.bench.session.student
        explain(self.button, COMPARE_TIP, why_no_comparison(student))

    def compare(self) -> CompareWidget | None:
        """Open *Compare students* with both; returns that panel."""
        student = self.bench.session.student
        if student is None:
            return None
        both = student_and_control(student)
        if both is None:
            return None
        panel = cast("CompareWidget", self.bench.open_panel(Panel.COMPARE))
        panel.compare_bundles(both, NOTES, self.bench.sparse_layer)
        return panel
