#!/usr/bin/env python3
"""Prints what share of each package's lines the tests ran, and the least covered files.

    .ci/covered.py REPORT

REPORT is what ``coverage json`` wrote. Exits with 1 where 90 % of all
lines are not reached.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

GOAL = 0.9
PACKAGE = "napari_histodistill"


def share(lines: list[tuple[int, int]]) -> float:
    """Return the share of lines that were run, of (run, all) counts."""
    return sum(run for run, _ in lines) / max(1, sum(n for _, n in lines))


def main(report: str) -> bool:
    """Print the table; return whether the goal is met."""
    files: dict[str, tuple[int, int]] = {}
    for name, file in json.loads(Path(report).read_text("utf-8"))["files"].items():
        inside = name.replace("\\", "/").rpartition(f"{PACKAGE}/")[2]
        counts = file["summary"]
        files[inside] = counts["covered_lines"], counts["num_statements"]
    packages: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for name, lines in files.items():
        packages[name.partition("/")[0] if "/" in name else "."].append(lines)
    for name, found in sorted(packages.items()):
        print(f"{name:12} {share(found):6.1%} of {sum(n for _, n in found):5} lines")
    total = share(list(files.values()))
    print("\nleast covered:")
    for name, lines in sorted(files.items(), key=lambda one: share([one[1]]))[:12]:
        print(f"{share([lines]):6.1%}  {name}")
    print(f"\nall: {total:.1%} (the goal is {GOAL:.0%})")
    return total >= GOAL


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1]))
