"""A measured figure: several runs, median and spread, and a baseline beside it."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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
    """Run an action once and return how long it took.

    With `HISTODISTILL_BENCH_CLOCK=cpu` in the environment it is the time that all cores
    together worked for it: what is left to measure on a machine that others use too.
    """
    cpu = os.environ.get("HISTODISTILL_BENCH_CLOCK") == "cpu"
    clock = time.process_time if cpu else time.perf_counter
    start = clock()
    action()
    return clock() - start


def taking_turns(
    ours: Callable[[], float], baseline: Callable[[], float], rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure two things alternately, so that a busy minute hits both."""
    pairs = [(ours(), baseline()) for _ in range(rounds)]
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)


def in_turns(
    actions: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, tuple[float, ...]]:
    """Measure several things in turns; each round begins with another of them."""
    names = list(actions)
    runs: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds):
        start = k % len(names)
        for name in names[start:] + names[:start]:
            runs[name].append(actions[name]())
    return {name: tuple(values) for name, values in runs.items()}
