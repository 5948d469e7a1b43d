"""Who judges the runs of an experiment: classes of tiles, or genes.

A judge knows the tiles, reads scores back, says whether a score is of these tiles,
makes the table and draws its figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_histodistill.distill.experiments.comparison import Design, Table, compare
from napari_histodistill.distill.experiments.expression import (
    GeneTable,
    compare_genes,
)
from napari_histodistill.distill.experiments.job import (
    judging_tiles,
    labelled_tiles,
    measured_tiles,
)
from napari_histodistill.distill.pairs.loading import tile_positions
from napari_histodistill.distill.scoring.expression import (
    ExpressionScore,
    check_sections,
)
from napari_histodistill.distill.scoring.held_out import RunScore
from napari_histodistill.errors import InputError
from napari_histodistill.files import written_beside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.experiments.config import ExperimentConfig
    from napari_histodistill.distill.experiments.job import ExperimentJob
    from napari_histodistill.distill.pairs.tilefolder import TileFolder
    from napari_histodistill.distill.scoring.expression import MeasuredTiles
    from napari_histodistill.distill.scoring.held_out import LabelledTiles, ScoreKey

    Failures = Mapping[ScoreKey, str]


class Judge(Protocol):
    """What an experiment needs to know of how it is judged."""

    def read(self, plain: dict[str, Any]) -> Any:
        """Return a score from its plain values."""

    def judged(self, score: Any) -> bool:
        """Return whether a score was measured on these tiles."""

    def compare(self, scores: Sequence[Any], failures: Failures) -> Table | GeneTable:
        """Return the table."""

    def draw(self, table: Any, jobs: Sequence[ExperimentJob], out: Path) -> None:
        """Write the table's figures."""


def judge_for(config: ExperimentConfig, folder: Path) -> Judge:
    """Return the judge of an experiment; refuse what would fail after training.

    Parameters
    ----------
    config : ExperimentConfig
        Recipe of the experiment.
    folder : Path
        Tile folder that judges.

    Raises
    ------
    InputError
        If the tiles cannot judge these runs.
    """
    elsewhere = config.experiment.judged is not None
    tiles = judging_tiles(folder, () if elsewhere else config.locked())
    if config.experiment.genes is not None:
        return _by_genes(config, tiles)
    return _by_classes(config, tiles)


@dataclass(frozen=True, slots=True, eq=False)
class ByClasses:
    """Classes of labelled tiles judge, through a probe or a trained head."""

    design: Design
    tiles: LabelledTiles

    def read(self, plain: dict[str, Any]) -> RunScore:
        """Return a score from its plain values."""
        return RunScore.from_dict(plain)

    def judged(self, score: RunScore) -> bool:
        """Return whether a score was measured on these tiles, labels and cases."""
        rows = np.flatnonzero(self.tiles.folds == score.fold)
        return (
            np.array_equal(score.rows, rows)
            and np.array_equal(score.truth, self.tiles.labels[rows])
            and np.array_equal(score.cases, self.tiles.cases[rows])
        )

    def compare(self, scores: Sequence[RunScore], failures: Failures) -> Table:
        """Return the table."""
        return compare(scores, self.design, failures=failures)

    def draw(self, table: Table, _jobs: Sequence[ExperimentJob], out: Path) -> None:
        """Write intervals, what classes gain, and the confusion of the best."""
        from napari_histodistill.distill.experiments.figures import (
            draw_gains,
            draw_intervals,
        )
        from napari_histodistill.distill.scoring.figures import draw_confusion

        shown = [row for row in table.rows if row.metrics is not None]
        if shown:
            with written_beside(out / "intervals.png") as beside:
                draw_intervals(table, beside)
            if any(row.differences for row in shown):
                with written_beside(out / "recalls.png") as beside:
                    draw_gains(table, beside)
            best = max(shown, key=lambda row: row.metrics["balanced accuracy"].value)  # type: ignore[index]
            with written_beside(out / "confusion.png") as beside:
                draw_confusion(best.confusion, table.design.classes, beside)


def _by_classes(config: ExperimentConfig, folder: TileFolder) -> ByClasses:
    table, names = config.experiment, config.classes()
    if not names:
        msg = "base.classes: an experiment needs the classes that tiles are judged by."
        raise InputError(msg)
    tiles = labelled_tiles(folder, names)
    for fold in table.folds:
        if not (tiles.folds == fold).any() or (tiles.folds == fold).all():
            msg = (
                f"experiment.folds: fold {fold!r} must hold some of the tiles of "
                f"{folder.folder}, and not all of them."
            )
            raise InputError(msg)
    if table.judged:
        _check_others(config, folder, tiles)
    return ByClasses(config.design(), tiles)


def _check_others(
    config: ExperimentConfig, folder: TileFolder, tiles: LabelledTiles
) -> None:
    """Refuse tiles that nobody was trained on and that cannot judge, either."""
    for label, name in enumerate(config.classes()):
        if label not in tiles.labels:
            msg = (
                f"experiment.judged.classes: no tile of {folder.folder} is {name!r}: "
                "leave the class out, or add tiles of it."
            )
            raise InputError(msg)
        for fold in config.experiment.folds:
            if label not in tiles.labels[tiles.folds != fold]:
                msg = (
                    f"experiment.folds: all tiles of {folder.folder} that are "
                    f"{name!r} are in fold {fold!r}: no probe could learn the class."
                )
                raise InputError(msg)
    px = config.first().source_px
    for tile in folder.tiles:
        height, width = folder.size(tile)
        if (height, width) != (px, px):
            msg = (
                f"{folder.folder} row {tile.row}: {tile.image.name} is {height} × "
                f"{width} px, base.source_px says {px}: a tile that judges must be as "
                "large as those that students are trained on."
            )
            raise InputError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class ByGenes:
    """Genes judge, through a linear map."""

    design: Design
    against: str
    tiles: MeasuredTiles
    positions: npt.NDArray[np.float64] | None = None

    def read(self, plain: dict[str, Any]) -> ExpressionScore:
        """Return a score from its plain values."""
        return ExpressionScore.from_dict(plain)

    def judged(self, score: ExpressionScore) -> bool:
        """Return whether a score was measured on these genes and sections."""
        here = self.tiles.cases[self.tiles.folds == score.fold]
        sections, counts = np.unique(here, return_counts=True)
        return (
            score.genes == self.tiles.names
            and score.cases == tuple(sections.tolist())
            and score.tiles == tuple(counts.tolist())
        )

    def compare(
        self, scores: Sequence[ExpressionScore], failures: Failures
    ) -> GeneTable:
        """Return the table."""
        return compare_genes(scores, self.design, self.against, failures=failures)

    def draw(self, table: GeneTable, jobs: Sequence[ExperimentJob], out: Path) -> None:
        """Write maps of the best row's best genes, where its runs are still there."""
        from napari_histodistill.distill.experiments.gene_maps import draw_best_genes

        draw_best_genes(table, self.tiles, self.positions, jobs, out)


def _by_genes(config: ExperimentConfig, folder: TileFolder) -> ByGenes:
    table = config.experiment
    assert table.genes is not None
    tiles = measured_tiles(folder, table.genes.column, table.genes.names)
    for fold in table.folds:
        check_sections(tiles, fold)
    positions = tile_positions(folder, config.first().data.positions)
    return ByGenes(config.design(), table.genes.against, tiles, positions)
