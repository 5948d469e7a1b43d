"""A procedural slide that looks like H&E-stained colon and is not: seeded, known.

It gives the pyramid, progress, class map and ranking something to work on without a
download, and lets tests know where each kind of tissue is. It is a picture of textbook
geometry; nothing about real tissue can be learnt from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from skimage import measure

from napari_histodistill.samples import tissue_layout as lay
from napari_histodistill.samples import tissue_painting as brush

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.samples.tissue_layout import Gland
    from napari_histodistill.samples.tissue_painting import Canvas

HEIGHT_PX, WIDTH_PX = 6000, 8000
MPP = 0.5
SEED = 20230310


@dataclass(frozen=True, eq=False, slots=True)
class SyntheticTruth:
    """The truth of a painted slide: which tissue is where.

    Attributes
    ----------
    labels : ndarray
        ``(rows, columns)`` uint8, an index into ``classes``.
    classes : tuple of str
        ``("glass", "stroma", "gland", "crowded gland", "lymphoid tissue")``.
    um_per_px : float
        Size of an element of ``labels`` in µm; element ``(0, 0)`` starts at the
        slide's upper left corner.
    """

    labels: npt.NDArray[np.uint8]
    classes: tuple[str, ...]
    um_per_px: float


def paint_slide(
    height: int = HEIGHT_PX, width: int = WIDTH_PX, *, seed: int = SEED
) -> tuple[npt.NDArray[np.uint8], SyntheticTruth]:
    """Return the picture ``(height, width, 3)`` uint8 at 0.5 µm per pixel, and truth.

    The same seed and size give the same picture. 6000 × 8000 px take about 15 s on one
    core and 1.5 GB while it is painted.
    """
    rng = np.random.default_rng(seed)
    layout = lay.plan(height, width, rng)
    canvas = brush.Canvas(
        layout=layout,
        rng=rng,
        h=np.zeros((height, width), np.float32),
        e=np.zeros((height, width), np.float32),
        labels=np.zeros((height, width), np.uint8),
        stamps=brush.make_stamps(rng),
    )
    flow = brush.paint_ground(canvas)
    _vessels(canvas)
    glands = [g for g in lay.place_glands(layout, rng) if brush.paint_gland(canvas, g)]
    _surface(canvas)
    _stroma_cells(canvas, flow)
    for gland in glands:
        (_crowded_cells if gland.crowded else _crypt_cells)(canvas, gland)
    half = lay.COARSE_PX // 2
    labels = canvas.labels[half :: lay.COARSE_PX, half :: lay.COARSE_PX].copy()
    truth = SyntheticTruth(labels, lay.CLASS_NAMES, lay.COARSE_PX * MPP)
    return brush.finish(canvas), truth


def _around(
    gland: Gland, inset: npt.NDArray[np.floating], theta: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Return positions ``inset`` px inside the outline, one for each angle."""
    radius = np.maximum(gland.outline(theta) - inset, 0)
    return gland.y + radius * np.sin(theta), gland.x + radius * np.cos(theta)


