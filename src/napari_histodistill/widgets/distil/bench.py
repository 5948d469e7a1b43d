"""Shared by all steps of *Distil a student*: viewer, session, jobs, chosen layers."""

from __future__ import annotations

import gc
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.shared.job_pump import JobPump

if TYPE_CHECKING:
    from napari.components import ViewerModel


class SameLayer(Enum):
    """Stands among the partner layers for the H&E layer itself."""

    FINER = "Higher magnification of the same layer"


SAME = SameLayer.FINER

PartnerLayer: TypeAlias = Layer | SameLayer
"""A layer that may teach."""

PLUGIN = "napari-histodistill"


class Panel(Enum):
    """Other panels, by the name that ``napari.yaml`` gives them."""

    EXPLORE = "Explore slide"
    COMPARE = "Compare students"


TURN_MS = 20
"""Long enough for the window to be drawn between two turns."""


class Turns(QObject):
    """Does several things in turn, and lets the window be drawn after each.

    What napari needs long for (a layer or a panel that is new) should not add up to a
    freeze. Nor should the search for garbage, which goes through a million objects and
    takes a quarter of a second and more: until all is done, there is none.

    Parameters
    ----------
    parent : QObject
        Owns this, and stops it when it closes.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._left: list[Callable[[], object]] = []
        self._timer = QTimer(self)
        self._timer.setInterval(TURN_MS)
        self._timer.timeout.connect(self._next)
        self._searches = False  # for garbage, once all is done

    @property
    def active(self) -> bool:
        """Whether something is still to be done."""
        return bool(self._left)

    def start(self, *acts: Callable[[], object]) -> None:
        """Do these, one a turn, in place of what was still to be done."""
        self._left = list(acts)
        self._searches |= gc.isenabled()
        gc.disable()
        self._timer.start()

    def stop(self) -> None:
        """Do no more."""
        self._left = []
        self._timer.stop()
        if self._searches:
            self._searches = False
            gc.enable()

    def _next(self) -> None:
        if self._left:
            self._left.pop(0)()
        else:
            self.stop()  # a turn later: the last has been drawn


class DistilBench(QObject):
    """One panel's shared state on the GUI thread.

    Attributes
    ----------
    changed : Signal
        Something was chosen or computed: every step draws itself again.
    said : Signal(str)
        A sentence for the person; "" takes the last one back.
    sparse_layer : Image or None
        The H&E.
    partner_layers : list of Layer or SameLayer
        One for each of the session's partners, in their order.
    """

    changed = Signal()
    said = Signal(str)

    def __init__(self, viewer: ViewerModel, runs: Path, parent: QObject) -> None:
        super().__init__(parent)
        self.viewer, self.runs = viewer, runs
        self.session = DistilSession()
        self.pump = JobPump(self)
        self.sparse_layer: Image | None = None
        self.partner_layers: list[PartnerLayer] = []

    def attempt(self, act: Callable[[], object]) -> bool:
        """Do something that may be refused; say why, and return whether it was done."""
        try:
            act()
        except HistodistillError as error:
            self.said.emit(str(error))
            return False
        return True

    def open_panel(self, panel: Panel) -> QWidget:
        """Open another panel, or bring it to the front, and return it."""
        added = self.viewer.window.add_plugin_dock_widget(
            PLUGIN, panel.value, tabify=True
        )
        opened: QWidget = added[1]
        return opened

    def timer(self, period_ms: int, act: Callable[[], None]) -> QTimer:
        """Return a timer that belongs to the panel; not started."""
        timer = QTimer(self)
        timer.setInterval(period_ms)
        timer.timeout.connect(act)
        return timer
