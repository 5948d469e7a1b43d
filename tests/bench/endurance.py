"""A hundred runs and a thousand open and close cycles in one viewer

What must stay flat: resident memory, threads and file handles. The same cycles,
fewer of them, are a test (``tests/widgets/test_endurance.py``). A small slide of flat
tissue and a student that takes no time: what is measured is the window, not a network.

Run by itself: ``python -m tests.bench.endurance [RUNS [CYCLES]]``; a line is written
after every tenth.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS, CYCLES = 100, 1000
WARM_UP = 10
"""Of the first cycles nothing is asked: caches fill, pools start their threads."""


@dataclass(frozen=True)
class Held:
    """What the process holds."""

    mib: float
    threads: int
    handles: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        status = Path("/proc/self/status").read_text("ascii")
        kib = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        handles = sum(1 for _ in Path("/proc/self/fd").iterdir())
        return cls(int(kib.split()[1]) / 1024, threading.active_count(), handles)


class Endurance:
    """One viewer with the panel docked, and what is done to it again and again."""

    def __init__(
        self, viewer: Any, widget: Any, wait: Callable[[Callable[[], bool]], None]
    ) -> None:
        self.viewer, self.widget, self._wait = viewer, widget, wait

    def idle(self) -> bool:
        return not self.widget.bench.pump.busy

    def open(self, path: Path) -> None:
        """Open a slide file through the panel, until its tissue is found."""
        self.widget.choosing.open_path(path)
        self._wait(lambda: self.idle() and not self.widget.session.why_not_run)

    def run(self) -> None:
        """Run anew over the whole slide."""
        self.widget.mapping.run()
        self._wait(self.idle)
        live = self.widget.session.live
        assert live is not None, self.widget.run_panel.message.text()
        assert live.cells_done > 0, self.widget.run_panel.message.text()

    def close(self) -> None:
        """Take every layer away, as a person does with the bin."""
        self.viewer.layers.clear()
        # The panel lets go once napari has removed all of them.
        self._wait(lambda: self.idle() and self.widget.session.slide is None)


def repeated(
    action: Callable[[], None], times: int, tell: Callable[[str], None]
) -> list[Held]:
    """Repeat an action; return what is held after every tenth, without the warm-up."""
    found = []
    every = max(1, times // 10)
    for k in range(1, times + 1):
        action()
        if k > min(WARM_UP, times // 2) and k % every == 0:
            found.append(Held.now())
            tell(f"{k}: {found[-1]}")
    return found


def open_endurance() -> Endurance:
    """Open a window with the panel and a student of a test."""
    import napari
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    from napari_histodistill.controllers.shared.student_list import StudentChoice
    from napari_histodistill.widgets.explore.dock import ExploreWidget
    from tests.fakes import colour_student

    student = colour_student()
    viewer = napari.Viewer(show=True)
    widget = ExploreWidget(
        viewer,
        load=lambda _name, device="auto": student,
        students=[StudentChoice("colour", student.spec)],
    )
    viewer.window.add_dock_widget(widget, area="right")
    app = QApplication.instance()

    def wait(done: Callable[[], bool]) -> None:
        stop = time.monotonic() + 120
        while not done():
            app.processEvents()
            # Qt deletes widgets only in a loop that was entered; this one is ours.
            app.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            time.sleep(0.001)
            if time.monotonic() > stop:
                raise TimeoutError(widget.run_panel.message.text())
        app.processEvents()

    return Endurance(viewer, widget, wait)


def write_small_slide(folder: Path) -> Path:
    """Write the slide of these cycles."""
    from napari_histodistill.slides.tissue.writing import write_pyramid
    from tests.fakes import tissue_image

    return write_pyramid(folder / "small.ome.tif", tissue_image(1200, 1600), mpp=0.5)


def measure(
    runs: int = RUNS, cycles: int = CYCLES, tell: Callable[[str], None] = lambda _: None
) -> list[Figure]:
    """Return the figures of this section: what is held after, against the beginning."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HISTODISTILL_CACHE"] = folder
        path = write_small_slide(Path(folder))
        window = open_endurance()
        window.open(path)
        tell("runs")
        after_runs = repeated(window.run, runs, tell)
        window.close()

        def cycle() -> None:
            window.open(path)
            window.close()

        tell("open and close")
        after_cycles = repeated(cycle, cycles, tell)
        window.widget.shut_down()
        window.viewer.close()
    return [
        Figure(f"{what} after {n} {done}", (last,), unit, "after the warm-up", (first,))
        for done, n, held in (
            ("runs", runs, after_runs),
            ("open and close cycles", cycles, after_cycles),
        )
        for what, unit, first, last in (
            ("memory", "MiB", held[0].mib, held[-1].mib),
            ("threads", "", held[0].threads, held[-1].threads),
            ("file handles", "", held[0].handles, held[-1].handles),
        )
    ]


if __name__ == "__main__":
    from tests.bench.measure import on_a_screen

    on_a_screen()
    counts = [int(argument) for argument in sys.argv[1:3]]
    figures = measure(*counts, tell=lambda line: print(line, flush=True))
    for figure in figures:
        sys.stdout.write(f"{figure.row()}\n")