def _turns(count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return ``count`` angles round a circle, evenly with a little jitter."""
    return (np.arange(count) + rng.uniform(-0.28, 0.28, count)) * (2 * np.pi / count)


def _crypt_cells(canvas: Canvas, gland: Gland) -> None:
    """Goblet cells' vacuoles in the middle, one row of nuclei at the base."""
    rng = canvas.rng
    theta = _turns(int(2 * np.pi * 0.6 * gland.radius / 20), rng)
    theta = theta[rng.random(len(theta)) < 0.88]
    y, x = _around(gland, rng.normal(35, 3.8, len(theta)), theta)
    canvas.paste("vacuole", y, x, theta, (0.10, 0.13))
    theta = _turns(int(2 * np.pi * gland.radius / 12.5), rng)
    y, x = _around(gland, rng.normal(9.7, 1.9, len(theta)), theta)
    lean = theta + np.where(rng.random(len(theta)) < 0.6, 0, np.pi / 2)
    canvas.paste("basal", y, x, lean, (1.15, 0.36))


def _crowded_cells(canvas: Canvas, gland: Gland) -> None:
    """Tall dark nuclei in two or three uneven rows, debris in the lumen."""
    rng = canvas.rng
    theta = _turns(max(6, int(gland.radius / 9)), rng)
    theta = theta[rng.random(len(theta)) < 0.15]
    y, x = _around(gland, rng.normal(48, 4, len(theta)), theta)
    canvas.paste("vacuole", y, x, theta, (0.12, 0.16))
    rows = 2 + int(rng.random() < 0.6)
    for inset, gap in ((13, 12.0), (27, 13.5), (41, 18.0))[:rows]:
        length = 2 * np.pi * max(gland.radius - inset, 10)
        theta = _turns(max(5, int(length / gap)), rng)
        depth = rng.normal(inset, 4.5, len(theta))
        y, x = _around(gland, depth, theta)
        mine = _is(canvas, y, x, lay.CROWDED_GLAND)
        lean = theta + rng.normal(0, 0.22, len(theta))
        canvas.paste("tall", y[mine], x[mine], lean[mine], (1.42, 0.50))
    if rng.random() < 0.55:
        theta = rng.uniform(0, 2 * np.pi, int(gland.radius / 5))
        depth = gland.radius * rng.uniform(0.8, 1.0, len(theta))
        y, x = _around(gland, depth, theta)
        canvas.paste("debris", y, x, theta, (0.8, 0.7))


def _stroma_cells(canvas: Canvas, flow: npt.NDArray[np.float32]) -> None:
    """Lymphocytes, plasma cells and fibroblasts between the glands; the aggregates."""
    rng, layout = canvas.rng, canvas.layout
    y, x = lay.scatter(canvas.h.shape, 21, rng)
    depth = layout.at(layout.depth, y, x)
    wanted = _is(canvas, y, x, lay.STROMA) & (layout.at(layout.edge, y, x) > 14)
    density = np.where(depth > 80, 0.10, np.where(depth > -20, 0.24, 0.52))
    wanted &= rng.random(len(y)) < density
    y, x, depth = y[wanted], x[wanted], depth[wanted]
    lean = layout.at(flow, y, x) + rng.normal(0, 0.25, len(y))
    kind = rng.random(len(y))
    kind[depth > -20] *= 0.62  # few round cells below the mucosa
    for name, low, high, amount in (
        ("spindle", 0.0, 0.52, (0.98, 0.5)),
        ("lymphocyte", 0.52, 0.82, (1.45, 0.32)),
        ("plasma", 0.82, 1.01, (1.15, 0.55)),
    ):
        some = (kind >= low) & (kind < high)
        canvas.paste(name, y[some], x[some], lean[some], amount)
    y, x = lay.scatter(canvas.h.shape, 14.5, rng)
    field = layout.at(layout.lymphoid, y, x)
    # A germinal centre is paler: larger, looser cells in the middle.
    centre = np.clip((field - 0.45) * 4, 0, 1)
    wanted = (_is(canvas, y, x, lay.LYMPHOID)) & (rng.random(len(y)) < 0.95)
    dense = wanted & (rng.random(len(y)) > centre)
    loose = wanted & ~dense & (rng.random(len(y)) < 0.6)
    canvas.paste("lymphocyte", y[dense], x[dense], y[dense] * 0, (1.4, 0.3))
    canvas.paste("plasma", y[loose], x[loose], y[loose], (0.85, 0.34))
    # Round cells spill over the aggregate's border.
    near = (field > -0.35) & (field <= 0) & _is(canvas, y, x, lay.STROMA)
    near &= rng.random(len(y)) < np.clip(0.55 + 1.6 * field, 0, 1)
    canvas.paste("lymphocyte", y[near], x[near], y[near] * 0, (1.4, 0.3))


def _surface(canvas: Canvas) -> None:
    """Line the upper border of the mucosa with one row of tall cells."""
    layout, rng = canvas.layout, canvas.rng
    height, width = canvas.h.shape
    lined = (layout.depth < -120) & (np.gradient(layout.edge, axis=0) > 4)
    for s in brush.strips(height):
        edge = brush.enlarge(layout.edge, s, width)
        band = (edge > 0) & (edge < 46) & (brush.enlarge(lined, s, width) > 0.5)
        canvas.e[s][band] = 0.5
        canvas.h[s][band] = 0.2
        canvas.labels[s][band] = lay.GLAND
    for line in measure.find_contours(layout.edge, 34):
        at = (line + 0.5) * lay.COARSE_PX
        step = np.hypot(*np.diff(at, axis=0).T)
        along = np.concatenate([[0], np.cumsum(step)])
        stops = np.arange(0, along[-1], 12.0)
        y = np.interp(stops, along, at[:, 0]) + rng.normal(0, 1.4, len(stops))
        x = np.interp(stops, along, at[:, 1]) + rng.normal(0, 1.4, len(stops))
        mine = _is(canvas, y, x, lay.GLAND) & (layout.at(layout.depth, y, x) < -120)
        upright = np.full(mine.sum(), np.pi / 2) + rng.normal(0, 0.2, mine.sum())
        canvas.paste("basal", y[mine], x[mine], upright, (1.2, 0.4))
        goblet = mine & (rng.random(len(y)) < 0.22)
        up = np.full(goblet.sum(), np.pi / 2)
        canvas.paste("vacuole", y[goblet] - 17, x[goblet], up, (0.10, 0.13))


def _vessels(canvas: Canvas) -> None:
    """Put a few vessels with red cells below the mucosa."""
    rng, layout = canvas.rng, canvas.layout
    y, x = lay.scatter(canvas.h.shape, 520, rng)
    fits = (layout.at(layout.depth, y, x) > 230) & (layout.at(layout.edge, y, x) > 190)
    fits &= layout.at(layout.lymphoid, y, x) < -0.6
    for vy, vx in zip(y[fits], x[fits], strict=True):
        radius, wall = rng.uniform(26, 80), rng.uniform(10, 26)
        squeeze, lean = rng.uniform(0.55, 1.0), rng.uniform(0, np.pi)
        reach = int(radius + wall) + 6
        top, left = int(vy) - reach, int(vx) - reach
        if min(top, left) < 0 or top + 2 * reach > layout.height:
            continue
        if left + 2 * reach > layout.width:
            continue
        at = np.s_[top : top + 2 * reach, left : left + 2 * reach]
        gy, gx = np.mgrid[-reach:reach, -reach:reach].astype(np.float32)
        along = gy * np.sin(lean) + gx * np.cos(lean)
        across = (gy * np.cos(lean) - gx * np.sin(lean)) / squeeze
        r = np.hypot(along, across)
        muscle = np.clip((radius + wall - r) / 3, 0, 1)
        lumen = np.clip((radius - r) / 2, 0, 1)
        streak = 1 + 0.12 * np.sin(r * 0.9 + rng.uniform(0, 6))
        canvas.e[at] += muscle * (0.85 * streak - canvas.e[at])
        canvas.e[at] *= 1 - 0.95 * lumen
        canvas.h[at] *= 1 - 0.9 * lumen
        theta = _turns(int(2 * np.pi * radius / 34), rng)
        ly, lx = _oval(radius + 2, theta, squeeze, lean)
        canvas.paste("spindle", vy + ly, vx + lx, theta + lean + np.pi / 2, (1.1, 0.5))
        theta = rng.uniform(0, 2 * np.pi, int(radius**2 / 130))
        ly, lx = _oval(
            radius * 0.8 * np.sqrt(rng.random(len(theta))), theta, squeeze, lean
        )
        canvas.paste("red cell", vy + ly, vx + lx, theta, (0.02, 1.05))


def _oval(
    radius: npt.NDArray[np.floating] | float,
    theta: npt.NDArray[np.floating],
    squeeze: float,
    lean: float,
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Return offsets ``(y, x)`` on an ellipse that is squeezed across ``lean``."""
    along, across = radius * np.cos(theta), radius * np.sin(theta) * squeeze
    y = along * np.sin(lean) + across * np.cos(lean)
    return y, along * np.cos(lean) - across * np.sin(lean)


def _is(
    canvas: Canvas,
    y: npt.NDArray[np.floating],
    x: npt.NDArray[np.floating],
    code: int,
) -> npt.NDArray[np.bool_]:
    """Whether positions lie on a class of the painted truth."""
    height, width = canvas.labels.shape
    r = np.clip(np.round(y).astype(int), 0, height - 1)
    c = np.clip(np.round(x).astype(int), 0, width - 1)
    found: npt.NDArray[np.bool_] = canvas.labels[r, c] == code
    return found
