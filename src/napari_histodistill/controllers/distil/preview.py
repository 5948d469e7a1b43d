"""Preview of a training: the part of the slide in view, as its student sees it.

The run leaves students in its folder (``distill/runs/preview.py``); a job reads a few
hundred cells of what the canvas shows, has the newest student embed them in a process
of its own (``controllers/shared/embed_process.py``), and paints them. Its thread has a
low rank, looks at its token between small batches, and returns a small array with its
own place: nothing here touches the window.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.runs.preview import newest_preview
from napari_histodistill.geometry import Region, WorldTransform
from napari_histodistill.layers.overlays import VIRIDIS
from napari_histodistill.slides.pyramid.grid import TileGrid
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.slides.tissue.tissue import find_tissue
from napari_histodistill.students.bundle import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.distil.session import DistilSession
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.tissue.tissue import TissueMask
    from napari_histodistill.students.spec import StudentSpec

    Floats = npt.NDArray[np.float32]
    Pixels = npt.NDArray[np.uint8]
    Embed = Callable[[Path, Pixels, CancelToken], Floats]


class Colouring(Enum):
    """Meaning of the colours of a preview."""

    ALIKE = "alike"
    """Places of one colour look alike to the student."""
    CENTRE = "centre"
    """A place is coloured by its similarity to the middle of the view."""


COLOURINGS = {
    Colouring.ALIKE: "Same colour: alike to the model",
    Colouring.CENTRE: "Similarity to the middle of the view",
}

MOST_CELLS = 400
BATCH = 16
_RANK = 10


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A view to be painted.

    Attributes
    ----------
    bundle : Path
        Of the student.
    region : Region
        Part that the canvas shows, level-0 px.
    colouring : Colouring
        Meaning of the colours.
    step : int or None
        After which step of the run it is the student; None for the run's own, once it
        has ended.
    """

    bundle: Path
    region: Region
    colouring: Colouring
    step: int | None = None

    def is_like(self, other: Sight | None) -> bool:
        """Whether nothing would change."""
        return (
            other is not None
            and self.is_same_view(other)
            and self.bundle == other.bundle
        )

    def is_same_view(self, other: Sight) -> bool:
        """Whether both are of one view in the same colours, by whichever student."""
        return (self.region, self.colouring) == (other.region, other.colouring)


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """A painted view.

    Attributes
    ----------
    sight : Sight
        View that it is of.
    pixels : ndarray
        ``(rows, columns, 4)`` uint8 RGBA; glass is transparent.
    world : WorldTransform
        Where they lie, µm.
    tissue : TissueMask
        Of the slide, to be found only once.
    scores : ndarray
        ``(cells, 3)`` float32 that the colours stand for, so that the next student's
        colours can be turned to resemble these.
    """

    sight: Sight
    pixels: Pixels
    world: WorldTransform
    tissue: TissueMask
    scores: Floats


def may_be_wanted(session: DistilSession, *, starting: bool) -> bool:
    """Whether a preview may be asked for soon: pairs wait, or a run works.

    Parameters
    ----------
    session : DistilSession
        With the pairs and the run.
    starting : bool
        Whether a run is being started, or its pairs are being written.
    """
    return starting or session.has_new_pairs or session.works


def newest_student(session: DistilSession) -> tuple[int | None, Path] | None:
    """Return the newest student of the run, and after which step it is that.

    Its own, once it has ended: the step is None then. None if there is none at all.
    """
    if session.run is None:
        return None
    newest = newest_preview(session.run.folder)
    if newest is not None:
        return newest
    own = session.ready_student
    return None if own is None else (None, own)


def say_preview(sight: Sight) -> str:
    """Return what a preview shows, in a sentence."""
    at = "At the end" if sight.step is None else f"After step {sight.step}"
    if sight.colouring is Colouring.CENTRE:
        return f"{at}: yellow is most similar to the middle of the view, violet least."
    return f"{at}: places of one colour look alike to the model; a hue has no meaning."


def _by_newest(sight: Sight) -> Sight:
    if sight.step is None:
        return sight
    newest = newest_preview(sight.bundle.parent.parent)
    return sight if newest is None else replace(sight, step=newest[0], bundle=newest[1])


def preview_work(
    slide: Slide, asked: Sight, before: Preview | None, embed: Embed
) -> Work:
    """Return the work that paints a view; it reports once.

    Parameters
    ----------
    slide : Slide
        RGB, with µm per pixel.
    asked : Sight
        View to paint; by the run's newest student, if there is a newer one by then.
    before : Preview or None
        The last one of this slide.
    embed : callable
        As :meth:`EmbedProcess.embed` in ``controllers/shared/embed_process.py``.
    """

    def work(cancel: CancelToken) -> Iterator[Preview]:
        _step_back()
        tissue = find_tissue(slide) if before is None else before.tissue
        cancel.check()
        # Tissue takes a second or two; meanwhile a quick training removed the student.
        sight = _by_newest(asked)
        spec = load_spec(sight.bundle)
        grid, rows, columns = grid_in_view(spec, slide, sight.region)
        wanted = tissue.cells(grid)[rows, columns]
        cells = np.argwhere(wanted)
        places = cells + np.array([rows.start, columns.start])
        batches = _batches(slide, grid, places, spec.tile_px, cancel)
        parts = [embed(sight.bundle, tiles, cancel) for tiles in batches]
        nothing = np.zeros((0, spec.embedding_dim), np.float32)
        embeddings = np.concatenate([nothing, *parts])
        scores = embeddings[:, :0]
        colors = np.zeros((len(cells), 3), np.uint8)
        if len(cells) and sight.colouring is Colouring.CENTRE:
            colors = likeness_to(embeddings, _middle(cells, wanted.shape))
        elif len(cells):
            known = None if before is None else before.scores
            scores = three_directions(embeddings, known)
            colors = as_colors(scores)
        pixels = np.zeros((*wanted.shape, 4), np.uint8)
        pixels[cells[:, 0], cells[:, 1], :3] = colors
        pixels[cells[:, 0], cells[:, 1], 3] = 255
        world = part_of(grid.world(), rows.start, columns.start)
        yield Preview(sight, pixels, world, tissue, scores)

    return work


