"""Do tokens say what tiles say? On real tissue that nobody trained on

A cell every 64 µm of a real H&E section, embedded both ways in float32; the outermost
cells, whose windows reach past the slide, are left out. By itself:
``python -m tests.bench.agreement SLIDE STUDENT…``
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from napari_histodistill.maps import EmbeddingStore, embed_slide
from napari_histodistill.maps.engine import plan_grid
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.tissue.tissue import find_tissue
from napari_histodistill.students import load_student

STRIDE_UM, RIM = 64, 2


def same_class(slide_path: Path, name: str) -> tuple[float, float, int]:
    """Return the share of cells of the same class, the median cosine, the count."""
    student = load_student(name, device="cpu:torch", precision="float32")
    found, done = [], []
    with open_slide(slide_path) as slide, tempfile.TemporaryDirectory() as folder:
        tissue = find_tissue(slide)
        for mode in ("tiles", "tokens"):
            grid = plan_grid(slide, student, stride_um=STRIDE_UM, mode=mode)
            store = Path(folder) / f"{mode}.zarr"
            for _ in embed_slide(
                slide, student, store, grid=grid, mode=mode, tissue=tissue
            ):
                pass
            with EmbeddingStore.open(store) as opened:
                found.append(opened.read().astype(np.float32))
                done.append(opened.status == 1)
    inner = np.zeros(done[0].shape, bool)
    inner[RIM:-RIM, RIM:-RIM] = True
    tiles, tokens = (values[inner & done[0] & done[1]] for values in found)
    classes = [student.classify(values).argmax(axis=1) for values in (tiles, tokens)]
    lengths = np.linalg.norm(tiles, axis=1) * np.linalg.norm(tokens, axis=1)
    cosine = (tiles * tokens).sum(axis=1) / lengths
    agree = float(np.mean(classes[0] == classes[1]))
    return agree, float(np.median(cosine)), len(tiles)


if __name__ == "__main__":
    for one in sys.argv[2:]:
        share, alike, cells = same_class(Path(sys.argv[1]), one)
        sys.stdout.write(
            f"{one}: {cells} cells, same class {share:.3f}, cosine {alike:.3f}\n"
        )
