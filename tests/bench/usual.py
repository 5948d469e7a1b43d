"""The usual pipeline, for comparison: what most tools do with tiles of a slide.

OpenSlide's ``read_region`` for every tile on the best level, PIL's resize to the size
that the model wants, ``ToTensor`` and ``Normalize``, a ``DataLoader`` with worker
processes, and the model in eager float32 (as WSInfer and others run it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openslide
import torch
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.slides import TileGrid
    from napari_histodistill.students.student import Student

BATCH = 32


class SlideTiles(Dataset[Any]):
    """Normalised tiles of chosen cells; every worker opens the slide for itself."""

    def __init__(
        self, path: Path, grid: TileGrid, cells: np.ndarray, student: Student
    ) -> None:
        self.path, self.grid, self.cells = path, grid, cells
        spec = student.spec
        self.px = spec.tile_px
        self.mean = torch.tensor(spec.mean).view(3, 1, 1)
        self.std = torch.tensor(spec.std).view(3, 1, 1)
        self.slide: openslide.OpenSlide | None = None

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.slide is None:
            self.slide = openslide.OpenSlide(self.path)
        region = self.grid.tile_region(*(int(n) for n in self.cells[index]))
        level = self.slide.get_best_level_for_downsample(region.height / self.px + 1e-6)
        down = self.slide.level_downsamples[level]
        size = round(region.width / down), round(region.height / down)
        corner = round(region.x), round(region.y)
        tile = self.slide.read_region(corner, level, size).convert("RGB")
        if tile.size != (self.px, self.px):
            tile = tile.resize((self.px, self.px))  # PIL's default, bicubic
        pixels = torch.from_numpy(np.array(tile)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std


def embed_as_usual(
    path: Path, grid: TileGrid, cells: np.ndarray, student: Student, module: Any
) -> np.ndarray:
    """Return float32 embeddings ``(cells, dim)`` of ``cells`` ``(n, 2)``."""
    loader = DataLoader(
        SlideTiles(path, grid, cells, student), batch_size=BATCH, num_workers=2
    )
    with torch.inference_mode():
        found = [
            module.forward_head(module.forward_features(batch), pre_logits=True)
            for batch in loader
        ]
    return torch.cat(found).numpy()
