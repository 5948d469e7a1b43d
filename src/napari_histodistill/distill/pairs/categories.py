"""Masks as one channel per category: numbers that name things are no intensities.

A view is cut and turned, and its pixels fall on borders. In a channel of its own a
category's share of such a pixel is a plain number; between categories 1 and 3 there is
no 2, and category 1 is as bright as any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import TileFolderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.loading import PairSet
    from napari_histodistill.distill.recipes.config import DenseConfig

    Pixels = npt.NDArray[np.uint8]

MAX_CATEGORIES = 32


def spread_masks(
    sets: Sequence[PairSet], dense: Sequence[DenseConfig]
) -> tuple[PairSet, ...]:
    """Return pairs whose masks have a channel per category.

    Parameters
    ----------
    sets : sequence of PairSet
        Training and validation pairs, which must get the same channels. Masks are
        ``(n, h, w, 1)`` uint8, as they are stored.
    dense : sequence of DenseConfig
        The recipe's partners, for the message.

    Returns
    -------
    tuple of PairSet
        Masks ``(n, h, w, k)`` uint8, 0 or 255: a channel for each of the k numbers
        above 0 that occur, in rising order. 0 is background and has none; where there
        is nothing else, one empty channel stands.

    Raises
    ------
    TileFolderError
        If a mask has more than :data:`MAX_CATEGORIES` numbers.
    """
    for place, config in enumerate(dense):
        if config.kind != "mask":
            continue
        masks = [pairs.partners[place].values for pairs in sets]
        found = np.unique(np.concatenate([np.unique(one) for one in masks]))
        categories = found[found > 0]
        if len(categories) > MAX_CATEGORIES:
            msg = (
                f"dense.column {config.column!r} holds {len(categories)} different "
                f"numbers above 0; a mask has at most {MAX_CATEGORIES} categories: use "
                'kind = "image" for a picture, and 0 and 255 for numbered objects.'
            )
            raise TileFolderError(msg)
        sets = [
            _with_partner(pairs, place, _spread(one, categories))
            for pairs, one in zip(sets, masks, strict=True)
        ]
    return tuple(sets)


def _with_partner(pairs: PairSet, place: int, values: Pixels) -> PairSet:
    partners = list(pairs.partners)
    partners[place] = replace(partners[place], values=values)
    return replace(pairs, partners=tuple(partners))


def _spread(masks: Pixels, categories: npt.NDArray[np.integer]) -> Pixels:
    if not len(categories):
        return np.zeros_like(masks)
    # One category at a time: comparing all at once would need all of them in memory.
    spread = np.empty((*masks.shape[:3], len(categories)), np.uint8)
    for k, category in enumerate(categories):
        spread[..., k] = np.where(masks[..., 0] == category, 255, 0)
    return spread
