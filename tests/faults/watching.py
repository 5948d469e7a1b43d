"""A fuzzing process and the one that watches it: hangs and crashes are findings too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HANG_S = 30.0
"""CPU seconds over one input after which it is called a hang."""

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Figures:
    """What all processes of one target did together."""

    target: str
    executions: int
    refused: int
    cpu_minutes: float
    findings: tuple[dict[str, str], ...]


def fuzz(
    target: str,
    folder: Path,
    *,
    cpu_seconds: float,
    seed: int = 0,
    atheris: bool = False,
    extra: tuple[Path, ...] = (),
) -> Figures:
    """Fuzz one target for so many CPU seconds, starting anew after every crash."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        left = cpu_seconds - _spent(folder, seed)
        if left <= 1:
            break
        _one_process(target, folder, left, seed, atheris=atheris, extra=extra)
        seed += 1000
    return figures(target, folder)


def figures(target: str, folder: Path) -> Figures:
    """Add up what the processes wrote."""
    entries = list(_entries(folder))
    found = folder / "findings.jsonl"
    lines = found.read_text().splitlines() if found.exists() else []
    distinct = {e["kind"] + e["detail"]: e for e in map(json.loads, lines)}
    return Figures(
        target,
        sum(e["executions"] for e in entries),
        sum(e["refused"] for e in entries),
        round(sum(e["cpu_s"] for e in entries) / 60, 1),
        tuple(distinct.values()),
    )


def _spent(folder: Path, seed: int) -> float:
    return sum(e["cpu_s"] for e in _entries(folder) if e["seed"] % 1000 == seed % 1000)


def _entries(folder: Path) -> Iterator[dict[str, float]]:
    for path in folder.glob("figures-*.json"):
        try:
            yield json.loads(path.read_text())
        except ValueError:  # written at this moment
            continue


def _one_process(
    target: str,
    folder: Path,
    cpu_seconds: float,
    seed: int,
    *,
    atheris: bool,
    extra: tuple[Path, ...],
) -> None:
    command = [
        *(sys.executable, "-m", "tests.faults.fuzzing", target, folder),
        *("--cpu-seconds", cpu_seconds, "--seed", seed),
        *(["--atheris"] if atheris else []),
        *(["--extra", *extra] if extra else []),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "log.txt").open("ab") as log:
        running = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        at, used = "", 0.0
        while running.poll() is None:
            time.sleep(1)
            now = _newest(folder / "scratch")
            if now != at:
                at, used = now, _cpu_s(running.pid)
            elif at and _cpu_s(running.pid) - used > HANG_S:
                running.kill()
                running.wait()
                _keep(folder, seed, "hang", f"over {HANG_S:.0f} s of CPU")
                return
    if running.returncode:
        _keep(folder, seed, "crash", f"the process ended with {running.returncode}")


def _newest(scratch: Path) -> str:
    files = [(p.stat().st_mtime_ns, p.name) for p in scratch.glob("*") if p.is_file()]
    files = [f for f in files if not f[1].endswith(".png")]
    return str(max(files, default=""))


def _keep(folder: Path, seed: int, kind: str, detail: str) -> None:
    files = [p for p in (folder / "scratch").glob("*") if p.is_file()]
    files = [p for p in files if p.suffix != ".png"]
    newest = max(files, key=lambda p: p.stat().st_mtime_ns)
    name = f"{seed}-{kind}{''.join(newest.suffixes)}"
    shutil.copy(newest, folder / name)
    with (folder / "findings.jsonl").open("a") as file:
        file.write(json.dumps({"kind": kind, "detail": detail, "file": name}) + "\n")


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