def grid_in_view(
    spec: StudentSpec, slide: Slide, region: Region
) -> tuple[TileGrid, slice, slice]:
    """Return a grid of at most about 400 cells in view, and which cells these are.

    Cells lie where they would in any other view of the same size: moving the canvas a
    little does not move what is painted.
    """
    mpp = slide.require_mpp()
    area_um2 = region.height * mpp.y * region.width * mpp.x
    finest = max(1, spec.tile_px // 4)
    stride = max(finest, math.ceil(math.sqrt(area_um2 / MOST_CELLS) / spec.mpp))
    # In steps of √2: a slightly larger view keeps its cells.
    stride = math.ceil(finest * 2 ** (math.ceil(2 * math.log2(stride / finest)) / 2))
    stride += (stride - spec.tile_px) % 2
    grid = TileGrid.over(
        slide.shape, mpp, mpp=spec.mpp, tile_px=spec.tile_px, stride_px=stride
    )
    return grid, *grid.cells_in(region)


def part_of(world: WorldTransform, row: int, column: int) -> WorldTransform:
    """Return the transform of an array that begins at a grid's row and column."""
    (sy, sx), (ty, tx) = world.scale, world.translate
    return WorldTransform(scale=(sy, sx), translate=(ty + row * sy, tx + column * sx))


def three_directions(embeddings: Floats, before: Floats | None) -> Floats:
    """Return the three directions in which embeddings differ most, ``(n, 3)``.

    Parameters
    ----------
    embeddings : ndarray
        ``(n, dim)``.
    before : ndarray or None
        ``(n, 3)`` of the same cells by an earlier student: the new directions are
        turned and mirrored to resemble it (orthogonal Procrustes), since which one is
        red is arbitrary and must not change at every step.
    """
    centred = embeddings - embeddings.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    scores = np.zeros((len(embeddings), 3), np.float32)
    found = min(3, len(s))
    scores[:, :found] = u[:, :found] * s[:found]
    # One step of colour for one standard deviation, whatever the student's scale.
    scores /= max(float(scores.std()), 1e-12)
    if before is not None and before.shape == scores.shape:
        left, _, right = np.linalg.svd(scores.T @ before)
        scores = (scores @ (left @ right)).astype(np.float32)
    return scores


def as_colors(scores: Floats) -> Pixels:
    """Return ``(n, 3)`` uint8 colours of ``(n, 3)`` scores, far from black."""
    low, high = np.percentile(scores, [2, 98], axis=0)
    shares = (scores - low) / np.maximum(high - low, 1e-6)
    colors: Pixels = (40 + 215 * np.clip(shares, 0, 1)).astype(np.uint8)
    return colors


def likeness_to(embeddings: Floats, cell: int) -> Pixels:
    """Return ``(n, 3)`` uint8: viridis of the cosine to one cell's embedding."""
    units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1), 1e-12)[:, None]
    cosine = units @ units[cell]
    low = float(cosine.min())
    share = (cosine - low) / max(1 - low, 1e-6)
    points = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in VIRIDIS])
    at = np.clip(share, 0, 1) * (len(points) - 1)
    channels = [np.interp(at, np.arange(len(points)), points[:, k]) for k in range(3)]
    colors: Pixels = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return colors


def _middle(cells: npt.NDArray[np.intp], shape: tuple[int, ...]) -> int:
    """Return the index of the tissue cell nearest to the middle of the view."""
    away = cells + 0.5 - np.array(shape) / 2
    return int((away**2).sum(axis=1).argmin())


def _batches(
    slide: Slide,
    grid: TileGrid,
    cells: npt.NDArray[np.intp],
    px: int,
    cancel: CancelToken,
) -> Iterator[Pixels]:
    for start in range(0, len(cells), BATCH):
        tiles = []
        for row, column in cells[start : start + BATCH].tolist():
            cancel.check()
            region = grid.tile_region(row, column)
            tiles.append(read_resampled(slide, region, height=px, width=px))
        yield np.stack(tiles)


def _step_back() -> None:
    """Let this thread, and no other, run after everybody else.

    The rank (Linux) stays with the thread, which ends with its job.
    """
    if sys.platform == "linux":
        me = threading.get_native_id()
        with contextlib.suppress(OSError):
            rank = max(_RANK, os.getpriority(os.PRIO_PROCESS, me))
            os.setpriority(os.PRIO_PROCESS, me, rank)
