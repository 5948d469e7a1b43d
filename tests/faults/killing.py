"""``kill -9`` at random moments of a command, and what its resumption ends with."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults.workplace import Workplace, start

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("embed", "classify", "distill")

LEFT_BEHIND = (".partial", ".deleted", ".part", "-new", "-old")


@dataclass(frozen=True)
class Kill:
    """One command, killed once or more, then left to end.

    Attributes
    ----------
    command : str
        Which.
    seconds : tuple of float
        After how long it was killed, each time.
    moments : tuple of str
        What it had written by then: ``"nothing"``, ``"half"``, ``"all"``.
    readable : bool
        Whether what a kill left could be read (store, events, checkpoint).
    equal : bool
        Whether the end is, byte for byte, that of an uninterrupted run.
    leftovers : int
        Files that nobody will use again.
    problem : str
        What was not as it should be.
    """

    command: str
    seconds: tuple[float, ...]
    moments: tuple[str, ...]
    readable: bool
    equal: bool
    leftovers: int
    problem: str = ""


class Killer:
    """Kills commands and compares; the reference of each command is run once.

    Parameters
    ----------
    place : Workplace
        What the commands work on.
    folder : Path
        Where they write.
    seed : int
        Of the moments.
    starter : callable
        Starts a command: :func:`~tests.faults.workplace.start`, or forked from a
        process that has loaded everything (:mod:`tests.forked`).
    """

    def __init__(
        self, place: Workplace, folder: Path, *, seed: int = 0, starter: Any = start
    ) -> None:
        self.place, self.folder, self.start = place, folder, starter
        self.rng = random.Random(seed)
        self._references: dict[str, tuple[dict[str, str], float, float]] = {}

    def arguments(self, command: str, out: Path) -> list[object]:
        """Return what is killed, and run again, word for word, to resume."""
        place = self.place
        if command == "distill":
            options = ("--device", "cpu", "--threads", 1, "--resume")
            return [command, place.recipe, "--data", place.tiles, "-o", out, *options]
        options = ("--student", place.bundle, "--stride-um", 16, "--device", "cpu")
        return [command, place.slide, "-o", out, *options]

    def kill(self, command: str, *, times: int = 1) -> Kill:
        """Kill a command at random moments, then resume it and compare."""
        wanted, start_s, work_s = self.reference(command)
        out = self.folder / f"{command}-killed"
        shutil.rmtree(out, ignore_errors=True)
        seconds, moments, problem = [], [], ""
        for _ in range(times):
            # A tenth falls into loading, the rest into work.
            early = self.rng.random() < 0.1
            after = self.rng.uniform(0, start_s if early else work_s)
            seconds.append(round(self._kill_once(command, out, after, early=early), 2))
            moment, trouble = self._look(command, out)
            moments.append(moment)
            problem = problem or trouble
        readable = not problem
        process = self.start(self.arguments(command, out))
        _out, err = process.communicate()
        code = process.returncode
        if code:
            problem = problem or f"exit {code}: {err.splitlines()[-1]}"
        found = fingerprint(command, out)
        differing = sorted(k for k in wanted if found.get(k) != wanted[k])
        if differing:
            problem = problem or f"differing: {differing[:3]}"
        return Kill(
            command=command,
            seconds=tuple(seconds),
            moments=tuple(moments),
            readable=readable,
            equal=not code and not differing,
            leftovers=sum(p.name.endswith(LEFT_BEHIND) for p in self._near(out)),
            problem=problem,
        )

    def reference(self, command: str) -> tuple[dict[str, str], float, float]:
        """Return bytes, seconds of loading and of work of an uninterrupted run."""
        if command not in self._references:
            out = self.folder / f"{command}-whole"
            shutil.rmtree(out, ignore_errors=True)
            began = time.monotonic()
            process = self.start(self.arguments(command, out))
            self._wait(command, out, process)
            working = time.monotonic()
            _out, err = process.communicate()
            assert process.returncode == 0, err
            times = working - began, time.monotonic() - working
            self._references[command] = (fingerprint(command, out), *times)
        return self._references[command]

    def _kill_once(
        self, command: str, out: Path, after: float, *, early: bool
    ) -> float:
        began = time.monotonic()
        process = self.start(self.arguments(command, out))
        if not early:
            self._wait(command, out, process)
        time.sleep(after)
        process.kill()
        process.communicate()
        return time.monotonic() - began

    def _wait(self, command: str, out: Path, process: Any) -> None:
        """Wait until a command has begun to write."""
        sign = out / "lock" if command == "distill" else self._store(out)
        while process.poll() is None and not sign.exists():
            time.sleep(0.005)

    def _store(self, out: Path) -> Path:
        return out / "slide.ome.zarr"

    def _look(self, command: str, out: Path) -> tuple[str, str]:
        """Read what a kill left, as the next command and the window would."""
        from napari_histodistill.errors import HistodistillError

        try:
            if command == "distill":
                return self._look_at_run(out), ""
            return self._look_at_store(self._store(out)), ""
        except HistodistillError as error:
            return "unreadable", str(error)

    def _look_at_store(self, path: Path) -> str:
        from napari_histodistill.maps import EmbeddingStore

        if not path.exists():
            return "nothing"
        with EmbeddingStore.open(path) as store:
            store.read()
            done, wanted = int((store.status == 1).sum()), int(store.wanted.sum())
        return "nothing" if not done else "all" if done == wanted else "half"

    def _look_at_run(self, out: Path) -> str:
        from napari_histodistill.distill.runs.checkpoints import read_checkpoint
        from napari_histodistill.distill.runs.events import read_events

        last = out / "checkpoints" / "last.safetensors"
        if not last.exists():
            return "nothing"
        _tensors, mark = read_checkpoint(last)
        finished = any(e["kind"] == "finished" for e in read_events(out))
        return "all" if finished else "half" if mark.step else "nothing"

    def _near(self, out: Path) -> list[Path]:
        return [*out.rglob("*"), *out.parent.glob(f".{out.name}*")]


def fingerprint(command: str, out: Path) -> dict[str, str]:
    """Return the digest of every file that a command is asked for."""
    if command == "distill":
        files = [*(out / "student").glob("*"), *(out / "checkpoints").glob("*")]
        files = [f for f in files if not f.name.endswith(".part")]
    else:
        files = [f for f in out.rglob("*") if f.is_file() and f.name != "writer.lock"]
    found = {}
    for file in files:
        content = file.read_bytes()
        if file.name == "summary.json":  # the same but for paths and the time it took
            summary = json.loads(content)
            kept = {k: v for k, v in summary.items() if k not in {"seconds", "outputs"}}
            content = json.dumps(kept, sort_keys=True).encode()
        name = str(file.relative_to(out))
        found[name] = hashlib.sha256(content).hexdigest()
    return found
