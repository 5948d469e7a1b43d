"""A measured figure: several runs, median and spread, and a baseline beside it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Figure:
    """One row of RESULTS.md."""

    what: str
    runs: tuple[float, ...]
    unit: str
    baseline: str = ""
    baseline_runs: tuple[float, ...] = ()
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def ratio(self) -> float | None:
        if not self.baseline_runs:
            return None
        return self.median / statistics.median(self.baseline_runs)

    def row(self) -> str:
        """One line of a Markdown table."""
        spread = f"{min(self.runs):.4g} to {max(self.runs):.4g}"
        base = ""
        if self.baseline_runs:
            base = f"{self.baseline}: {statistics.median(self.baseline_runs):.4g}"
        ratio = "" if self.ratio is None else f"{self.ratio:.3g}"
        cells = (
            self.what,
            f"{self.median:.4g} {self.unit}",
            f"{spread} ({len(self.runs)} runs)",
            base,
            ratio,
            self.note,
        )
        return "| " + " | ".join(cells) + " |"


HEADER = (
    "| what | median | spread | baseline in the same run | ratio | note |\n"
    "|---|---|---|---|---|---|"
)


def seconds(action: Callable[[], object]) -> float:
    """Run an action once and return how long it took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def taking_turns(
    ours: Callable[[], float], baseline: Callable[[], float], rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure two things alternately, so that a busy minute hits both."""
    pairs = [(ours(), baseline()) for _ in range(rounds)]
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
