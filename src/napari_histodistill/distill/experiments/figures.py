"""The figure of an experiment: every variant with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.distill.scoring.figures import (
    PALETTE,
    new_figure,
    save_figure,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.experiments.comparison import Table


def draw_intervals(
    table: Table, path: Path, *, metric: str = "balanced accuracy"
) -> None:
    """Draw every variant's figure with its interval, best on top.

    Parameters
    ----------
    table : Table
        From :func:`compare`; variants without figures are left out.
    path : Path
        PNG.
    metric : str
        One of :attr:`.Design.metrics`.
    """
    rows = [(r.variant, r.metrics[metric]) for r in table.rows if r.metrics]
    rows.sort(key=lambda row: row[1].value)
    figure = new_figure(7, 0.9 + 0.32 * len(rows))
    axes = figure.subplots()
    for place, (name, found) in enumerate(rows):
        fixed = name in table.design.fixed
        colour = "#888888" if fixed else PALETTE[0]
        axes.plot([found.low, found.high], [place, place], color=colour, lw=2)
        axes.plot(found.value, place, "o", color=colour, markersize=6)
        if name == table.design.baseline:
            axes.axvline(found.value, color=PALETTE[1], lw=0.8, ls="--", zorder=0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xlabel(
        f"{metric}, out of fold; 95 % over cases (grey: nothing trained, dashes: "
        f"{table.design.baseline})",
        fontsize=8,
    )
    axes.set_ylim(-0.6, len(rows) - 0.4)
    save_figure(figure, path)
