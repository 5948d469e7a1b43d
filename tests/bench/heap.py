"""Memory that the C library keeps, against memory that it gives back

What torch computes on a CPU, in turns: as this program sets glibc's heap, and as glibc
is without it. Every figure comes from a process of its own; the note says how much
memory the system had to zero. `BENCH_SIDE=4096 python -m tests.bench.heap`
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
from pathlib import Path

from tests.bench import embedding, training
from tests.bench.figures import HEADER, Figure, taking_turns
from tests.bench.versions import WORDS, figure_of

HERE = Path(__file__).parents[2]

AS_IT_IS = {"MALLOC_ARENA_TEST": "8"}
"""glibc's own default: that it is there at all makes this program leave it alone."""

MEASURED = (
    "tiles SCANNER torch",
    "tokens SCANNER torch",
    "test_resnet",
    "tf_efficientnet_lite0",
)


class Measure:
    """One thing that is measured, and what the system zeroed for it."""

    def __init__(self, what: str, home: Path, environment: dict[str, str]) -> None:
        self._what, self._home, self._environment = what, home, environment
        self.zeroed_gib: list[float] = []

    def __call__(self) -> float:
        os.environ.update(self._environment)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
        figure = figure_of(HERE, self._what, self._home)
        pages = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before
        self.zeroed_gib.append(pages * resource.getpagesize() / 2**30)
        for name in self._environment:
            del os.environ[name]
        return figure


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=5)
    rounds = asked.parse_args().rounds
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        embedding.painted_pyramid(home, embedding.SCANNER)
        training._write_tiles(home / "tiles")
        for what in MEASURED:
            words, unit = WORDS[what]
            kept, given = Measure(what, home, {}), Measure(what, home, AS_IT_IS)
            ours, baseline = taking_turns(kept, given, rounds)
            zeroed = (statistics.median(m.zeroed_gib) for m in (kept, given))
            note = "{:.1f} GiB zeroed, {:.1f} as it is".format(*zeroed)
            row = Figure(words, ours, unit, "glibc as it is", baseline, note)
            print(row.row(), flush=True)


if __name__ == "__main__":
    main()
