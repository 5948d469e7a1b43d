"""A table of training runs as one recipe."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from napari_histodistill.distill.experiments.comparison import Design
from napari_histodistill.distill.recipes.config import DistillConfig, Frozen
from napari_histodistill.distill.recipes.files import validated
from napari_histodistill.distill.scoring.baselines import BASELINES
from napari_histodistill.students.spec import (  # noqa: TC001 - pydantic reads them
    ClassSpec,
    Name,
)

Words = Annotated[tuple[str, ...], Field(min_length=1)]


class JudgingTiles(Frozen):
    """Tiles that judge students which were trained on others."""

    folder: Annotated[str, Field(min_length=1)]
    """A tile folder with labels, cases and folds, relative to the recipe's file; its
    tiles have the size and µm per pixel of those that students are trained on. The
    command that runs the recipe may name another one.
    """
    description: Annotated[str, Field(min_length=1)]
    """Description of the data."""
    licence: Annotated[str, Field(min_length=1)]
    """The data's licence."""
    attribution: Annotated[str, Field(min_length=1)]
    """Credit line of the data."""
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2, max_length=254)]
    """Exactly the labels of these tiles."""


class GenesToPredict(Frozen):
    """Genes that a linear map from embeddings must predict on held-out folds."""

    column: Annotated[str, Field(min_length=1)] = "genes"
    """Column of the manifest that names every tile's log-normalised genes."""
    names: Annotated[str, Field(pattern=r"^[^/\\]*$")] = ""
    """File in the tile folder with a name per line; empty for numbers."""
    against: Name = "mean-rgb"
    """Variant or baseline that all are compared with, beside ``experiment.baseline``.
    """


class FrozenEncoder(Frozen):
    """An encoder that nobody trains here, judged beside the variants."""

    student: Annotated[str, Field(min_length=1)]
    """Name of a bundled student, or folder of a bundle, from where the command is run.
    """
    tiles: Literal["whole", "sparse"] = "whole"
    """Tiles that it sees: ``whole`` ones, which no student sees, or the ``sparse`` ones
    that all students see. They are brought to the size that it was made for.
    """


class ExperimentTable(Frozen):
    """The comparison, fixed before anything is trained."""

    name: Name
    """Name of the experiment."""
    title: Annotated[str, Field(min_length=1)]
    """Title of the experiment, for people."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Every variant is trained once with each of these seeds."""
    folds: Words
    """Folds of the manifest (of the judging tiles', with ``judged``); each is held out
    once.
    """
    baseline: str
    """Variant that the others are compared with."""
    baselines: tuple[str, ...] = ()
    """Untrained features judged beside the variants: see ``baselines.py``."""
    encoders: dict[Name, FrozenEncoder] = Field(default_factory=dict)
    """Rows of further untrained features: name → encoder."""
    grouping: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Coarser classes: name → classes; empty for none."""
    further: dict[Name, Words] = Field(default_factory=dict)
    """Further differences: variant → others that it is compared with, such as its
    controls.
    """
    chosen: dict[Name, Words] = Field(default_factory=dict)
    """Further rows: name → variants. For every fold and seed, the row takes the variant
    whose probe did best on inner folds of the training tiles.
    """
    judge: Literal["probe", "head", "expression"] = "probe"
    """Predictions that are scored: classes, by a probe on frozen embeddings or by the
    trained head; or genes, by a linear map from frozen embeddings.
    """
    judged: JudgingTiles | None = None
    """Other tiles that judge. Every variant is then trained once a seed, on all of its
    own tiles, and has a score for each fold of these: of a probe that was fitted on the
    other folds. Empty to judge on held-out folds of the tiles that are trained on.
    """
    genes: GenesToPredict | None = None
    """What ``judge = "expression"`` predicts."""
    final: str = ""
    """Variant that is trained on everything once the table stands; empty for none."""
    final_steps: int | None = None
    """Number of steps of the final training, which sees more tiles; without it as many
    as the variant's.
    """

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of the rows that nothing is trained for."""
        return (*self.baselines, *self.encoders)

    @model_validator(mode="after")
    def _known(self) -> ExperimentTable:
        for name in self.baselines:
            if name not in BASELINES:
                msg = f"baseline {name!r} is not one of {', '.join(BASELINES)}"
                raise ValueError(msg)
        for field, values in (("seeds", self.seeds), ("folds", self.folds)):
            if len(set(values)) != len(values):
                msg = f"{field}: one is named twice, and would count twice"
                raise ValueError(msg)
        self._check_judge()
        return self

    def _check_judge(self) -> None:
        genes = self.judge == "expression"
        if genes != (self.genes is not None):
            msg = 'judge = "expression" and a table genes belong together'
            raise ValueError(msg)
        if genes and (self.judged or self.grouping or self.chosen or self.final):
            msg = (
                'judge = "expression" knows no classes: leave out judged, grouping, '
                "chosen and final"
            )
            raise ValueError(msg)
        if self.judged and (self.judge != "probe" or self.final):
            msg = "judged: only a probe judges on other tiles, and final needs folds"
            raise ValueError(msg)


class Variant(Frozen):
    """One row: a name, and what differs from ``[base]``."""

    name: Name
    """Name of the row."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Settings merged into ``[base]``: tables field by field, lists as a whole."""


