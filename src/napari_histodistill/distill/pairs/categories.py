"""Masks with one channel per category: numbers that name things are not intensities.

A view is cut and turned, and its pixels fall on borders. In a channel of its own a
category's share of such a pixel is a plain number; between categories 1 and 3 there is
no 2, and category 1 is as bright as any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import TileFolderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

MAX_CATEGORIES = 32


def spread_masks(
    masks: Sequence[Pixels], column: str, *, unknown: bool = False
) -> list[Pixels]:
    """Return masks with a channel per category.

    Parameters
    ----------
    masks : sequence of ndarray
        ``(n, h, w, 1)`` uint8, as they are stored: of training pairs and, if there are
        any, of validation pairs, which must get the same channels.
    column : str
        The partner's column, for the message.
    unknown : bool
        Whether 0 is not background, but a place of which nobody said what it is. It
        gets the tile's own mixture of categories, so that neither what it is nor where
        the labelling stops is taught.

    Returns
    -------
    list of ndarray
        ``(n, h, w, k)`` uint8, 0 or 255: a channel for each of the k numbers above 0
        that occur, in rising order. 0 has none; if there is nothing else, there is one
        empty channel. Where 0 is unknown, it has a share of every channel, 0 to 255.

    Raises
    ------
    TileFolderError
        If there are more than :data:`MAX_CATEGORIES` numbers.
    """
    found = np.unique(np.concatenate([np.unique(one) for one in masks]))
    categories = found[found > 0]
    if len(categories) > MAX_CATEGORIES:
        msg = (
            f"dense.column {column!r} holds {len(categories)} different numbers above "
            f"0; a mask has at most {MAX_CATEGORIES} categories: use "
            'kind = "image" for intensities, and 0 and 255 for numbered objects.'
        )
        raise TileFolderError(msg)
    spread = [_spread(one, categories) for one in masks]
    if unknown:
        for one, channels in zip(masks, spread, strict=True):
            _fill(channels, one[..., 0] == 0)
    return spread


def _fill(channels: Pixels, unknown: npt.NDArray[np.bool_]) -> None:
    """Give unknown places the mixture that the tile has elsewhere."""
    for tile, hidden in zip(channels, unknown, strict=True):
        if hidden.any() and not hidden.all():
            tile[hidden] = np.rint(tile[~hidden].mean(0)).astype(np.uint8)


def _spread(masks: Pixels, categories: npt.NDArray[np.integer]) -> Pixels:
    if not len(categories):
        return np.zeros_like(masks)
    # One category at a time: comparing all at once would need all of them in memory.
    spread = np.empty((*masks.shape[:3], len(categories)), np.uint8)
    for k, category in enumerate(categories):
        spread[..., k] = np.where(masks[..., 0] == category, 255, 0)
    return spread
