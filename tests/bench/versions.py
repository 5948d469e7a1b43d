"""Two versions of this program, in turns

What must not get slower while something else is built: a slide from file to store on
the CPU, and steps of a training. Every figure comes from a process of its own, with the
package and the bench of its own checkout; both see one slide and one set of tiles.
`python -m tests.bench.versions BEFORE AFTER`, two checkouts
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.figures import HEADER, Figure, taking_turns

JOB = """
import sys
from pathlib import Path
from tempfile import mkdtemp
from tests.bench import embedding, training
from napari_histodistill.maps.engine import plan_grid
from napari_histodistill.slides import open_slide
from napari_histodistill.students import load_student

what, home = sys.argv[1], Path(sys.argv[2])
if what in training.BACKBONES:
    options = training.BACKBONES[what]
    print(training._ours(what, options, home / "tiles", home, "float32"))
else:
    mode, ratios, backend = what.split(" ")
    student = load_student("colon-he", device=f"cpu:{backend}")
    levels = getattr(embedding, ratios)
    with open_slide(home / f"painted-{len(levels)}.tif", mpp=embedding.MPP) as slide:
        grid = plan_grid(slide, student)
        store = Path(mkdtemp(dir=home)) / "store.zarr"
        print(embedding.Run(slide, student, store, grid, mode).cells_per_s)
"""

WORDS = {
    "tiles SCANNER openvino": ("tiles at 2 ×, OpenVINO", "tiles/s"),
    "tiles FINE openvino": ("tiles at 1:1, OpenVINO", "tiles/s"),
    "tiles SCANNER torch": ("tiles at 2 ×, torch", "tiles/s"),
    "tokens SCANNER openvino": ("tokens, OpenVINO", "cells/s"),
    "tokens SCANNER torch": ("tokens, torch", "cells/s"),
    "test_resnet": ("training, small network, float32", "pairs/s"),
    "tf_efficientnet_lite0": ("training, Lite0, float32", "pairs/s"),
}
"""What is measured: words and unit."""


def figure_of(checkout: Path, what: str, home: Path) -> float:
    """Return a figure of one checkout."""
    paths = os.pathsep.join(map(str, (checkout / "src", checkout)))
    done = subprocess.run(
        [sys.executable, "-P", "-c", JOB, what, str(home)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print the table."""
    from tests.bench import embedding, training

    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("before", type=Path)
    asked.add_argument("after", type=Path)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for levels in (embedding.SCANNER, embedding.FINE):
            embedding.painted_pyramid(home, levels)
        training._write_tiles(home / "tiles")
        for what, (words, unit) in WORDS.items():
            after, before = taking_turns(
                lambda what=what: figure_of(given.after.resolve(), what, home),
                lambda what=what: figure_of(given.before.resolve(), what, home),
                given.rounds,
            )
            print(Figure(words, after, unit, "before", before).row(), flush=True)


if __name__ == "__main__":
    main()
