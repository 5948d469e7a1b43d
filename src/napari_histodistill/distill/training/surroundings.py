"""Surroundings: a tile among other tissue should embed as it does alone.

A convolutional student reads fine maps off one pass over a large window: the mean of
the tokens under a tile stands for the tile. But tokens see past the tile's border, and
where a student was trained on tiles alone, that mean is another embedding. Here some
views of every step are shown a second time in the middle of other tiles, and the share
of the embedding that the surroundings change is a term of the loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_histodistill.distill.training.moving import sent
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from napari_histodistill.distill.recipes.config import SurroundingsConfig

    Tensor = torch.Tensor

AROUND = tuple((y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1))
"""The eight squares around the middle one of nine."""


def surround(
    views: Tensor, config: SurroundingsConfig, generator: torch.Generator
) -> Tensor:
    """Lay other views of the batch around some of them.

    Parameters
    ----------
    views : Tensor
        ``(n, c, size, size)``.
    config : SurroundingsConfig
        Share of the views (the first ones: a batch has no order), and width of the
        surroundings, at most that of a view.
    generator : torch.Generator
        On the CPU; draws the neighbours.

    Returns
    -------
    Tensor
        ``(k, c, size + 2·margin_px, size + 2·margin_px)``, on the views' device. In its
        middle lies the view itself, turned with all around it where the recipe asks.
    """
    n, channels, size, _ = views.shape
    margin = config.margin_px
    if margin > size:
        msg = (
            f"surroundings.margin_px is {margin}, wider than a view ({size} px): "
            "make it smaller."
        )
        raise InputError(msg)
    count = max(1, round(config.share * n))
    # Offsets along the batch: never to the view itself, unless it is alone.
    steps = [torch.randint(1, max(2, n), (count,), generator=generator) for _ in AROUND]
    drawn = {"others": (torch.arange(count) + torch.stack(steps)) % n}
    if config.turned:
        drawn["ways"] = torch.randint(0, 8, (count,), generator=generator)
    (there,) = sent([drawn], views.device)
    whole = views.new_empty(count, channels, 3 * size, 3 * size)
    for (y, x), others in zip(AROUND, there["others"], strict=True):
        square = views[others]
        whole[..., y * size : (y + 1) * size, x * size : (x + 1) * size] = square
    whole[..., size : 2 * size, size : 2 * size] = views[:count]
    first, last = size - margin, 2 * size + margin
    windows = whole[..., first:last, first:last].contiguous()
    return _turned(windows, there["ways"]) if config.turned else windows


def _turned(windows: Tensor, ways: Tensor) -> Tensor:
    """Return square windows, each in one of the eight ways to lay it."""
    ways = ways.view(-1, 1, 1, 1)
    found = torch.where(ways % 2 > 0, windows.flip(-1), windows)
    found = torch.where(ways // 2 % 2 > 0, found.flip(-2), found)
    return torch.where(ways // 4 > 0, found.transpose(-1, -2), found)


def surroundings_loss(alone: Tensor, among: Tensor) -> Tensor:
    """Return the share of the embeddings' variance that surroundings change.

    Parameters
    ----------
    alone : Tensor
        ``(n, dim)``, of tiles alone.
    among : Tensor
        ``(k, dim)``, of the first ``k`` of them among other tissue.

    Returns
    -------
    Tensor
        Scalar: ``Σ ‖among − alone‖² / Σ ‖alone − mean(alone)‖²`` over these tiles, the
        mean over all. 0 where nothing changes, 1 where the surroundings matter as much
        as the tile; no unit, so that scaling embeddings gains nothing.
    """
    alone, among = alone.float(), among.float()
    own = alone[: len(among)]
    spread = (own - alone.mean(dim=0)).square().sum()
    return (among - own).square().sum() / spread.clamp_min(1e-12)
