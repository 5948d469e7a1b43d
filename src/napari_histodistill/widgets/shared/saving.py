"""What is asked before something is saved: a model's title, what to export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QMenu, QToolButton

from napari_histodistill.controllers.shared.exporting import ExportKind
from napari_histodistill.widgets.shared.controls import PlainLabel, set_tip
from napari_histodistill.widgets.shared.forms import asked


@dataclass(frozen=True, slots=True)
class ModelTitle:
    """What a model that is saved is called; empty for a neutral title."""

    title: str = asked(
        "What the model is called. No layer's or slide's name is saved in it.", "",
        label="Title",
    )  # fmt: skip


class ExportButton(QToolButton):
    """A button with a menu; sends the :class:`ExportKey` of what was chosen."""

    export = Signal(object)

    def __init__(self, kinds: Sequence[ExportKind]) -> None:
        super().__init__()
        # Room for the menu's arrow, which napari's theme draws over the text.
        self.setText("Export" + 4 * "\N{NO-BREAK SPACE}")
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        for kind in kinds:
            action = menu.addAction(kind.title)
            set_tip(action, kind.tooltip)
            action.triggered.connect(
                lambda _=False, key=kind.key: self.export.emit(key)
            )
        self.setMenu(menu)


def research_label() -> QLabel:
    """Return what this program is not for."""
    label = PlainLabel("Research use only")
    set_tip(label, "Not for diagnosis: no map here has been validated.")
    return label
