"""Tables of spots: checked, normalised, placed; :mod:`.spot_files` reads them.

Facts that a file lacks are asked for and never guessed, such as whether positions
without a unit are pixels or µm. Values become log1p of counts per 10,000 (over all
genes); then only the genes that vary most are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import csc_array, issparse

from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.spots.spot_wish import SpotWish, places_of
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

LengthUnit = Literal["px", "µm"]

MOST_VALUES = 500_000_000
"""Most values (spots × genes) that are worked with: 2 GB where they are dense."""

TOTAL = 1e4
"""Total that the counts of every spot are scaled to before the logarithm."""

_THETA = 100.0
"""Overdispersion in the expected variance of counts (Lause et al. 2021)."""


_BLOCK = 2**23
"""Values of a sparse table that are dense at a time: 64 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class SpotTable:
    """Spots as they are in a file; :func:`place_spots` brings them to µm.

    Attributes
    ----------
    name : str
        Name of the file.
    positions : ndarray
        ``(n, 2)`` float64, (y, x) in ``unit``.
    unit : {"px", "µm"} or None
        Unit that the file states; None where it states none, so that the user must.
    um_per_px : float or None
        Size of a pixel, if the file states it.
    values : ndarray
        ``(n, genes)`` float32: log1p of counts per 10,000, or the file's own values.
    genes : tuple of str
        Names of the genes, the most variable first.
    spot_size : float or None
        Diameter of a spot in ``unit``, if the file states it.
    notes : tuple of str
        Sentences on what was left out or changed.
    origin : mapping
        How genes were chosen, and the library: :meth:`.SpotWish.origin`.
    """

    name: str
    positions: Doubles
    unit: LengthUnit | None
    um_per_px: float | None
    values: npt.NDArray[np.float32]
    genes: tuple[str, ...]
    spot_size: float | None = None
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)


def place_spots(
    table: SpotTable, unit: LengthUnit | None = None, um_per_px: float | None = None
) -> Spots:
    """Return the spots in µm.

    Parameters
    ----------
    table : SpotTable
        The spots as they were read.
    unit : {"px", "µm"}, optional
        Unit that the user states; the file's own by default.
    um_per_px : float, optional
        Size of a pixel of the image that positions refer to; the file's own by default.

    Raises
    ------
    InputError
        If neither the file nor the caller states it.
    """
    unit = unit or table.unit
    um_per_px = um_per_px or table.um_per_px
    if unit is None:
        msg = (
            f"{table.name} does not say whether its positions are pixels or µm: choose "
            "one."
        )
        raise InputError(msg)
    if unit == "px" and um_per_px is None:
        msg = (
            f"{table.name} has positions in pixels and does not say how many µm one "
            "spans: say of which image they are."
        )
        raise InputError(msg)
    factor = 1.0 if unit == "µm" or um_per_px is None else um_per_px
    return Spots(
        table.name,
        table.positions * factor,
        table.values,
        table.genes,
        origin=table.origin,
    )


def check_overlap(spots: Spots, size_um: tuple[float, float], slide: str) -> None:
    """Refuse spots if none of them lies on a slide.

    Parameters
    ----------
    spots : Spots
        Spots in the slide's world.
    size_um : tuple of float
        Height and width of the slide.
    slide : str
        Name of the slide.

    Raises
    ------
    InputError
        If no spot lies on it.
    """
    low, high = spots.positions_um.min(0), spots.positions_um.max(0)
    on = (spots.positions_um >= 0) & (spots.positions_um <= np.array(size_um))
    if not on.all(axis=1).any():
        msg = (
            f"none of the {len(spots.positions_um)} spots of {spots.name} lies on "
            f"{slide}: they reach from {low[0]:.0f}, {low[1]:.0f} to {high[0]:.0f}, "
            f"{high[1]:.0f} µm (y, x), the slide is {size_um[0]:.0f} × "
            f"{size_um[1]:.0f} µm. Check the unit of the positions."
        )
        raise InputError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class RawSpots:
    """The content of a file, before any of it is checked."""

    name: str
    positions: Doubles
    unit: LengthUnit | None
    um_per_px: float | None
    values: Any
    genes: tuple[str, ...]
    spot_size: float | None
    notes: tuple[str, ...]
    scores: npt.NDArray[np.float64] | None = None  # of the genes, if asked for


