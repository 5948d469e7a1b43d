"""After a training: whether it is more than noise, and whether the partner helps.

Below the training stand its figure beside chance and other seeds, a button that trains
a second seed, and one that asks labelled tiles of other sections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QGridLayout, QPushButton, QWidget

from napari_histodistill.controllers.distil.control import (
    arms_of,
    help_table,
    help_work,
    say_judged,
    say_measured,
    why_no_help,
    why_no_help_here,
    why_no_second_seed,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.run import free_run
from napari_histodistill.controllers.shared.background_import import (
    load_student_in_background,
)
from napari_histodistill.controllers.shared.job import Job
from napari_histodistill.controllers.shared.map_work import StudentLoader
from napari_histodistill.distill.runs.kin import prepare_second_seed
from napari_histodistill.distill.scoring.arms import ArmsJudged, ArmsProgress
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.controls import (
    Hint,
    PlainLabel,
    explain,
    put,
    row,
    set_tip,
)
from napari_histodistill.widgets.shared.forms import ask_folder

RETRIEVAL_TIP = (
    "Retrieval: how often a held-out place finds its own partner among all held-out "
    "ones."
)
SEED_TIP = (
    "Train the same again, on the same pairs, with another seed: what two seeds differ "
    "by is noise."
)
HELP_TIP = (
    "Choose a folder of labelled tiles (manifest.csv with label and case_id) of other "
    "sections: are models with the partner better on them than those without?"
)
HERE_TIP = (
    "Judge both on the pairs that this training held out: their labels are the classes "
    "of the partner's mask, at the centre of every tile."
)
FOLDER_TITLE = "Folder of labelled tiles"


class Helping(QObject):
    """Keeps the figure, both buttons and the answer in step.

    Parameters
    ----------
    bench : DistilBench
        The panel's.
    step : TrainStep
        Where it stands.
    begin : callable
        Starts the run of a folder.
    load : callable
        Loads a student; for tests.
    """

    def __init__(
        self,
        bench: DistilBench,
        step: TrainStep,
        begin: Callable[[Path], None],
        *,
        load: StudentLoader = load_student_in_background,
    ) -> None:
        super().__init__(bench)
        self.bench, self._begin, self._load = bench, begin, load
        self.measured, self.answer = Hint(), Hint()
        set_tip(self.measured, RETRIEVAL_TIP)
        self.second = QPushButton("Train a second seed")
        self.ask = QPushButton("Does it help?")
        self.here = QPushButton("… on held-out pairs")
        self.table = HelpTable()
        put(step.column, self.measured, row(self.second), row(self.ask, self.here))
        put(step.column, self.table, self.answer)
        self._of: object = None
        self._why_not_here = ""
        self.second.clicked.connect(self.train_second_seed)
        self.ask.clicked.connect(self.ask_tiles)
        self.here.clicked.connect(self.judge_here)

    def show(self) -> None:
        """Draw the figure, and enable what is possible."""
        session = self.bench.session
        bundle = session.ready_student
        why = why_no_second_seed(session.student, works=session.works)
        explain(self.second, SEED_TIP, why)
        asked = self.bench.pump.is_active(DistilJob.HELPING)
        busy = "Both are being judged: a moment." if asked else ""
        explain(self.ask, HELP_TIP, busy or why_no_help(bundle))
        self._show_measured(bundle)
        why_not_here = self._why_not_here if bundle else why_no_help_here(None)
        explain(self.here, HERE_TIP, busy or why_not_here)

    def train_second_seed(self) -> None:
        """Train the same again with another seed."""
        bundle = self.bench.session.ready_student
        if bundle is None:
            return
        folder = self.bench.runs / free_run(self.bench.runs)
        try:
            self._begin(prepare_second_seed(bundle, folder))
        except HistodistillError as error:
            self.bench.said.emit(str(error))

    def ask_tiles(self) -> None:
        """Let the person choose labelled tiles, and judge both arms on them."""
        folder = ask_folder(FOLDER_TITLE, self.ask)
        if folder is not None:
            self.judge(folder)

    def judge_here(self) -> None:
        """Judge both arms on the pairs that the training held out."""
        bundle = self.bench.session.ready_student
        if bundle is not None:
            self.judge(bundle.parent, held_out=True)

    def judge(self, tiles: Path, *, held_out: bool = False) -> None:
        """Judge models with and without the partner on labelled tiles."""
        bundle = self.bench.session.ready_student
        arms = None if bundle is None else arms_of(bundle)
        if arms is None:
            return
        count = len(arms.students), len(arms.controls)
        self.table.show_rows(())
        self.answer.say(f"Looking at the tiles: {count[0]} with, {count[1]} without…")
        self.bench.pump.start(
            help_work(arms, tiles, self._load, held_out=held_out),
            key=DistilJob.HELPING,
            on_reports=self._judged,
            on_end=self._ended,
            slow=True,
        )
        self.bench.changed.emit()

    def _judged(self, reports: list[ArmsProgress | ArmsJudged]) -> None:
        last = reports[-1]
        if isinstance(last, ArmsJudged):
            self.table.show_rows(help_table(last))
            self.answer.say(f"Does the partner help? {say_judged(last)}")
        else:
            self.answer.say(f"{last.done:,} of {last.total:,} looks at tiles…")

    def _ended(self, job: Job[object]) -> None:
        if job.error:
            self.answer.say(job.error)
        self.bench.changed.emit()

    def _show_measured(self, bundle: Path | None) -> None:
        """Read the runs' events when there is another student, or another seed."""
        if bundle is None:
            self._of = None
            self.measured.say("")
            self._forget_answer()
            return
        arms = arms_of(bundle)
        of = bundle, (bundle / "spec.json").stat().st_mtime_ns, arms
        if of == self._of:
            return
        self._of = of
        self._why_not_here = why_no_help_here(bundle)
        try:
            self.measured.say(say_measured(bundle))
        except HistodistillError as error:
            self.measured.say(str(error))
        self._forget_answer()

    def _forget_answer(self) -> None:
        self.answer.say("")
        self.table.show_rows(())


class HelpTable(QWidget):
    """Both arms and their difference, below each other."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(2, 1)
        self._grid.addWidget(PlainLabel("Balanced accuracy"), 0, 0, 1, 3)
        self.rows: tuple[tuple[str, ...], ...] = ()
        self._cells: list[QWidget] = []
        self.hide()

    def show_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Show rows of three cells; none take the table away."""
        for cell in self._cells:
            self._grid.removeWidget(cell)
            cell.deleteLater()
        self._cells = []
        self.rows = tuple(tuple(one) for one in rows)
        for k, one in enumerate(self.rows, start=1):
            for column, text in enumerate(one):
                cell = Hint(text) if column == 2 else PlainLabel(text)
                self._cells.append(cell)
                self._grid.addWidget(cell, k, column)
        self.setVisible(bool(self.rows))
