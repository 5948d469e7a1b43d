"""Classes for a new student from a Labels layer: rules, the job, and words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.controllers.explore.teach.painting import PALETTE
from napari_histodistill.errors import InputError
from napari_histodistill.students.spec import ClassSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import torch

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.distill.scoring.label_probe import (
        LabelledArea,
        LabelledCells,
        LabelProbe,
    )
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide
    from napari_histodistill.students.spec import StudentSpec
    from napari_histodistill.students.student import Student

    Extent = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

WITH_CLASSES = "student-with-classes"
"""Beside ``student`` in the run's folder."""

MOST_CLASSES = 20
"""More different numbers than this, without names, are objects that were counted."""

MOST_PIXELS = 10_000 * 10_000
"""A larger Labels layer is not read whole."""

NAME_COLUMNS = ("class", "class_name", "name", "label", "type", "category")
"""Columns of a layer's features that may hold the names of classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelling:
    """A Labels layer, snapshot on the GUI thread; its pixels are read by the job.

    Attributes
    ----------
    name : str
        Of the layer.
    data : array-like
        ``(h, w)`` integers; 0 is nothing.
    matrix : ndarray
        ``(3, 3)``: (y, x, 1) µm in the slide's world to pixels of ``data``.
    named : dict of int to str
        Names of values, from the layer's features; empty if it has none.
    colors : dict of int to str
        ``#rrggbb`` that a person gave to values.
    """

    name: str
    data: Any
    matrix: npt.NDArray[np.float64]
    named: Mapping[int, str]
    colors: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class ClassesFitted:
    """A student with classes lies in a bundle.

    Attributes
    ----------
    folder : Path
        Of the bundle.
    words : str
        A sentence about how good it is on held-out regions.
    """

    folder: Path
    words: str


@dataclass(frozen=True, slots=True)
class ClassesProgress:
    """Progress: cells that were looked at, of all."""

    done: int
    total: int


def classes_of(
    name: str,
    values: Sequence[int],
    named: Mapping[int, str],
    colors: Mapping[int, str],
) -> dict[int, ClassSpec]:
    """Return what class every value of a Labels layer stands for.

    Parameters
    ----------
    name : str
        Of the layer.
    values : sequence of int
        That occur in it, without 0.
    named : mapping of int to str
        From the layer's features; values of one name are one class. Empty if it has
        none: then every value is a class of its own.
    colors : mapping of int to str
        ``#rrggbb`` that they are drawn in, where known.

    Raises
    ------
    InputError
        If these are numbered objects, or fewer than two classes.
    """
    titles = {v: named[v] for v in values if named.get(v, "").strip()}
    if not named:
        titles = {v: f"class {v}" for v in values}
    distinct = list(dict.fromkeys(titles.values()))
    if len(distinct) > MOST_CLASSES:
        msg = (
            f"{name} holds {len(distinct)} different values: these look like numbered "
            "objects. Give the layer a feature column 'class' that says what each is."
        )
        raise InputError(msg)
    if len(distinct) < 2:
        msg = f"{name} holds {len(distinct)} class: two or more are needed."
        raise InputError(msg)
    specs: dict[str, ClassSpec] = {}
    for k, title in enumerate(distinct):
        value = next(v for v, t in titles.items() if t == title)
        color = colors.get(value, PALETTE[k % len(PALETTE)])
        specs[title] = ClassSpec(name=_plain(title, k), color=color)
    if len({s.name for s in specs.values()}) < len(specs):
        msg = f"{name}: two classes are named alike but for their punctuation."
        raise InputError(msg)
    return {v: specs[title] for v, title in titles.items()}


def named_values(features: Any) -> dict[int, str]:
    """Return the names of a Labels layer's values, from a column of its features.

    Parameters
    ----------
    features : DataFrame
        Of the layer; :data:`NAME_COLUMNS` says which column names classes.
    """
    columns = {str(c).lower(): c for c in features.columns}
    column = next((columns[c] for c in NAME_COLUMNS if c in columns), None)
    if column is None:
        return {}
    # napari's rule: a column "index" says which label a row is of; without it, row k
    # is of label k.
    own = "index" in features.columns
    index = features["index"] if own else range(len(features))
    known = {int(k): str(n) for k, n in zip(index, features[column], strict=True)}
    return {k: name for k, name in known.items() if name != "nan"}


def hex_colors(rgba: Mapping[int | None, Sequence[float]]) -> dict[int, str]:
    """Return ``#rrggbb`` of values; those that are transparent have no colour."""
    return {
        int(value): "#" + "".join(f"{round(255 * float(c)):02x}" for c in color[:3])
        for value, color in rgba.items()
        if value is not None and color[3] > 0
    }


def check_size(name: str, shape: tuple[int, ...]) -> None:
    """Refuse a Labels layer that is too large to be read whole.

    Raises
    ------
    InputError
        If it is.
    """
    if int(np.prod(shape)) > MOST_PIXELS:
        msg = f"{name} has more than 100 million pixels: use a smaller one."
        raise InputError(msg)