def check_spots(raw: RawSpots, wish: SpotWish | None = None) -> SpotTable:
    """Refuse unusable spots, normalise, and keep the genes that are wanted.

    Raises
    ------
    InputError
        If a position or value is missing, spots lie on each other, or nothing varies.
    """
    name, positions = raw.name, raw.positions
    if not len(positions) or not raw.genes:
        msg = f"{name}: there are no spots, or no genes, in it."
        raise InputError(msg)
    missing = ~np.isfinite(positions).all(axis=1)
    if missing.any():
        msg = (
            f"{name}: {missing.sum()} of {len(positions)} spots have no position "
            f"(the first is row {np.flatnonzero(missing)[0] + 1}): drop these rows."
        )
        raise InputError(msg)
    _, first, count = np.unique(
        positions, axis=0, return_index=True, return_counts=True
    )
    if (count > 1).any():
        row = int(first[count > 1].min())
        msg = (
            f"{name}: {int((count - 1).sum())} spots lie exactly on another (as row "
            f"{row + 1}): keep one of each; several sections need a file each."
        )
        raise InputError(msg)
    check_size(name, len(positions), len(raw.genes))
    values = _plain(raw.values)
    stored = values.data if issparse(values) else values
    if not np.isfinite(stored).all():
        msg = f"{name}: a value is missing: fill it with 0, or drop that row."
        raise InputError(msg)
    if (stored < 0).any():
        msg = (
            f"{name}: there are negative values, which counts cannot have: give raw "
            'counts (as layers["counts"]), or their logarithm.'
        )
        raise InputError(msg)
    return _chosen(raw, values, wish or SpotWish())


def _chosen(raw: RawSpots, values: Any, wish: SpotWish) -> SpotTable:
    notes = list(raw.notes)
    counted = are_counts(values)
    total = values.sum(axis=1, dtype=np.float64)
    if counted:
        if not total.any():
            msg = f"{raw.name}: every count is 0, so there is nothing to learn."
            raise InputError(msg)
        spread = residual_variance(values)
        notes.append(f"Counts were scaled to {TOTAL:,.0f} per spot; log1p was taken.")
    else:
        spread = np.concatenate([part.var(axis=0) for _, part in _blocks(values)])
        notes.append("Values are not counts and were left unchanged.")
    order, note = _order(raw, spread, wish)
    order = order[spread[order] > 0]
    if not len(order):
        msg = f"{raw.name}: no gene varies from spot to spot."
        raise InputError(msg)
    if len(order) < len(raw.genes):
        notes.append(note.format(f"{len(order):,}", f"{len(raw.genes):,}"))
    kept = _dense(values[:, order])
    if counted:
        kept = log_normalised(kept, total)
    return SpotTable(
        name=raw.name,
        positions=raw.positions,
        unit=raw.unit,
        um_per_px=raw.um_per_px,
        values=np.ascontiguousarray(kept),
        genes=tuple(raw.genes[k] for k in order),
        spot_size=raw.spot_size,
        notes=tuple(notes),
        origin=wish.origin(),
    )


