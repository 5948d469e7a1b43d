"""Commands in a process of their own whose memory is capped: what a bomb meets."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.forked import start_logged

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY_MB = 768
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What one command did under the cap."""

    code: int
    out: str
    err: str
    cpu_s: float

    @property
    def sentence(self) -> str:
        """The one line that says why it ended."""
        lines = self.err.splitlines()
        said = [line for line in lines if line.startswith("histodistill:")]
        assert len(said) == 1, self.err
        assert "Traceback" not in self.err
        assert "--debug" not in said[0], said[0]
        # Refused by the cap alone: without one it would have taken gigabytes.
        assert "MemoryError" not in said[0], said[0]
        return said[0]


def run_capped(
    commands: Sequence[Sequence[object]],
    *,
    memory_mb: int = MEMORY_MB,
    imports: Sequence[str] = (),
    timeout: float = 300,
) -> list[Result]:
    """Run ``histodistill`` commands one after another in one capped process.

    Parameters
    ----------
    commands : sequence of sequence
        Arguments of each.
    memory_mb : int
        Address space they may take beyond the interpreter and its libraries.
    imports : sequence of str
        Modules that are loaded before the cap is set.
    timeout : float
        For all of them, seconds.
    """
    job = {
        "commands": [[os.fsdecode(str(a)) for a in c] for c in commands],
        "memory_mb": memory_mb,
        "imports": list(imports),
    }
    with tempfile.TemporaryDirectory(prefix="histodistill-capped-") as folder:
        said = Path(folder)
        (said / "job.json").write_text(json.dumps(job), "utf-8")
        done = start_logged(
            [said / "job.json"], program="tests.faults.capped", said=said
        )
        try:
            done.wait(timeout)
        finally:
            done.kill()
        out, err = ((said / name).read_text("utf-8") for name in ("out", "err"))
    results = [Result(**json.loads(line)) for line in out.splitlines()]
    assert len(results) == len(commands), (
        f"the process ended with {done.returncode} in {commands[len(results)]}: "
        f"{err[-2000:]}"
    )
    return results


def main() -> None:
    """Read a job from a file, write a line of JSON per command."""
    import importlib

    from napari_histodistill.cli import main as histodistill

    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    for name in ("napari_histodistill.slides", "scipy.ndimage", *job["imports"]):
        importlib.import_module(name)
    warnings.simplefilter("ignore")
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + job["memory_mb"] * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for arguments in job["commands"]:
        out, err = io.StringIO(), io.StringIO()
        began = time.process_time()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = histodistill(arguments)
        result = Result(code, out.getvalue(), err.getvalue(), 0.0)
        spent = round(time.process_time() - began, 2)
        print(json.dumps({**asdict(result), "cpu_s": spent}), flush=True)


if __name__ == "__main__":
    main()
