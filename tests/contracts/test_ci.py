"""What continuous integration says of itself is right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import yaml

from tests.contracts.repository import ROOT

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
    (job,) = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"].values()
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
