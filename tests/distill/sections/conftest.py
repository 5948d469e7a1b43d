"""Small sections as files: an H&E, and partners that lie on it in a known way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_histodistill.samples.paired import paint_pair
from napari_histodistill.slides.tissue.writing import write_pyramid

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 256
PLACES = np.array(
    [[30, 40], [220, 50], [130, 120], [40, 210], [230, 200], [100, 70], [170, 160]],
    float,
)
"""(y, x) in pixels of the H&E, counted from the edge."""


@dataclass(frozen=True)
class Files:
    """Files of one section; the partner is turned by a quarter."""

    home: Path
    he: Path
    partner: Path
    he_places: Path
    partner_places: Path
    mask: Path
    """Numbers 0 to 2, as large as the H&E, without µm per pixel."""


def write_places(path: Path, places: np.ndarray) -> Path:
    """Write landmarks as ANHIR does."""
    rows = [f"{k},{x},{y}" for k, (y, x) in enumerate(places)]
    path.write_text("\n".join([",X,Y", *rows]) + "\n", "utf-8")
    return path


@pytest.fixture(scope="session")
def section_files(tmp_path_factory) -> Files:
    """Write them once."""
    home = tmp_path_factory.mktemp("section")
    pair = paint_pair(SIDE, seed=3)
    write_pyramid(home / "he.ome.tif", pair.sparse, mpp=0.5, compression="zlib")
    planes = np.moveaxis(np.rot90(pair.dense), -1, 0)
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(
        home / "marker.ome.tif", planes.copy(), ome=True, metadata=metadata
    )
    # Brown over blue: IHC of the same marker, in register with the H&E.
    haematoxylin, marker = (pair.dense[..., k, None] / 6000 for k in (0, 1))
    density = haematoxylin * (0.4, 0.45, 0.2) + 1.5 * marker * (0.27, 0.57, 0.78)
    ihc = np.rint(240 * np.exp(-density)).clip(0, 255).astype(np.uint8)
    write_pyramid(home / "ihc.ome.tif", ihc, mpp=0.5, compression="zlib")
    y, x = PLACES.T
    labels = pair.positive.astype(np.uint8) + (pair.dense[..., 0] > 3000)
    Image.fromarray(labels.astype(np.uint8)).save(home / "mask.png")
    return Files(
        home,
        home / "he.ome.tif",
        home / "marker.ome.tif",
        write_places(home / "he.csv", PLACES),
        write_places(home / "marker.csv", np.stack([SIDE - x, y], axis=1)),
        home / "mask.png",
    )
