"""Numbers of the canvas: scale, zoom and the outline of a drawn ellipse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.geometry import Mpp

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MICROMETRES = frozenset(("micrometer", "micrometre", "um", "µm", "micron"))

ELLIPSE_CORNERS = 64


def mpp_of_scale(scale: Sequence[float], units: Sequence[object]) -> Mpp | None:
    """Return the µm per pixel that a layer's scale says; None where it says none.

    Parameters
    ----------
    scale : sequence of float
        World units per pixel, of each axis; the last two are ``y, x``.
    units : sequence
        Of each axis; only all of them in µm give the numbers a meaning.
    """
    if not all(str(unit) in MICROMETRES for unit in units):
        return None
    y, x = (abs(float(s)) for s in scale[-2:])
    return Mpp(y, x, "the layer's scale in µm") if y > 0 < x else None


def zoom_to_show(
    extent: npt.ArrayLike, canvas: Sequence[float], *, share: float, zoom: float
) -> float:
    """Return the zoom at which something fills a share of the canvas.

    The zoom stays as it is if it is already between half and twice that: a user who
    walks through a list does not want to be thrown in and out.

    Parameters
    ----------
    extent : array-like of float
        Height and width, world units.
    canvas : sequence of float
        Height and width, screen pixels.
    share : float
        Of the canvas, 0 to 1.
    zoom : float
        As it is, screen pixels per world unit.
    """
    sizes = np.maximum(np.asarray(extent, float), 1e-9)
    wanted = share * float(np.min(np.asarray(canvas, float) / sizes))
    return zoom if wanted / 2 <= zoom <= wanted * 2 else wanted


def ellipse_outline(box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ``(64, 2)`` points on the ellipse in a box of ``(4, 2)`` corners.

    The box may be turned; its corners come in order, as napari keeps an ellipse.
    """
    center = box.mean(axis=0)
    a, b = (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    t = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)[:, np.newaxis]
    outline: npt.NDArray[np.float64] = center + np.cos(t) * a + np.sin(t) * b
    return outline
