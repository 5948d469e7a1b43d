"""Figures of an experiment: every variant with its interval, and what classes gain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.distill.experiments.metrics import recall_of
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


def draw_gains(table: Table, path: Path) -> None:
    """Draw what every variant's recall of each class is above the baseline's.

    Parameters
    ----------
    table : Table
        From :func:`compare`, with differences of at least one variant.
    path : Path
        PNG: a panel for each class, grey where the baseline's own seeds lie.
    """
    design = table.design
    rows = [row for row in table.rows if row.differences][::-1]
    base = next(r.metrics for r in table.rows if r.variant == design.baseline) or {}
    shown = [name for name in design.classes if recall_of(name) in base]
    figure = new_figure(2 + 1.5 * len(shown), 1.3 + 0.28 * len(rows))
    panels = figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, shown, strict=True):
        of_base = base[recall_of(name)]
        seeds = (of_base.smallest - of_base.value, of_base.largest - of_base.value)
        axes.axvspan(*seeds, color="#dddddd", zorder=0)
        axes.axvline(0, color=PALETTE[1], lw=0.8, ls="--", zorder=0)
        for place, row in enumerate(rows):
            found = (row.differences or {})[recall_of(name)]
            axes.plot([found.low, found.high], [place, place], color=PALETTE[0], lw=2)
            axes.plot(found.value, place, "o", color=PALETTE[0], markersize=5)
        axes.set_title(f"{name}\n{design.baseline} {of_base.value:.2f}", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].set_yticks(range(len(rows)), [row.variant for row in rows])
    figure.supxlabel(
        f"recall above {design.baseline}; 95 % over cases (grey: its seeds)", fontsize=8
    )
    save_figure(figure, path)
