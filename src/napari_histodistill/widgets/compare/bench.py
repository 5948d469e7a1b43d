"""The bench of *Compare students*: its session and overlays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_histodistill.controllers.compare.session import CompareSession
from napari_histodistill.controllers.compare.work import LETTERS
from napari_histodistill.widgets.compare.overlays import CompareOverlays
from napari_histodistill.widgets.shared.bench import Bench

if TYPE_CHECKING:
    from napari.components import ViewerModel


class CompareBench(Bench[CompareSession, CompareOverlays]):
    """The bench of *Compare students*."""

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(viewer, parent, CompareSession(), CompareOverlays)

    @property
    def names(self) -> tuple[str, str]:
        """Names of the layers of both students."""
        one, other = (
            f"{letter}: {student.name}"
            for letter, student in zip(LETTERS, self.session.students, strict=True)
        )
        return one, other
