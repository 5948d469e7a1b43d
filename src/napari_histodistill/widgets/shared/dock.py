"""A panel beside the canvas: its column of sections, its coming and going."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtGui import QCloseEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QDockWidget,
    QFrame,
    QMainWindow,
    QScrollArea,
    QWidget,
)

from napari_histodistill.widgets.shared.controls import stack

_NUMBERS = count()


class Dock(QWidget):
    """Lets go of the viewer once, whichever way it is closed.

    napari closes its window without telling the docks in it, and takes a dock out
    without closing the panel in it: both are watched here. A panel says in
    :meth:`let_go` what it stops, and may ask in :meth:`may_close` before the window
    closes.

    Parameters
    ----------
    width, height : int
        What the panel asks for, pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self._size = QSize(width, height)
        self._closed = False
        self._is_on_top = True
        self._number = next(_NUMBERS)
        self._window: QMainWindow | None = None
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.shut_down)

    @property
    def is_closed(self) -> bool:
        """Whether the panel has let go."""
        return self._closed

    @property
    def is_in_front(self) -> bool:
        """Whether the panel is seen: Qt calls one behind another tab visible, too."""
        return bool(self.isVisible() and self._is_on_top)

    def let_go(self) -> None:
        """Stop all jobs and let go of the viewer; called once."""
        raise NotImplementedError

    def may_close(self) -> bool:
        """Ask what must be asked before napari's window closes; False keeps it."""
        return True

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Be asked before napari's window closes."""
        if (
            event is not None
            and event.type() == QEvent.Type.Close
            and watched is self._window
            and not self._closed
            and not self.may_close()
        ):
            event.ignore()
            return True
        handled: bool = super().eventFilter(watched, event)
        return handled

    def shut_down(self) -> None:
        """Stop all jobs and let go of the viewer; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self.let_go()
        if self._window is not None:
            self._window.removeEventFilter(self)
            # PySide6 keeps what a signal calls where Python's search for garbage does
            # not look: a panel that held its window would keep it for good.
            self._window = None
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.disconnect(self.shut_down)

    def lay_out(self, sections: Iterable[QWidget], *, spacing: int) -> None:
        """Put sections below each other, in a column that scrolls if it must."""
        inside = QWidget()
        column = stack(inside, *sections)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(spacing)
        column.addStretch(1)
        stack(self, _Column(inside, self._size.width() - 20))

    def sizeHint(self) -> QSize:
        """As large as the panel was said to be."""
        return self._size

    def closeEvent(self, event: QCloseEvent) -> None:
        """Let go, then close."""
        self.shut_down()
        super().closeEvent(event)

    def showEvent(self, event: QShowEvent) -> None:
        """Watch the window that we are in: it closes without telling its docks."""
        super().showEvent(event)
        window = self._main_window()
        if self._closed or window is None or window is self._window:
            return
        if self._window is not None:
            self._window.removeEventFilter(self)
        self._window = window
        window.destroyed.connect(self._window_gone)
        window.installEventFilter(self)
        dock = self._dock_widget()
        if dock is not None:
            dock.visibilityChanged.connect(self._turned_up)
        QTimer.singleShot(0, self._join_others)

    def event(self, event: QEvent) -> bool:
        """Let go also where a dock lets go of us without closing us."""
        orphaned = event.type() == QEvent.Type.ParentChange and self.parent() is None
        if orphaned or event.type() == QEvent.Type.DeferredDelete:
            self.shut_down()
        if orphaned:
            # Nothing else ends it: what its buttons call holds it, and with PySide6
            # Python's search for garbage does not see that.
            self.deleteLater()
        handled: bool = super().event(event)
        return handled

    def _turned_up(self, on_top: bool) -> None:
        """Note whether our tab was chosen or another."""
        self._is_on_top = on_top

    def _join_others(self) -> None:
        """Become a tab beside the other panels: below them, none has room enough."""
        window, mine = self._window, self._dock_widget()
        if self._closed or mine is None or window is None:
            return
        area = window.dockWidgetArea(mine)
        for panel in window.findChildren(Dock):
            theirs = panel._dock_widget()
            # The newer one joins the older, whichever is laid out first.
            if theirs in (None, mine) or panel._number > self._number:
                continue
            if window.dockWidgetArea(theirs) == area and not theirs.isFloating():
                window.tabifyDockWidget(theirs, mine)
                mine.show()
                QTimer.singleShot(0, mine.raise_)  # once the tabs are there
                return

    def _main_window(self) -> QMainWindow | None:
        """Return napari's window, also where our dock floats in one of its own."""
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QMainWindow):
            parent = parent.parentWidget()
        return parent

    def _dock_widget(self) -> QDockWidget | None:
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parentWidget()
        return parent

    def _window_gone(self, _window: QObject | None = None) -> None:
        self._window = None
        self.shut_down()


def is_in_front(control: QWidget) -> bool:
    """Return whether the panel that a control belongs to is seen."""
    panel: QWidget | None = control
    while panel is not None and not isinstance(panel, Dock):
        panel = panel.parentWidget()
    return panel is not None and panel.is_in_front


def line() -> QFrame:
    """Return a thin line between two sections."""
    drawn = QFrame()
    drawn.setFrameShape(QFrame.Shape.HLine)
    drawn.setFrameShadow(QFrame.Shadow.Sunken)
    return drawn


class _Column(QScrollArea):
    """Scrolls up and down only: it is at least as wide as what is in it.

    It becomes wider when something wider appears, and stays so: nothing is cut off, and
    nothing moves back and forth.
    """

    def __init__(self, inside: QWidget, width: int) -> None:
        super().__init__()
        self.setMinimumWidth(width)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(inside)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Make room for what has become wider."""
        handled: bool = super().eventFilter(watched, event)
        if (
            event is not None
            and event.type() == QEvent.Type.LayoutRequest
            and isinstance(watched, QWidget)
            and watched is self.widget()
        ):
            bar = self.verticalScrollBar()
            beside = 0 if bar is None else bar.sizeHint().width()
            wanted = watched.minimumSizeHint().width() + beside
            self.setMinimumWidth(max(self.minimumWidth(), wanted))
        return handled
