"""The script for a machine with a card, as far as it goes without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.bench import gpu

ROOT = Path(__file__).parents[2]
STEPS = (
    *(
        "versions",
        "arithmetic",
        "lanes",
        "graphs",
        "resampling",
        "shortage",
        "flat",
        "tests",
    ),
    *("model", "feed", "end", "training", "resume", "commands", "compiled"),
)


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow(20)
@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked")
def test_every_step_runs_dry():
    done = python("-m", "tests.bench.gpu", "--dry")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr[-3000:]
    failed = {line["step"]: line for line in lines if not line["ok"]}
    assert not failed, done.stderr[-3000:]
    assert [line["step"] for line in lines] == list(STEPS)
    assert {line["on"] for line in lines} == {"dry"}
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked")
def test_a_step_has_its_time_and_a_failure_is_a_line():
    done = python(
        "-c",
        "import os, time; from types import SimpleNamespace as Step\n"
        "from tests.bench import gpu\n"
        "def fail(dry, folder): raise RuntimeError('no such card')\n"
        "for what in (lambda *_: time.sleep(60), fail, lambda *_: os._exit(3)):\n"
        "    step = Step(name='a', limit_s=0.3, function=what, vital=False)\n"
        "    gpu._say(gpu._run(step, dry=False))\n",
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["ok"] for line in lines] == [False] * 3, done.stderr
    assert [line["error"] for line in lines] == [
        "not done after 0.3 s",
        "RuntimeError: no such card",
        "the process ended without a word",
    ]


def test_packages_are_found_in_a_folder_of_wheels(tmp_path, monkeypatch, capsys):
    with zipfile.ZipFile(tmp_path / "odd_one-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("odd_one.py", "WHERE = __file__\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gpu, "NEEDED", ("odd_one", "odd_two"))
    assert gpu.main(["--wheels", str(tmp_path)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said == {"step": "packages", "ok": False, "missing": ["odd_two"]}
    assert Path(sys.path[-1]).name == "wheels"
    monkeypatch.delitem(sys.modules, "odd_one")
