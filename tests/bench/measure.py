"""Run the measurements and write RESULTS.md: `tox -e bench`, or with names of some.

tox -e bench                     everything
tox -e bench -- reading clicks   two of them, printed only
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
NAMES = (
    *("starting", "reading", "embedding", "memory", "cancelling", "clicks", "stalls"),
    *("viewing", "training", "training_stalls"),
)


def machine() -> str:
    """Describe the machine in one sentence, without naming it."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((s.split(":")[1].strip() for s in lines if "model name" in s), cpu)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{cpu}, {os.cpu_count()} cores, {device}; Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def main(names: list[str]) -> None:
    """Measure, print, and write RESULTS.md when everything was measured."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.figures import HEADER

    sections = []
    for name in names or NAMES:
        module = importlib.import_module(f"tests.bench.{name}")
        rows = [figure.row() for figure in module.measure()]
        title, _, text = module.__doc__.strip().partition("\n")
        section = f"## {title}\n{text}\n\n{HEADER}\n" + "\n".join(rows) + "\n"
        print(section, flush=True)
        sections.append(section)
    if not names:
        today = datetime.now(UTC).date()
        head = (
            "# Measurements\n\n"
            f"Written by `tox -e bench` on {today}: {machine()}.\n"
            "Each figure stands beside its baseline from the same run; the machine was "
            "shared, so compare within a row.\n\n"
        )
        (HERE / "RESULTS.md").write_text(head + "\n".join(sections), "utf-8")


def on_a_screen() -> None:
    """Start again under Xvfb where there is no screen: one section opens napari."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not screen:
        virtual = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"]
        os.execvp(virtual[0], [*virtual, sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    on_a_screen()
    main(sys.argv[1:])
