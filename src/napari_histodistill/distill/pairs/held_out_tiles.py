"""Tiles that a run never learned from: its held-out pairs, labelled by a mask.

They are judged like the tiles of a folder with a manifest; nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.store import is_pairs, read_pairs
from napari_histodistill.distill.pairs.tilefolder import Tile, TileFolder
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.store import StoredPairs
    from napari_histodistill.distill.recipes.config import DistillConfig

    Pixels = npt.NDArray[np.uint8]


BY_REGION = (
    "Its cases are regions, which are more alike than slides are: over slides the "
    "interval would be wider."
)


@dataclass(frozen=True, slots=True)
class StoredTiles(TileFolder):
    """Tiles of stored pairs, with a label and a case each.

    Attributes
    ----------
    pictures : ndarray
        ``(n, h, w, 3)`` uint8; a tile's :attr:`~.Tile.row` is its place here.
    by_region : bool
        Whether its cases are regions, and not sections.
    """

    pictures: Pixels = field(repr=False)
    by_region: bool = True

    def read(self, tile: Tile, tile_px: int) -> tuple[Pixels, tuple[int, int]]:
        """Return one tile at the size that a student needs, and the size it had."""
        picture = self.pictures[tile.row]
        height, width = picture.shape[:2]
        if width != tile_px:
            resized = Image.fromarray(picture).resize(
                (tile_px, tile_px), Image.Resampling.BICUBIC
            )
            picture = np.asarray(resized)
        return picture, (height, width)


def labelling_partner(stored: StoredPairs) -> str:
    """Return the first partner whose classes can label tiles; "" if none can."""
    named = (p.name for p in stored.partners if p.has_classes and len(p.names) > 1)
    return next(named, "")


def why_no_labels(data: Path) -> str:
    """Return why a run's pairs have no labels; empty if they have.

    Raises
    ------
    StoreError
        If they are damaged.
    """
    if is_pairs(data) and labelling_partner(read_pairs(data)):
        return ""
    return (
        "No partner of its pairs is a mask read as classes, so they have no labels: "
        "choose a folder of labelled tiles."
    )


def held_out_tiles(config: DistillConfig, data: Path) -> StoredTiles:
    """Return a run's held-out pairs that a partner's classes label.

    The case of a tile is its section where several are held out whole, else its region.

    Parameters
    ----------
    config : DistillConfig
        Recipe of the run.
    data : Path
        Its stored pairs.

    Raises
    ------
    InputError
        If the pairs have no classes, or none of them is held out and labelled.
    StoreError
        If they are damaged.
    """
    why = why_no_labels(data)
    if why:
        msg = f"{data.name}: {why}"
        raise InputError(msg)
    stored = read_pairs(data)
    held_out = load_pairs(config, data).validation
    if held_out is None or held_out.rows is None:
        msg = f"{data.name}: no pairs were held out, so there are none to judge by."
        raise InputError(msg)
    labels = stored.labels(labelling_partner(stored))[held_out.rows]
    labelled = np.flatnonzero(labels != "")
    if not len(labelled):
        msg = f"{data.name}: none of the held-out tiles has a class at its centre."
        raise InputError(msg)
    several = len(config.data.validate_on) > 1
    cases = held_out.patients if several else held_out.cases
    tiles = tuple(
        Tile(int(k), data / f"pair {k}", str(labels[k]), str(cases[k]), "", {})
        for k in labelled
    )
    return StoredTiles(data, tiles, held_out.sparse, by_region=not several)
