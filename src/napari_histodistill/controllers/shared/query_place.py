"""A place of a map that is worth a search, before the user has clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.maps.store import CellStatus

if TYPE_CHECKING:
    from napari_histodistill.controllers.shared.live_map import LiveMap


def query_place(live: LiveMap) -> tuple[float, float]:
    """Return a place worth asking about: the heart of the second commonest class.

    The commonest class is the background of the story; the second is what one would
    look for. Its heart is the cell of it that lies deepest among its own kind, so that
    the tile around it shows that class and little else. Level-0 pixels, edge
    convention.
    """
    from scipy.ndimage import distance_transform_edt

    done = live.status == CellStatus.DONE
    kind = done
    if live.classes:
        counts = np.bincount(live.labels[done], minlength=len(live.classes) + 1)
        counts[0] = 0
        order = np.argsort(-counts)
        kind = live.labels == (order[1] if counts[order[1]] else order[0])
    depth = distance_transform_edt(np.pad(kind, 1))[1:-1, 1:-1]
    score = np.where(kind, depth + live.confidence, -1.0)
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    y, x = live.grid.cell_region(int(row), int(column)).center
    height, width = live.grid.slide_height, live.grid.slide_width
    return min(y, height - 1.0), min(x, width - 1.0)
