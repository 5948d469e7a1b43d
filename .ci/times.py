#!/usr/bin/env python3
"""Prints how long each part of a run of tox took, and the line each part ended with.

    .ci/times.py SECONDS REPORT…

Each REPORT is what ``tox run --result-json REPORT`` wrote; SECONDS is the time of all.
What no part's commands account for was spent on making environments. The closing
lines are repeated here because those of the first parts are far up by now.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def spent(seconds: float) -> str:
    """Return a duration as minutes and seconds: ``12:05``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def closing_line(commands: list[dict[str, Any]]) -> str:
    """Return the last line that a part printed, without rules and colours."""
    said = "\n".join(str(one["output"]) for one in commands)
    lines = [line.strip(" =\r") for line in COLOURS.sub("", said).split("\n")]
    return next((line for line in reversed(lines) if line), "")


def table(parts: dict[str, Any], total_s: float) -> list[str]:
    """Return the lines: environments first, each part, the total."""
    rows = []
    for name, part in parts.items():
        # What runs before `commands` (`commands_pre`) makes the environment.
        commands = [
            one for one in part.get("test", []) if one["run_id"].startswith("commands[")
        ]
        state = "ok" if part["result"]["success"] else "FAILED"
        work = sum(one["elapsed"] for one in commands)
        rows.append((name, work, f"{state:6}  {closing_line(commands)}"))
    making = max(0.0, total_s - sum(work for _, work, _ in rows))
    rows = [("environments", making, ""), *rows, ("total", total_s, "")]
    return [f"{name:12} {spent(s):>6}  {more}".rstrip() for name, s, more in rows]


def main(total_s: str, *reports: str) -> None:
    """Print the table, unless tox was stopped before it wrote a report."""
    parts: dict[str, Any] = {}
    for report in reports:
        if Path(report).exists():
            found = json.loads(Path(report).read_text("utf-8")).get("testenvs", {})
            # A report names parts, too, that were not its own, without a result.
            parts |= {name: part for name, part in found.items() if "result" in part}
    if not parts:
        return
    sys.stdout.reconfigure(errors="replace")  # a console that knows no "µ"
    print("\nminutes:seconds", *table(parts, float(total_s)), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