class ExperimentConfig(Frozen):
    """A recipe with a table ``[experiment]``."""

    experiment: ExperimentTable
    """The comparison."""
    base: dict[str, Any]
    """A :class:`DistillConfig` that all variants share."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    """The rows."""

    @model_validator(mode="after")
    def _fits_together(self) -> ExperimentConfig:
        table = self.experiment
        self._check_folds()
        self._check_grouping()
        variants = [v.name for v in self.variants]
        names = [*table.chosen, *variants, *table.untrained]
        if len(set(names)) != len(names):
            msg = "two variants have the same name"
            raise ValueError(msg)
        for row, trials in table.chosen.items():
            for trial in trials:
                if trial not in variants:
                    msg = f"experiment.chosen.{row}: {trial!r} is not a variant"
                    raise ValueError(msg)
        self._check_further(names)
        if table.baseline not in names:
            msg = f"experiment.baseline: {table.baseline!r} is not a variant"
            raise ValueError(msg)
        if table.genes and table.genes.against not in names:
            msg = f"experiment.genes.against: {table.genes.against!r} is not a variant"
            raise ValueError(msg)
        if table.final and table.final not in variants:
            msg = f"experiment.final: {table.final!r} is not a variant"
            raise ValueError(msg)
        return self

    def _check_further(self, names: list[str]) -> None:
        for row, others in self.experiment.further.items():
            for name in (row, *others):
                if name not in names or row in others:
                    msg = f"experiment.further.{row}: {name!r} is no other variant"
                    raise ValueError(msg)

    def _check_folds(self) -> None:
        for fold in () if self.experiment.judged else self.experiment.folds:
            if fold in self.locked():
                msg = f"experiment.folds: base.data.leave_out locks fold {fold!r} away"
                raise ValueError(msg)
        for variant in self.variants:
            data = variant.changes.get("data")
            if isinstance(data, dict) and "leave_out" in data:
                msg = (
                    f"variants.{variant.name}: data.leave_out belongs in "
                    "[base.data]: all variants are judged on the same tiles"
                )
                raise ValueError(msg)

    def _check_grouping(self) -> None:
        """Refuse classes that are not in exactly one group, if classes are named."""
        table = self.experiment
        given = self.base.get("classes")
        if table.judged:
            given = [c.model_dump() for c in table.judged.classes]
        if not table.grouping or not given or not isinstance(given, list | tuple):
            return
        names = [str(c.get("name")) for c in given if isinstance(c, dict)]
        groups = table.grouping.values()
        grouped = [name for group in groups for name in group]
        for name in [*grouped, *names]:
            if name not in names:
                where = "experiment.judged" if table.judged else "[base]"
                msg = f"experiment.grouping: {name!r} is not a class of {where}"
                raise ValueError(msg)
            if grouped.count(name) != 1:
                msg = f"experiment.grouping: {name!r} must be in exactly one group"
                raise ValueError(msg)

    def run(
        self, variant: str, fold: str | None, seed: int, steps: int | None = None
    ) -> DistillConfig:
        """Return the recipe of one run.

        Parameters
        ----------
        variant : str
            Name of the row.
        fold : str or None
            Fold that is held out; None trains on everything.
        seed : int
            Seed of the run.
        steps : int or None
            Number of steps in place of the variant's.

        Raises
        ------
        InputError
            If a field of the recipe cannot be used; it names the variant and the field.
        """
        changes = next(v.changes for v in self.variants if v.name == variant)
        content = merged(self.base, changes)
        content["seed"] = seed
        own = [] if fold is None else [fold]
        content.setdefault("data", {})["leave_out"] = [*self.locked(), *own]
        schedule = content.setdefault("schedule", {})
        # Every run is judged after the same steps: nothing is picked by its score.
        schedule["keep"] = "last"
        if steps is not None:
            schedule["steps"] = steps
        return validated(DistillConfig, content, f"variant {variant!r}")

    def locked(self) -> tuple[str, ...]:
        """Return the folds that nothing here may see: ``base.data.leave_out``."""
        data = self.base.get("data")
        named = data.get("leave_out", ()) if isinstance(data, dict) else ()
        return tuple(named) if isinstance(named, list | tuple) else (str(named),)

    def first(self) -> DistillConfig:
        """Return the first run's recipe."""
        return self._first

    @cached_property
    def _first(self) -> DistillConfig:
        table = self.experiment
        fold = None if table.judged else table.folds[0]
        return self.run(self.variants[0].name, fold, table.seeds[0])

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes that runs are judged by."""
        judged = self.experiment.judged
        return tuple(c.name for c in (judged or self.first()).classes)

    def design(self) -> Design:
        """Return the plan of the table."""
        table = self.experiment
        classes = self.classes()
        grouped = [set(names) for names in table.grouping.values()]
        groups = tuple(
            next(k for k, names in enumerate(grouped) if name in names)
            for name in (classes if grouped else ())
        )
        return Design(
            variants=(
                *table.chosen,
                *(v.name for v in self.variants),
                *table.untrained,
            ),
            folds=table.folds,
            seeds=table.seeds,
            classes=classes,
            groups=groups,
            baseline=table.baseline,
            fixed=table.untrained,
            chosen=table.chosen,
            judge="head" if table.judge == "head" else "1.0",
            further=table.further,
        )


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``: tables field by field, all else as a whole."""
    found = copy.deepcopy(base)
    for key, value in changes.items():
        both_tables = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both_tables else copy.deepcopy(value)
    return found