def overlap(first: Extent, second: Extent) -> bool:
    """Whether two layers lie on each other at least in part.

    Parameters
    ----------
    first, second : tuple of ndarray
        The lowest and highest corner of either, ``(2,)`` on the canvas.
    """
    return bool((first[0] < second[1]).all() and (first[1] > second[0]).all())


def with_classes(plain: Path) -> Path:
    """Return the student with classes that were fitted to this one; or else it."""
    named = plain.with_name(WITH_CLASSES)
    said = named / "spec.json", plain / "spec.json"
    # A run that went on has a newer student, and the classes are of the old one.
    fits = said[0].is_file() and said[0].stat().st_mtime >= said[1].stat().st_mtime
    return named if fits else plain


def fit_work(slide: Slide, labelling: Labelling, bundle: Path) -> Work:
    """Return the work that fits, scores and saves a student with classes.

    Parameters
    ----------
    slide : Slide
        That the layer lies on.
    labelling : Labelling
        The layer.
    bundle : Path
        The new student; the one with classes comes beside it.
    """

    def work(cancel: CancelToken) -> Iterator[ClassesProgress | ClassesFitted]:
        from napari_histodistill.controllers.shared.background_import import (
            load_student_in_background,
        )

        student = load_student_in_background(bundle)
        cancel.check()

        from napari_histodistill.distill.scoring.label_probe import (
            embed_cells,
            find_cells,
            fit_and_score,
        )

        spec, area = student.spec, _area(labelling)
        cancel.check()
        found = find_cells(slide, area, mpp=spec.mpp, tile_px=spec.tile_px)
        parts: list[Any] = []
        for part in embed_cells(student, slide, found):
            cancel.check()
            parts.append(part)
            yield ClassesProgress(sum(map(len, parts)), len(found))
        probe = fit_and_score(np.concatenate(parts), found)
        cancel.check()
        folder = _save(student, found, probe, bundle)
        yield ClassesFitted(folder, say_probe(probe, found))

    return work


def say_probe(probe: LabelProbe, found: LabelledCells) -> str:
    """Return how good a probe is, in words."""
    chance = 1 / len(found.classes)
    low, high = probe.interval.low, probe.interval.high
    verdict = "better than chance" if low > chance else "not surely better than chance"
    words = (
        f"On held-out regions it names the right class {probe.balanced:.0%} of the "
        f"time, averaged over classes (95% interval {low:.0%} to {high:.0%}; by chance "
        f"{chance:.0%}): {verdict}. {len(found.classes)} classes, {probe.cells:,} "
        f"places in {probe.regions} regions of one slide."
    )
    if found.left_out:
        words += f" Left out, too few: {', '.join(found.left_out)}."
    return words


def _area(labelling: Labelling) -> LabelledArea:
    """Read the pixels; raise InputError if they are not classes."""
    from napari_histodistill.distill.scoring.label_probe import LabelledArea

    values = np.asarray(labelling.data)
    ids = [int(v) for v in np.unique(values) if v != 0]
    name, matrix = labelling.name, labelling.matrix
    classes = classes_of(name, ids, labelling.named, labelling.colors)
    return LabelledArea(name, values, matrix, classes)


def _save(
    student: Student,
    found: LabelledCells,
    probe: LabelProbe,
    bundle: Path,
) -> Path:
    from napari_histodistill.students.bundle import save_student
    from napari_histodistill.students.spec import Metric

    how = (
        f"{probe.folds} folds over {probe.regions} labelled regions of one slide; "
        f"{probe.cells} tiles; one slide says nothing of another"
    )
    metric = Metric(
        name="balanced accuracy",
        value=round(probe.balanced, 4),
        low=round(probe.interval.low, 4),
        high=round(probe.interval.high, 4),
        protocol=how,
    )
    spec = student.spec
    # Neither layer nor slide is named: both names are often a case's.
    words = "Classes from a layer of labels, fitted on one slide."
    final = spec.model_copy(
        update={
            "name": _with_classes(spec),
            "description": f"{spec.description} {words}".strip(),
            "classes": found.classes,
            "metrics": (*spec.metrics, metric),
        }
    )
    target = bundle.with_name(WITH_CLASSES)
    return save_student(
        target,
        final,
        head=probe.head,
        encoder_state=_weights(student),
        trust=student.trust,
    )


def _with_classes(spec: StudentSpec) -> str:
    return f"{spec.name[:56]}-classes"


def _weights(student: Student) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = student.backend.module.state_dict()  # type: ignore[attr-defined]
    return state


def _plain(title: str, place: int) -> str:
    """Return a class's name as a student's spec takes it."""
    kept = "".join(
        c if c.isascii() and (c.isalnum() or c in "._ -") else "-" for c in title
    )
    return kept.strip("._ -")[:64] or f"class {place + 1}"
