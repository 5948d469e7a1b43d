"""The bench of *Explore slide*: its session and overlays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_histodistill.controllers.explore.session import ExploreSession
from napari_histodistill.widgets.shared.bench import Bench
from napari_histodistill.widgets.shared.overlays import Overlays

if TYPE_CHECKING:
    from napari.components import ViewerModel


class ExploreBench(Bench[ExploreSession, Overlays]):
    """The bench of *Explore slide*."""

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(viewer, parent, ExploreSession(), Overlays)

    def _make_overlays(self) -> None:
        super()._make_overlays()
        if self.overlays is not None:
            self.overlays.adopt()
