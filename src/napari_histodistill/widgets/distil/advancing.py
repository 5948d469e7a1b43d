"""Advanced settings in step 4 of *Distil a student*: form and session in line."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject

from napari_histodistill.widgets.distil.advanced import AdvancedForm
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.steps import TrainStep
from napari_histodistill.widgets.shared.parts import explain

TIP = "Every setting of the training, starting from the preset."


class Advancing(QObject):
    """Shows the preset's settings, and keeps what is changed by hand."""

    def __init__(self, bench: DistilBench, step: TrainStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self.form: AdvancedForm | None = None
        step.advanced.toggled.connect(self._opened)

    def show(self) -> None:
        """Draw the form from the session."""
        session, button = self.bench.session, self.step.advanced
        why = ""
        if session.training_pairs < 16:  # of none, there are none
            why = session.why_no_pairs or (
                "Preview the pairs first: the settings depend on them."
            )
        explain(button, TIP, why)
        number = len(session.draft().changed) if session.typed and not why else 0
        button.setText(f"Advanced ({number})…" if number else "Advanced…")
        opened = button.isChecked() and not why
        if opened and self.form is None:
            # Some seventy widgets: made when somebody wants to see them.
            self.form = AdvancedForm()
            self.form.typed.connect(self._typed)
            self.form.reset.connect(self._reset)
            self.step.settings.addWidget(self.form)
        if self.form is not None:
            self.form.setVisible(opened)
            if opened:
                self.form.show_draft(session.draft())

    def _opened(self, _on: bool) -> None:
        self.show()

    def _typed(self, field: Any, text: str) -> None:
        session = self.bench.session
        session.typed = dict(session.draft().type(field, text).typed)
        self._changed()

    def _reset(self, path: Any) -> None:
        session = self.bench.session
        session.typed = dict(session.draft().reset(path).typed)
        self._changed()

    def _changed(self) -> None:
        self.bench.session.trained = ()
        self.bench.changed.emit()
