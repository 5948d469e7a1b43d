"""A checkerboard of two registered layers, for what is in view and no more.

Squares show the H&E and the partner in turn: where they are aligned, structures run on
across the borders. The picture has about the pixels of the canvas, whatever the slide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.distil.partners import look_over
from napari_histodistill.distill.layers.partners import DenseLayer, to_look_at
from napari_histodistill.geometry import Region, WorldTransform
from napari_histodistill.slides.pyramid.resample import read_resampled

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.controllers.distil.partners import Partner
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide

    Pixels = npt.NDArray[np.uint8]

LONGEST_PX = 1400
"""No canvas needs more."""

SQUARES = 8
"""Across the view, for a start."""

VISIBLE_PX = 6
"""Smaller squares are no longer seen as squares."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkerboard:
    """A composed picture.

    Attributes
    ----------
    pixels : ndarray
        ``(h, w, 3)`` uint8; where the partner does not reach, only the H&E.
    world : WorldTransform
        In the H&E's own µm.
    square_um : float
        Edge of a square.
    layer : DenseLayer
        The partner as it was looked over; give it back for the next one.
    """

    pixels: Pixels
    world: WorldTransform
    square_um: float
    layer: DenseLayer

    @property
    def square_px(self) -> float:
        """Edge of a square in pixels of the picture."""
        return self.square_um / self.world.scale[0]


def fitting_square_um(view: Region, sparse: Slide) -> float:
    """Return a round edge, of which some eight lie across the view.

    Parameters
    ----------
    view : Region
        Level-0 pixels.
    sparse : Slide
        With µm per pixel.
    """
    wanted = min(view.height, view.width) * sparse.require_mpp().mean / SQUARES
    power = 10.0 ** math.floor(math.log10(wanted))
    return power * max(n for n in (1, 2, 5) if n * power <= wanted * 1.0001)


def screen_px(view: Region, sparse: Slide, zoom: float) -> int:
    """Return how many pixels of the screen the longer side of a view takes.

    Parameters
    ----------
    view : Region
        Level-0 pixels.
    sparse : Slide
        With µm per pixel.
    zoom : float
        Pixels of the screen per µm.
    """
    mpp = sparse.require_mpp()
    return math.ceil(max(view.height * mpp.y, view.width * mpp.x) * zoom)


def say_checkerboard(board: Checkerboard) -> str:
    """Return what a checkerboard shows, in a sentence."""
    if board.square_px < VISIBLE_PX:
        return (
            f"Squares of {board.square_um:g} µm are too small to see here: zoom in, or "
            "choose larger ones."
        )
    return (
        f"Squares of {board.square_um:g} µm show the H&E and {board.layer.name} in "
        "turn: aligned structures continue across their borders."
    )


def checkerboard_work(
    sparse: Slide,
    partner: Partner,
    view: Region,
    square_um: float,
    *,
    screen_px: int,
    known: DenseLayer | None = None,
) -> Work:
    """Return the work that composes a checkerboard.

    Parameters
    ----------
    sparse : Slide
        The H&E.
    partner : Partner
        With pixels; lies as its registration says.
    view : Region
        The part in view, level-0 pixels of the H&E.
    square_um : float
        Edge of a square. The squares stay where they are when the view moves.
    screen_px : int
        Pixels along the longer side of the view.
    known : DenseLayer, optional
        Of the last checkerboard with this partner: it is not looked over again.
    """

    def work(cancel: CancelToken) -> Iterator[Checkerboard]:
        layer = _layer(partner, known)
        cancel.check()
        yield compose(sparse, layer, view, square_um, screen_px=screen_px)

    return work


def compose(
    sparse: Slide, layer: DenseLayer, view: Region, square_um: float, *, screen_px: int
) -> Checkerboard:
    """Compose a checkerboard; see :func:`checkerboard_work`."""
    mpp = sparse.require_mpp()
    longest = min(LONGEST_PX, max(2, screen_px))
    step_um = max(view.height * mpp.y, view.width * mpp.x) / longest
    height = max(2, round(view.height * mpp.y / step_um))
    width = max(2, round(view.width * mpp.x / step_um))
    scale = view.height * mpp.y / height, view.width * mpp.x / width
    first = (
        view.y * mpp.y + (scale[0] - mpp.y) / 2,
        view.x * mpp.x + (scale[1] - mpp.x) / 2,
    )
    y = first[0] + np.arange(height) * scale[0]
    x = first[1] + np.arange(width) * scale[1]
    points = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    odd = (np.floor(y / square_um)[:, None] + np.floor(x / square_um)) % 2 == 1
    partners = odd & _reached(layer, points)
    pixels = np.array(read_resampled(sparse, view, height=height, width=width))
    if partners.any():
        pixels[partners] = _shown(layer, points)[partners]
    return Checkerboard(pixels, WorldTransform(scale, first), square_um, layer)


def _shown(layer: DenseLayer, points: npt.NDArray[np.float64]) -> Pixels:
    if layer.kind == "mask":
        # Reading a mask's own numbers takes all pixels of the view; to look at, any
        # object in reach will do, which the pyramid's means show.
        any_object = np.array([[0.0, 0.5]])
        layer = replace(layer, kind="channels", ranges=any_object)
    return to_look_at(layer.read_at(points), layer.kind)


def _reached(
    layer: DenseLayer, points: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    pixels, shape = layer.pixels(points), np.array(layer.slide.shape)
    near = (pixels >= 0) & (pixels <= shape)
    inside: npt.NDArray[np.bool_] = near[..., 0] & near[..., 1]
    return inside


def _layer(partner: Partner, known: DenseLayer | None) -> DenseLayer:
    if known is not None and known.slide is partner.slide:
        return replace(known, matrix=partner.matrix)
    return look_over(partner)
