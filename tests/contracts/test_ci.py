"""What continuous integration says of itself is right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import yaml

from tests.contracts.repository import ROOT
from tests.order import longest_first

if TYPE_CHECKING:
    from pathlib import Path

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def part(*commands: tuple[str, float, str], success: bool = True) -> dict[str, Any]:
    """Return a part of a report as tox writes it."""
    return {
        "result": {"success": success, "duration": 1.0},
        "test": [
            {"run_id": run, "elapsed": seconds, "output": output}
            for run, seconds, output in commands
        ],
    }


def times(seconds: int, *reports: Path) -> list[str]:
    command = [sys.executable, ROOT / ".ci" / "times.py", str(seconds), *reports]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_times_of_a_run_add_up_and_end_with_what_each_part_said(tmp_path):
    green = "\x1b[32m========= \x1b[1m3 passed\x1b[0m in 9.50s =========\x1b[0m\n"
    parts = {
        ".pkg": {"setup": []},
        "types": part(("commands_pre[0]", 60, "made"), ("commands[0]", 41, "Fine\n\n")),
        "core": part(
            ("commands[0]", 2.4, "12\n"), ("commands[1]", 605.2, f"...\n{green}")
        ),
        "gui": part(("commands[0]", 5, "E\n1 failed in 4s\n"), success=False),
    }
    last = {"gui": parts.pop("gui"), "types": {}, "core": {"setup": []}}
    reports = tmp_path / "report-1.json", tmp_path / "report-2.json"
    for report, some in zip(reports, (parts, last), strict=True):
        report.write_text(json.dumps({"testenvs": some}), "utf-8")
    # 725 s in all, less 41 + 607.6 + 5 of work.
    assert [re.split(r"\s{2,}", row) for row in times(725, *reports)[2:]] == [
        ["environments", "1:11"],
        ["types", "0:41", "ok", "Fine"],
        ["core", "10:08", "ok", "3 passed in 9.50s"],
        ["gui", "0:05", "FAILED", "1 failed in 4s"],
        ["total", "12:05"],
    ]


def test_a_run_that_was_stopped_has_no_times(tmp_path):
    assert times(3, tmp_path / "missing.json") == []


def test_the_workflow_runs_the_same_command_everywhere_we_claim_to_run():
    jobs = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]
    (job,) = jobs.values()
    matrix = job["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {
        *("ubuntu", "macos", "windows")
    }
    claimed = re.findall(
        r"Programming Language :: Python :: (3\.\d+)",
        (ROOT / "pyproject.toml").read_text("utf-8"),
    )
    assert matrix["python"] == claimed
    assert ".ci/test" in {step.get("run") for step in job["steps"]}


class Test:
    """A test of so many seconds; 0: not marked as slow."""

    __test__ = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.args = (seconds,)

    def get_closest_marker(self, name: str) -> Test | None:
        return self if self.seconds and name == "slow" else None


def test_the_longest_tests_start_first_on_every_worker():
    items = [Test(s) for s in (0, 0, 30, 0, 10, 0, 60, 0, 0, 20)]
    assert [t.seconds for t in longest_first(items, 1)][:4] == [60, 30, 20, 10]
    ordered = longest_first(items, 2)
    assert [t.seconds for t in ordered] == [60, 20, 0, 0, 0, 30, 10, 0, 0, 0]
    plain = [t for t in items if not t.seconds]
    assert [t for t in ordered if not t.seconds] == plain, "else the order is kept"
    assert set(longest_first(items, 3)) == set(items)
    assert longest_first([], 2) == []
