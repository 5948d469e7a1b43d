"""Starting

`import napari_histodistill` in a fresh interpreter against an empty one, and the
help of the command line.
"""

from __future__ import annotations

import subprocess
import sys

from tests.bench.figures import Figure, seconds, taking_turns


def _python(code: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))


def _help() -> float:
    command = [sys.executable, "-m", "napari_histodistill.cli", "--help"]
    return seconds(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    )


def measure() -> list[Figure]:
    """Return the figures of this section."""
    ours, empty = taking_turns(
        lambda: _python("import napari_histodistill"), lambda: _python("pass"), 11
    )
    helped, base = taking_turns(_help, lambda: _python("pass"), 5)
    return [
        Figure("import the package", ours, "s", "empty interpreter", empty),
        Figure("histodistill --help", helped, "s", "empty interpreter", base),
    ]
