"""Whether both are one section, and who approved how they lie; part of step 2."""

from __future__ import annotations

from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.align.approval import (
    read_approver,
    write_approver,
)
from napari_histodistill.controllers.distil.partners import PartnerKind
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.steps import AlignStep
from napari_histodistill.widgets.shared.controls import set_tip


class Approving(QObject):
    """Keeps both questions and the session in step."""

    def __init__(self, bench: DistilBench, step: AlignStep) -> None:
        super().__init__(bench)
        self.bench, self.step = bench, step
        self._kept = ""
        try:
            self._kept = read_approver()
        except HistodistillError as error:
            set_tip(step.approver, str(error))
        step.approver.setText(self._kept)
        step.relation.activated.connect(self.relate)
        step.approved.toggled.connect(self.approve)
        step.approver.textEdited.connect(self.rename)
        step.approver.editingFinished.connect(self.keep_name)

    def relate(self, index: int) -> None:
        """Take what the sections are of each other."""
        self.bench.session.relate(self.step.relation.itemData(index))
        self.bench.changed.emit()

    def approve(self, on: bool) -> None:
        """Note that the person has looked at how both lie, or take it back."""
        self.bench.session.approve(self._name if on else "")
        self.bench.changed.emit()

    def rename(self) -> None:
        """Approve under another name what was approved."""
        if self.step.approved.isChecked():
            self.bench.session.approve(self._name)
        self.show()

    def keep_name(self) -> None:
        """Keep the name for the next time."""
        name = self._name
        if name != self._kept and self.bench.attempt(lambda: write_approver(name)):
            self._kept = name

    def show(self) -> None:
        """Draw both questions."""
        session, step = self.bench.session, self.step
        others = [p for p in session.partners if p.kind is not PartnerKind.SAME]
        step.show_questions(session.said.relation, shown=bool(others))
        why = "" if self._name else "Type a name first."
        step.show_approval(session.approved_by, why)

    @property
    def _name(self) -> str:
        text: str = self.step.approver.text()
        return text.strip()
