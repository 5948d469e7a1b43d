"""Run the measurements and write RESULTS.md: `tox -e bench`, or with names of some.

tox -e bench                     everything
tox -e bench -- reading clicks   two of them
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
    *("viewing", "first_cells", "teaching", "training", "training_stalls", "worklist"),
    *("walk", "aligning"),
)


HEAD = """# Measurements

Written by `tox -e bench`, or `tox -e bench -- NAME` for one of them. Each figure stands
beside its baseline from the same run; machines are shared, so compare within a row.
"""


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
    """Measure and print; every section goes into RESULTS.md as soon as it is there."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.figures import HEADER

    for name in names or NAMES:
        module = importlib.import_module(f"tests.bench.{name}")
        rows = [figure.row() for figure in module.measure()]
        title, _, text = module.__doc__.strip().partition("\n")
        taken = f"Taken on {datetime.now(UTC).date()}: {machine()}."
        body = f"{text}\n\n{taken}\n\n{HEADER}\n" + "\n".join(rows) + "\n"
        print(f"## {title}\n{body}", flush=True)
        keep(title, body)


def keep(title: str, body: str) -> None:
    """Replace one section of RESULTS.md, or add it."""
    path = HERE / "RESULTS.md"
    _head, *old = path.read_text("utf-8").split("\n## ") if path.exists() else [""]
    sections = dict(one.split("\n", 1) for one in old)
    sections[title] = body
    text = "".join(f"\n## {name}\n{one.rstrip()}\n" for name, one in sections.items())
    path.write_text(HEAD + text, "utf-8")


def on_a_screen() -> None:
    """Start again under Xvfb where there is no screen: one section opens napari."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not screen:
        virtual = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"]
        os.execvp(virtual[0], [*virtual, sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    on_a_screen()
    main(sys.argv[1:])
