"""A page of maps: genes as they were measured, and as a student sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.experiments.job import PREDICTED
from napari_histodistill.distill.scoring.figures import new_figure, save_figure
from napari_histodistill.errors import InputError
from napari_histodistill.files import written_beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.experiments.expression import GeneRow, GeneTable
    from napari_histodistill.distill.experiments.job import ExperimentJob
    from napari_histodistill.distill.scoring.expression import MeasuredTiles

    Floats = npt.NDArray[np.float32]

MAPS = "genes.png"
_SPOT = 5


def draw_best_genes(
    table: GeneTable,
    tiles: MeasuredTiles,
    positions: npt.NDArray[np.float64] | None,
    jobs: Sequence[ExperimentJob],
    out: Path,
) -> None:
    """Draw the best variant's best genes, of its first seed, on all held-out sections.

    Parameters
    ----------
    table : GeneTable
        The results.
    tiles : MeasuredTiles
        The tiles.
    positions : ndarray or None
        ``(n, 2)``: row and column of every tile; None draws nothing.
    jobs : sequence of ExperimentJob
        The runs. Where the folder of one is gone nothing is drawn: what a run predicts
        is kept nowhere else.
    out : Path
        Folder of the experiment; the page is ``genes.png``.
    """
    fixed = table.design.fixed
    shown = [row for row in table.rows if row.mean and row.variant not in fixed]
    if positions is None or not shown:
        return
    row = max(shown, key=lambda one: one.mean.value)  # type: ignore[union-attr]
    predicted = _predicted(row, tiles, jobs)
    if predicted is None:
        return
    with written_beside(out / MAPS) as beside:
        draw_maps(row, tiles, positions, predicted, beside)


def _predicted(
    row: GeneRow, tiles: MeasuredTiles, jobs: Sequence[ExperimentJob]
) -> Floats | None:
    """Return ``(n, genes)``, each tile by the run that held it out."""
    found = np.full(tiles.genes.shape, np.nan, np.float32)
    for job in jobs:
        if (job.variant, job.seed) == (row.variant, row.seeds[0]):
            path = job.folder / PREDICTED.format(job.fold)
            if not path.is_file():
                return None
            try:
                found[tiles.folds == job.fold] = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError, TypeError) as error:
                msg = f"{path} cannot be read ({error}): remove it."
                raise InputError(msg) from error
    return found


def draw_maps(
    row: GeneRow,
    tiles: MeasuredTiles,
    positions: npt.NDArray[np.float64],
    predicted: Floats,
    path: Path,
) -> None:
    """Draw a row per gene, and for every section what was measured and predicted.

    Each map has its own colours, from its 2nd to its 98th percentile: what is to be
    compared is where a gene is high, not how high.
    """
    sections = list(dict.fromkeys(tiles.cases.tolist()))
    columns = 2 * len(sections)
    figure = new_figure(1.5 * columns, 1.5 * len(row.best) + 0.6)
    grid = figure.subplots(len(row.best), columns, squeeze=False)
    for line, gene in enumerate(row.best):
        place = tiles.names.index(gene.name)
        for k, section in enumerate(sections):
            here = tiles.cases == section
            values = (tiles.genes[here, place], predicted[here, place])
            for axes, value in zip(grid[line, 2 * k : 2 * k + 2], values, strict=True):
                low, high = np.nanpercentile(value, [2, 98])
                y, x = positions[here].T
                axes.scatter(x, y, c=value, s=_SPOT, vmin=low, vmax=high, lw=0)
                axes.set_aspect("equal")
                axes.invert_yaxis()
                axes.axis("off")
            if line == 0:
                grid[line, 2 * k].set_title(f"{k + 1}: measured", fontsize=8)
                grid[line, 2 * k + 1].set_title(f"{k + 1}: predicted", fontsize=8)
        label = f"{gene.name}\nr {gene.correlation:.2f}"
        grid[line, 0].text(
            *(-0.05, 0.5, label),
            transform=grid[line, 0].transAxes,
            ha="right",
            va="center",
            fontsize=7,
        )
    figure.suptitle(
        f"{row.variant}: genes by a linear map, on sections of folds that neither the "
        "student nor the map has seen",
        fontsize=10,
    )
    save_figure(figure, path)