def _order(
    raw: RawSpots, spread: Doubles, wish: SpotWish
) -> tuple[npt.NDArray[np.intp], str]:
    """Return the genes that are wanted, best first, and a sentence with two gaps."""
    if wish.genes:
        places, missing = places_of(raw.name, raw.genes, wish.genes)
        # Braces in a gene's name are no gap.
        return (
            places,
            f"{{}} of {{}} genes are kept, as listed. {_escaped(missing)}".strip(),
        )
    if not wish.score:
        order = np.argsort(-spread, kind="stable")[: wish.most_genes]
        return order, "The {} most variable of {} genes are kept."
    if raw.scores is None:
        msg = (
            f"{raw.name}: only .h5ad files have a table of genes with a column "
            f"{wish.score!r}: list the genes, or take those that vary most."
        )
        raise InputError(msg)
    known = np.where(np.isfinite(raw.scores), raw.scores, -np.inf)
    order = np.argsort(-known, kind="stable")[: wish.most_genes]
    score = _escaped(wish.score)
    return order[
        known[order] > -np.inf
    ], f"The {{}} of {{}} genes of highest {score} are kept."


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def are_counts(values: Any) -> bool:
    """Whether a table, dense or sparse, may hold counts: whole numbers from 0."""
    stored = values.data if issparse(values) else values
    return bool((stored >= 0).all() and (stored == np.rint(stored)).all())


def log_normalised(
    counts: npt.NDArray[Any], total: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.float32]:
    """Return the logarithm of counts brought to one total: ``log1p(1e4 · c / total)``.

    Parameters
    ----------
    counts : ndarray
        ``(spots, genes)``, numbers, 0 or more.
    total : ndarray, optional
        ``(spots,)``: counts of all genes, where these are only some of them.

    Returns
    -------
    ndarray
        ``(spots, genes)`` float32; 0 for a spot without counts.
    """
    total = counts.sum(axis=1) if total is None else total
    share = counts / np.maximum(total, 1)[:, None]
    logarithms: npt.NDArray[np.float32] = np.log1p(share * TOTAL)
    return logarithms.astype(np.float32, copy=False)


def residual_variance(counts: Any) -> Doubles:
    """Return every gene's variance beyond what counting alone explains.

    The variance of analytic Pearson residuals (Lause, Berens, Kobak 2021, Genome
    Biology 22:258): 1 for a gene that only follows each spot's total.

    Parameters
    ----------
    counts : ndarray or sparse array
        ``(spots, genes)``, whole numbers, 0 or more.

    Returns
    -------
    ndarray
        ``(genes,)``; 0 for genes that are never seen.
    """
    of_gene = counts.sum(axis=0, dtype=np.float64)
    share = of_gene / max(float(of_gene.sum()), 1.0)
    total = counts.sum(axis=1, dtype=np.float64)
    limit = np.sqrt(counts.shape[0])
    spread = np.zeros(counts.shape[1])
    for part, block in _blocks(counts):
        expected = np.maximum(total[:, None] * share[part], 1e-12)
        off = (block - expected) / np.sqrt(expected + expected**2 / _THETA)
        spread[part] = np.clip(off, -limit, limit).var(axis=0)
    spread[share == 0] = 0
    return spread


def check_size(name: str, spots: int, genes: int) -> None:
    """Refuse more values than are worked with at once.

    Raises
    ------
    InputError
        If there are more than :data:`MOST_VALUES`.
    """
    if spots * genes > MOST_VALUES:
        msg = (
            f"{name}: {spots:,} spots × {genes:,} genes are too many at once: keep "
            "fewer genes, or a part of the section."
        )
        raise InputError(msg)


def _blocks(values: Any) -> Iterator[tuple[slice, Doubles]]:
    """Yield columns a few at a time: a sparse table is never dense as a whole."""
    wide = max(1, min(512, _BLOCK // max(values.shape[0], 1)))
    for start in range(0, values.shape[1], wide):
        part = slice(start, start + wide)
        yield part, _dense(values[:, part]).astype(np.float64)


def _dense(values: Any) -> npt.NDArray[np.float32]:
    dense: npt.NDArray[np.float32] = values.toarray() if issparse(values) else values
    return dense


def _plain(values: Any) -> Any:
    """Return values as float32: an array, or a sparse one by columns."""
    if not issparse(values):
        return np.asarray(values, np.float32)
    by_column = csc_array(values, dtype=np.float32)
    by_column.sum_duplicates()
    return by_column
