"""Partners as pictures that a person can look at: channels in colours of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

COLORS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#f0e442", "#56b4e9")
"""Okabe-Ito, blue first since DAPI usually is: as on the canvas."""


def to_look_at(tile: Pixels, kind: str, colors: Sequence[str] = COLORS) -> Pixels:
    """Return ``(h, w, 3)`` uint8 of a partner's tile.

    Parameters
    ----------
    tile : ndarray
        ``(h, w, c)`` uint8.
    kind : {"image", "channels", "mask"}
        As in the plan.
    colors : sequence of str
        ``#rrggbb`` of the channels; they come again where there are more channels.
    """
    if kind == "image":
        return tile
    top = max(1, int(tile.max())) if kind == "mask" else 255
    values = tile.astype(np.float32) / top
    rgb = [_rgb(colors[k % len(colors)]) for k in range(tile.shape[2])]
    mixed = values @ np.array(rgb, np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return red, green, blue
