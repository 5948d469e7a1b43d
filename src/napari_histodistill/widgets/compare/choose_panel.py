"""The choices of *Compare students*: slide, two students, region, detail, measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QPushButton

from napari_histodistill.controllers.compare.work import LETTERS
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.maps.difference import Measure
from napari_histodistill.widgets.shared.controls import (
    Hint,
    PlainLabel,
    SteadyHint,
    StudentCombo,
    explain,
    info_button,
    row,
    set_tip,
)
from napari_histodistill.widgets.shared.forms import editor
from napari_histodistill.widgets.shared.run_panel import RunPanel
from napari_histodistill.widgets.shared.slide_rows import DetailSlider, RegionRow
from napari_histodistill.widgets.shared.slide_section import (
    SlideCombo,
    SlideSection,
)

REGIONS = (
    (RegionChoice.WHOLE, "Whole", "Compare on all tissue of the slide."),
    (RegionChoice.VIEW, "View", "Compare on the tissue that the canvas shows now."),
)
MEASURES: tuple[tuple[Measure, str, str], ...] = (
    (
        "classes",
        "their classes",
        "How far apart the probabilities are that A and B give to their classes.",
    ),
    (
        "neighbours",
        "what they find alike",
        "Which places look most alike to A, and which to B: the share that differs. "
        "Works for any two models.",
    ),
    (
        "news",
        "what B sees and A does not",
        "The strongest difference between places that B sees and that cannot be "
        "predicted from A, with its two ends in two colours.",
    ),
)
SLIDE_TIP = "Which of the opened slides both look at."
WHO = (
    "The first model, for example the one trained without the partner. Models are also "
    "called students: small networks that need only the H&E image.",
    "The second model, for example the one trained with the partner.",
)
NOISE_TIP = (
    "Let another seed of the same recipe look at the slide, too: two trainings that "
    "differ in chance alone differ as well, and what A and B differ by is set beside "
    "that."
)
TRAIN_SEED = "Train a second seed"
TRAIN_SEED_TIP = (
    "Train the same again, on the same pairs, with another seed: first of the model "
    "without the partner. Then noise is measured, and the sentence says what it means."
)
CANCEL_SEED_TIP = "End the training; what it has learned so far is thrown away."
RUN_TIP = (
    "Let both models look at the slide, where they have not yet, and show where they "
    "differ."
)


class CompareRun(RunPanel):
    """The run of two students: as in *Explore slide*, but each where it was loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.device.hide()

    def show_ready(self, text: str, why_not: str) -> None:
        """Show the button, and what it does here."""
        super().show_ready(text, why_not)
        explain(self.button, RUN_TIP, why_not)

    def show_progress(self, share: float, words: str) -> None:
        """Show how far both are."""
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * share))
        self.say(words)


class ChoosePanel(SlideSection):
    """The first section of *Compare students*."""

    student_chosen = Signal(int, int)
    open_bundle = Signal(int)
    swapped = Signal()
    measure_chosen = Signal(str)
    noise_chosen = Signal(bool)

    def __init__(self) -> None:
        detail = DetailSlider(
            "Distance of the places that are compared: finer takes longer.",
            "Choose slide and models first.",
        )
        self.slide: SlideCombo = SlideCombo(SLIDE_TIP)
        super().__init__(self.slide, RegionRow(REGIONS), detail)
        self.sentence = SteadyHint(5)
        self.students = tuple(StudentCombo(tip) for tip in WHO)
        self.infos = tuple(info_button() for _ in LETTERS)
        self.words = tuple(SteadyHint(2) for _ in LETTERS)
        self.noise = QCheckBox("Measure noise")
        self.noise.setChecked(True)
        self.noise_words = Hint()
        self.train_seed = QPushButton(TRAIN_SEED)
        self.train_seed.hide()
        self.swap = QPushButton("Swap")
        self._measure_tip = ""
        measures = [(text, key) for key, text, _ in MEASURES]
        self.measure = editor(str, "", choices=measures).native
        self.runner = CompareRun()
        self._lay_out()
        self._connect()

    def show_students(self, names: Sequence[str], current: Sequence[int]) -> None:
        """List the students for A and for B, and the way to open another."""
        for combo, index in zip(self.students, current, strict=True):
            combo.show_students(names, index)

    def show_words(self, words: Sequence[str]) -> None:
        """Say what there is of either map."""
        for label, text in zip(self.words, words, strict=True):
            label.say(text)

    def show_noise(self, words: str, why_not: str) -> None:
        """Say how noise is measured, or why it is not."""
        self.noise_words.say(words)
        explain(self.noise, NOISE_TIP, why_not)

    def show_seed_training(self, *, shown: bool, active: bool, why_not: str) -> None:
        """Offer to train a second seed, or to cancel that."""
        self.train_seed.setVisible(shown or active)
        self.train_seed.setText("Cancel the training" if active else TRAIN_SEED)
        tip = CANCEL_SEED_TIP if active else TRAIN_SEED_TIP
        explain(self.train_seed, tip, "" if active else why_not)

    def show_measures(self, chosen: Measure, why_not: Callable[[Measure], str]) -> None:
        """Choose a measure; those that do not fit say why."""
        for k, (key, _, tip) in enumerate(MEASURES):
            why = why_not(key)
            item = self.measure.model().item(k)
            item.setEnabled(not why)
            set_tip(item, why or tip)
            if key == chosen:
                self.measure.setCurrentIndex(k)
                self._measure_tip = tip
                set_tip(self.measure, tip)

    def lock(self, why: str) -> None:
        """Disable what must not change during a run; "" unlocks."""
        super().lock(why)
        for combo, tip in zip(self.students, WHO, strict=True):
            explain(combo, tip, why)
        explain(self.swap, "Make A the second and B the first.", why)
        explain(self.measure, self._measure_tip, why)

    def _lay_out(self) -> None:
        grid = self.grid
        grid.addWidget(self.sentence, 0, 0, 1, 2)
        grid.addWidget(PlainLabel("Slide"), 1, 0)
        grid.addLayout(row(self.slide, self.slide_info, self.open), 1, 1)
        self.lay_out_questions(2)
        for k, letter in enumerate(LETTERS):
            grid.addWidget(PlainLabel(letter), 3 + 2 * k, 0)
            grid.addLayout(row(self.students[k], self.infos[k]), 3 + 2 * k, 1)
            grid.addWidget(self.words[k], 4 + 2 * k, 1)
        grid.addLayout(row(self.noise, self.train_seed), 7, 1)
        grid.addWidget(self.noise_words, 8, 1)
        grid.addWidget(PlainLabel("Region"), 9, 0)
        grid.addLayout(row(self.regions, self.swap), 9, 1)
        grid.addWidget(PlainLabel("Detail"), 10, 0)
        grid.addWidget(self.detail, 10, 1)
        grid.addWidget(self.detail_words, 11, 1)
        grid.addWidget(PlainLabel("By"), 12, 0)
        grid.addWidget(self.measure, 12, 1)
        grid.addWidget(self.runner, 13, 0, 1, 2)

    def _connect(self) -> None:
        for which, combo in enumerate(self.students):
            combo.student_chosen.connect(
                lambda index, which=which: self.student_chosen.emit(which, index)
            )
            combo.open_bundle.connect(lambda which=which: self.open_bundle.emit(which))
        self.swap.clicked.connect(self.swapped)
        self.noise.toggled.connect(self.noise_chosen)
        self.measure.activated.connect(
            lambda k: self.measure_chosen.emit(MEASURES[k][0])
        )
