"""What a CUDA card makes of this package, step by step.

    python -m tests.bench.gpu                     all steps, ten minutes or so
    python -m tests.bench.gpu lanes graphs        some of them
    python -m tests.bench.gpu --dry               all, small, without a card
    python -m tests.bench.gpu --wheels FOLDER     with packages that the machine lacks

Every step is a process of its own with a time limit, and prints one line of JSON: what
it is, whether it went well, how long it took, and what was found. The order and the
limits stand in ``gpu_order.py``. If a step on which the others stand fails, the rest is
not begun: later figures would mean nothing. Ratios are of one step, and so of one
machine in one state. Exits with 1 if any step failed.

Without a card (``--dry``), steps that are about the card run on an imitated one
(``tests/card.py``), the others on the CPU: their figures mean nothing, but the script
is known to run. A machine without network finds packages in a folder of wheels: see
``gpu_wheels.txt``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
import traceback
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from tests.bench.gpu_steps import Step

ROOT = Path(__file__).parents[2]
NEEDED = (
    *("torch", "timm", "numpy", "zarr", "dask", "shapely", "pydantic", "pooch"),
    *("tifffile", "simplejpeg", "skimage", "sklearn", "typer", "safetensors"),
)
STEPS = "tests.bench.gpu_order"


def main(words: list[str]) -> int:
    """Run the steps; return the exit code."""
    asked = _asked(words)
    with tempfile.TemporaryDirectory(prefix="gpu-bench-") as scratch:
        missing = _find_packages(asked.wheels, Path(scratch))
        if missing:
            _say({"step": "packages", "ok": False, "missing": missing})
            return 1
        steps = importlib.import_module(STEPS).STEPS
        names = [step.name for step in steps]
        for name in asked.names:
            if name not in names:
                _say({"step": name, "ok": False, "error": f"steps are {names}"})
                return 2
        code = 0
        for step in steps:
            if asked.names and step.name not in asked.names:
                continue
            found = _run(step, Path(scratch), dry=asked.dry)
            _say(found)
            if not found["ok"]:
                code = 1
                if step.vital:
                    break
    return code


def _asked(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu")
    parser.add_argument("names", nargs="*", help="steps to run; all without a name")
    parser.add_argument("--dry", action="store_true", help="small, without a card")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use")
    return parser.parse_args(words)


def _say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


def _find_packages(wheels: Path | None, scratch: Path) -> list[str]:
    """Put source and wheels on the path; return names that cannot be imported."""
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    if wheels is not None:
        for wheel in sorted(wheels.glob("*.whl")):
            # Unpacked, because compiled modules cannot be imported from an archive.
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch / "wheels")
        # After what the machine has: its torch and numpy belong together.
        sys.path.append(str(scratch / "wheels"))
    return [name for name in NEEDED if not _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _run(step: Step, scratch: Path, *, dry: bool) -> dict[str, Any]:
    """Run a step in a process of its own, and end it when its time is over.

    It gets a folder of its own inside ``scratch``, where a later step finds the slide
    that an earlier one has written.
    """
    # Forked where that is possible: what was imported need not be again. This process
    # never touches the card, which a child could not use then.
    how = "fork" if platform.system() == "Linux" else "spawn"
    context = multiprocessing.get_context(how)
    ours, theirs = context.Pipe(duplex=False)
    began = time.perf_counter()
    process = context.Process(target=_child, args=(step, scratch, dry, theirs))
    process.start()
    theirs.close()
    found: dict[str, Any] = {"ok": False, "error": "the process ended without a word"}
    if ours.poll(step.limit_s):
        with suppress(EOFError):
            found = ours.recv()
    else:
        found["error"] = f"not done after {step.limit_s} s"
    process.join(0.5)
    if process.is_alive():
        process.kill()
    process.join()
    seconds = round(time.perf_counter() - began, 2)
    where = "dry" if dry else "card"
    return {"step": step.name, "on": where, "seconds": seconds, **found}


def _child(step: Step, scratch: Path, dry: bool, pipe: Connection) -> None:
    if dry:
        import torch

        torch.set_num_threads(1)
    # Libraries and commands print as they like; stdout is for lines of JSON.
    os.dup2(2, 1)
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            found = step.function(dry, Path(folder))
        pipe.send({"ok": True, **found})
    except BaseException as error:  # noqa: BLE001 - a failed step is a line, too
        traceback.print_exc()
        pipe.send({"ok": False, "error": f"{type(error).__name__}: {error}"[:500]})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
