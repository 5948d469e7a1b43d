"""Tokens averaged over tiles, for fine maps without overlapping tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


def pool_tokens(
    tokens: npt.NDArray[np.float32],
    *,
    stride_px: float,
    tile_px: float,
    centers_y_px: npt.ArrayLike,
    centers_x_px: npt.ArrayLike,
) -> npt.NDArray[np.float32]:
    """Average a window's tokens over the footprints of tiles, weighted by area.

    A token of which a tile covers a third has a third of the weight. The part of a tile
    that reaches past the window is ignored.

    Parameters
    ----------
    tokens : ndarray
        ``(h, w, dim)`` float32; token ``(i, j)`` stands for pixels
        ``[i·stride_px, (i+1)·stride_px) × [j·stride_px, …)`` of the window.
    stride_px, tile_px : float
        Edge of a token's square and of a tile, in pixels of the window.
    centers_y_px, centers_x_px : array-like
        Centres of the tiles' rows ``(rows,)`` and columns ``(columns,)`` in pixels of
        the window, edge convention (the first pixel covers 0 to 1).

    Returns
    -------
    ndarray
        ``(rows, columns, dim)`` float32.

    Raises
    ------
    InputError
        If a tile does not touch the window, or a size is not positive.
    """
    if not (stride_px > 0 and tile_px > 0):
        msg = f"token stride ({stride_px}) and tile ({tile_px}) must be positive."
        raise InputError(msg)
    rows = _weights(centers_y_px, tokens.shape[0], stride_px, tile_px)
    columns = _weights(centers_x_px, tokens.shape[1], stride_px, tile_px)
    by_row = np.tensordot(rows, tokens, axes=(1, 0))
    pooled = np.tensordot(columns, by_row, axes=(1, 1))
    return np.ascontiguousarray(pooled.transpose(1, 0, 2), dtype=np.float32)


def _weights(
    centers_px: npt.ArrayLike, count: int, stride_px: float, tile_px: float
) -> npt.NDArray[np.float32]:
    """Return weights ``(tiles, tokens)``: the share of a tile's edge in each token."""
    centers = np.atleast_1d(np.asarray(centers_px, np.float64))[:, None]
    first, last = centers - tile_px / 2, centers + tile_px / 2
    edges = np.arange(count + 1, dtype=np.float64) * stride_px
    covered = np.minimum(last, edges[1:]) - np.maximum(first, edges[:-1])
    covered = np.clip(covered, 0, None)
    total = covered.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        where = centers[int(np.argmin(total > 0)), 0]
        msg = (
            f"a tile centred at {where:g} px lies outside the window of tokens "
            f"({count} × {stride_px:g} px)."
        )
        raise InputError(msg)
    shares: npt.NDArray[np.float32] = (covered / total).astype(np.float32)
    return shares
