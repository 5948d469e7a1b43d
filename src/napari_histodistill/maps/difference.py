"""Where two students differ on one slide: three measures, defined here.

For every place that both have seen (:mod:`~napari_histodistill.maps.cell_matching`):

``classes``
    for two students with the same classes: the total variation distance of their class
    probabilities, ``½ Σ |p − q|``. 0 the same, 1 no common class at all; the largest
    difference in probability that any set of classes has.
``neighbours``
    for any two students, whatever their embeddings mean: which tissue they find
    alike. Up to a thousand of the places, drawn evenly with a fixed seed, are ranked
    by similarity to the cell (cosine of embeddings centred by their mean, as in
    :mod:`~napari_histodistill.maps.alike.similarity`), the cell itself left out. The
    difference is the share of the nearest twentieth that the two do not have in common:
    ``1 − |A ∩ B| / max(|A|, |B|)``, 0 the same, 0.95 on average for students that have
    nothing to do with each other. Ties with the last of the nearest count as near, so
    tissue that looks all the same gives no difference by chance. Turning or scaling a
    student's space changes nothing.
``news``
    what B sees and A does not: B's embeddings (centred, of unit length) are predicted
    from A's by ridge regression; the strongest common direction of what is left (its
    first principal component) is the news. Directed: from A to B. A place's value is
    how far it lies towards either end, in standard deviations. The first two measures
    say *where* students disagree, and if one has learned to tell two tissues apart,
    both tissues change; this one says *which* places went to which side.

Every step reads the stores block by block; only the result is as large as the slide's
grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_histodistill.errors import InputError, StoreError
from napari_histodistill.maps.alike.ranking import suggest_threshold
from napari_histodistill.maps.cell_matching import match_cells
from napari_histodistill.maps.difference_measures import (
    Classes,
    Neighbours,
    News,
    NoiseFloor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.maps.cell_matching import Matching, ReadableStore
    from napari_histodistill.maps.store import EmbeddingStore
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.students.head import Head
    from napari_histodistill.students.student import Student

    _Floats = npt.NDArray[np.float32]

Measure = Literal["classes", "neighbours", "news"]


@dataclass(frozen=True, slots=True)
class Side:
    """One student's half of a comparison; make one with :func:`side_of`.

    Attributes
    ----------
    cells : EmbeddingStore
        The student's embeddings.
    name : str
        Name shown to the user.
    head : Head or None
        Gives class probabilities.
    classes : tuple of str
        Their names, in the head's order.
    """

    cells: ReadableStore
    name: str
    head: Head | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DifferenceMap:
    """The difference of two students at every place that both have seen.

    Attributes
    ----------
    values : ndarray
        ``(rows, columns)`` float32, 0 the same; NaN where not compared. See the
        module's definitions.
    ends : ndarray or None
        ``(rows, columns)`` int8, only for ``news``: towards which end (1 or −1; 0 where
        not compared). The rarer end is 1.
    grid : TileGrid
        Grid of the cells: the coarser of the two grids.
    measure : {"classes", "neighbours", "news"}
        The measure that was used.
    names : tuple of str
        Names of A and B.
    cells, either : int
        Places compared; places that only one of the two has seen.
    anchors, nearest : int
        Only for ``neighbours``: how many places were ranked, how many are near.
    unexplained, strongest : float
        Only for ``news``: share of B's variance that A does not predict, and the
        share of that which is shown.
    at : tuple
        Always empty, as nothing was clicked; lets :func:`rank_regions` take this map.
    origin_um : tuple of float
        World position ``(y, x)`` of the slide's first pixel, µm; see
        :class:`SlideInfo`.
    noise : NoiseFloor or None
        The same figure between two seeds of one recipe; None if not measured.
    """

    values: _Floats
    ends: npt.NDArray[np.int8] | None = None
    grid: TileGrid
    measure: Measure
    names: tuple[str, str]
    cells: int
    either: int = 0
    anchors: int = 0
    nearest: int = 0
    unexplained: float = math.nan
    strongest: float = math.nan
    at: tuple[tuple[float, float], ...] = ()
    origin_um: tuple[float, float] = (0.0, 0.0)
    noise: NoiseFloor | None = None

    @property
    def figure(self) -> float:
        """The one number of the map: its median; for ``news``, what is unexplained."""
        return self.unexplained if self.measure == "news" else self.median

    @property
    def is_within_noise(self) -> bool | None:
        """Whether two seeds of one recipe may well differ as much; None if unknown."""
        return None if self.noise is None else self.noise.covers(self.figure)

    @property
    def median(self) -> float:
        """Median difference of the compared places."""
        return float(np.nanmedian(self.values))

    @property
    def highest(self) -> float:
        """Largest difference."""
        return float(np.nanmax(self.values))

    def signed(self) -> _Floats:
        """Return the values, negative towards the other end (only for ``news``)."""
        return self.values if self.ends is None else self.values * self.ends

    def threshold(self) -> float:
        """Return the value from which places clearly differ; 1 if none differs."""
        if self.highest <= 0:
            return 1.0
        return max(suggest_threshold(self), float(np.finfo(np.float32).eps))

    def summary(self) -> str:
        """Return in plain words what was compared, where, the result, and its noise."""
        if self.noise is None:
            unsure = (
                "Noise is not measured: another seed alone makes a difference, too."
            )
            return f"{self._result()} {unsure}"
        verdict = "Within noise." if self.is_within_noise else "More than noise."
        as_number = ".2f" if self.measure == "classes" else ".1%"
        seeds = f"Two seeds of one recipe give {self.noise.figure:{as_number}}."
        return f"{verdict} {self._result()} {seeds}"

    def _result(self) -> str:
        a, b = self.names
        where = f"{self.cells:,} places, {self.grid.stride_um:.3g} µm apart"
        if self.either:
            where += f" (only one of the two has seen {self.either:,} more)"
        if self.measure == "classes":
            return (
                f"Class probabilities of {a} and {b} at {where}: the median difference "
                f"is {self.median:.2f} (0 the same, 1 entirely another class)."
            )
        if self.measure == "neighbours":
            return (
                f"Tissue that {a} and {b} find alike at {where}: of the {self.nearest} "
                f"nearest places, {self.median:.1%} differ (median; 0% the same, "
                f"{1 - self.nearest / self.anchors:.0%} unrelated)."
            )
        beside = f"; between two seeds {self.noise.strongest:.0%}" if self.noise else ""
        return (
            f"{self.unexplained:.1%} of what {b} sees at {where} is not in what {a} "
            f"sees. The map shows the strongest part of it ({self.strongest:.0%}"
            f"{beside}); its two ends are orange and blue."
        )


@dataclass(frozen=True, slots=True)
class DifferenceReport:
    """Progress of a comparison; the last report carries the result."""

    done: int
    total: int
    result: DifferenceMap | None = field(default=None, repr=False)


def side_of(store: EmbeddingStore, student: Student) -> Side:
    """Return a student's side of a comparison, with its head.

    Raises
    ------
    StoreError
        If another student made the embeddings.
    """
    made_by = store.provenance
    if made_by.student_digest != student.digest:
        msg = (
            f"{store.path}: these embeddings were made by student "
            f"{made_by.student_name!r}, not by {student.name!r}, which must run first."
        )
        raise StoreError(msg)
    names = tuple(c.name for c in student.spec.classes)
    return Side(store, student.name, student.head, names)


def why_not_measure(measure: Measure, a: tuple[str, ...], b: tuple[str, ...]) -> str:
    """Return why a measure does not suit students with these classes; "" if it does."""
    if measure != "classes":
        return ""
    if not a or not b:
        return "Only two models that both have classes can be compared by class."
    if set(a) != set(b):
        return "These models have different classes: compare what they find alike."
    return ""


def default_measure(a: tuple[str, ...], b: tuple[str, ...]) -> Measure:
    """Return the default measure: by classes if they are the same, else neighbours."""
    return "neighbours" if why_not_measure("classes", a, b) else "classes"


def compare(
    a: Side,
    b: Side,
    *,
    measure: Measure | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[DifferenceReport]:
    """Compare two students on the cells that both have seen.

    Parameters
    ----------
    a, b : Side
        Of one slide. Stores may be unfinished.
    measure : {"classes", "neighbours", "news"}, optional
        By default ``classes`` if both have the same ones, else ``neighbours``.
    cancel : CancelToken, optional
        Checked between blocks.

    Yields
    ------
    DifferenceReport
        After every block; the last one has the result.

    Raises
    ------
    InputError
        If the stores cannot be matched, or the students have no classes in common.
    Cancelled
        If ``cancel`` asked for it.
    """
    chosen = measure or default_measure(a.classes, b.classes)
    why_not = why_not_measure(chosen, a.classes, b.classes)
    if why_not:
        raise InputError(why_not)
    matching = match_cells(a.cells, b.cells)
    measuring = _measuring(chosen, a, b, matching)
    done, total = 0, matching.count * measuring.passes
    for count in measuring.run():
        if cancel is not None:
            cancel.check()
        done += count
        yield DifferenceReport(done, total)
    yield DifferenceReport(total, total, _laid_out(chosen, a, b, matching, measuring))


def noise_between(difference: DifferenceMap) -> NoiseFloor:
    """Return the noise floor that two seeds of one recipe show.

    Parameters
    ----------
    difference : DifferenceMap
        Of those two students, by the measure that the floor is for.
    """
    return NoiseFloor(difference.figure, difference.cells, difference.strongest)


def difference_map(
    a: Side, b: Side, *, measure: Measure | None = None
) -> DifferenceMap:
    """Return how much two students differ; see :func:`compare`."""
    last: DifferenceMap | None = None
    for report in compare(a, b, measure=measure):
        last = report.result
    assert last is not None
    return last


def _measuring(
    measure: Measure, a: Side, b: Side, matching: Matching
) -> Classes | Neighbours | News:
    def blocks() -> Iterator[tuple[slice, _Floats, _Floats]]:
        return matching.blocks(a.cells, b.cells)

    if measure == "neighbours":
        return Neighbours(matching.count, blocks)
    if measure == "news":
        return News(matching.count, blocks)
    assert a.head is not None
    assert b.head is not None
    order = [b.classes.index(name) for name in a.classes]
    return Classes(matching.count, blocks, a.head, b.head, order)


def _laid_out(
    measure: Measure,
    a: Side,
    b: Side,
    matching: Matching,
    measured: Classes | Neighbours | News,
) -> DifferenceMap:
    where = matching.order()
    values = np.full(matching.both.shape, np.nan, np.float32)
    values[where] = np.abs(measured.found)
    plain = DifferenceMap(
        values=values,
        grid=matching.grid,
        measure=measure,
        names=(a.name, b.name),
        cells=matching.count,
        either=matching.either,
        origin_um=a.cells.provenance.origin_um,
    )
    if isinstance(measured, Neighbours):
        return replace(plain, anchors=measured.anchors, nearest=measured.nearest)
    if isinstance(measured, News):
        ends = np.zeros(values.shape, np.int8)
        ends[where] = np.where(measured.found < 0, -1, 1)
        return replace(
            plain,
            ends=ends,
            unexplained=measured.unexplained,
            strongest=measured.strongest,
        )
    return plain
