"""Tables of spots: checked, normalised, placed; :mod:`.spot_files` reads them.

What a file says is taken, what it does not say is asked for: positions without a unit
are never guessed to be pixels or µm. Values become log1p of counts per 10,000 (over all
genes), then only the genes that vary most are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Unit = Literal["px", "µm"]

MOST_GENES = 2000
"""So many of the most variable genes are kept."""

MOST_VALUES = 500_000_000
"""Spots times genes that are unpacked: 2 GB."""

TOTAL = 1e4
"""Counts of every spot are brought to this total before the logarithm."""

_THETA = 100.0
"""Overdispersion in the expected variance of counts (Lause et al. 2021)."""


@dataclass(frozen=True, slots=True, eq=False)
class SpotTable:
    """Spots as a file has them, see :func:`place_spots`.

    Attributes
    ----------
    name : str
        Of the file.
    positions : ndarray
        ``(n, 2)`` float64, (y, x) in ``unit``.
    unit : {"px", "µm"} or None
        What the file says; None where it says nothing, so that a person must.
    um_per_px : float or None
        Of pixels, if the file says.
    values : ndarray
        ``(n, genes)`` float32: log1p of counts per 10,000, or as they were.
    genes : tuple of str
        The most variable first.
    spot_size : float or None
        Diameter of a spot in ``unit``, if the file says.
    notes : tuple of str
        What was left out or done, in sentences.
    """

    name: str
    positions: Floats
    unit: Unit | None
    um_per_px: float | None
    values: npt.NDArray[np.float32]
    genes: tuple[str, ...]
    spot_size: float | None = None
    notes: tuple[str, ...] = ()


def place_spots(
    table: SpotTable, unit: Unit | None = None, um_per_px: float | None = None
) -> Spots:
    """Return the spots in µm.

    Parameters
    ----------
    table : SpotTable
        As read.
    unit : {"px", "µm"}, optional
        What a person says; the file's own word by default.
    um_per_px : float, optional
        For pixels: those of which image; the file's own word by default.

    Raises
    ------
    InputError
        If neither says it.
    """
    unit = unit or table.unit
    um_per_px = um_per_px or table.um_per_px
    if unit is None:
        msg = f"{table.name} does not say whether positions are pixels or µm: say it."
        raise InputError(msg)
    if unit == "px" and um_per_px is None:
        msg = (
            f"{table.name} has positions in pixels and does not say how many µm one "
            "spans: say of which image they are."
        )
        raise InputError(msg)
    factor = 1.0 if unit == "µm" or um_per_px is None else um_per_px
    return Spots(table.name, table.positions * factor, table.values, table.genes)


def check_overlap(spots: Spots, size_um: tuple[float, float], slide: str) -> None:
    """Refuse spots of which none lies on a slide.

    Parameters
    ----------
    spots : Spots
        In the slide's world.
    size_um : tuple of float
        Height and width of the slide.
    slide : str
        Its name.

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
    """What a file holds, before anything of it is looked at."""

    name: str
    positions: Floats
    unit: Unit | None
    um_per_px: float | None
    values: Any
    genes: tuple[str, ...]
    spot_size: float | None
    notes: tuple[str, ...]


def check_spots(raw: RawSpots, most_genes: int) -> SpotTable:
    """Refuse what cannot be used, normalise, and keep the most variable genes.

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
    if len(positions) * len(raw.genes) > MOST_VALUES:
        msg = (
            f"{name}: {len(positions):,} spots × {len(raw.genes):,} genes are too "
            "many at once: keep fewer genes, or a part of the section."
        )
        raise InputError(msg)
    values = _plain(raw.values)
    if not np.isfinite(values).all():
        msg = f"{name}: a value is missing: fill it with 0, or drop that row."
        raise InputError(msg)
    if values.min() < 0:
        msg = (
            f"{name}: there are negative values, which counts cannot have: give raw "
            'counts (as layers["counts"]), or their logarithm.'
        )
        raise InputError(msg)
    return _chosen(raw, values, most_genes)


def _chosen(
    raw: RawSpots, values: npt.NDArray[np.float32], most_genes: int
) -> SpotTable:
    notes = list(raw.notes)
    if are_counts(values):
        empty = values.sum(axis=1) == 0
        if empty.all():
            msg = f"{raw.name}: every count is 0, so there is nothing to learn."
            raise InputError(msg)
        spread = residual_variance(values)
        values = log_normalised(values)
        notes.append(f"Counts were brought to {TOTAL:,.0f} a spot; log1p of them.")
    else:
        spread = values.var(axis=0)
        notes.append("Values are no counts and were left as they are.")
    order = np.argsort(-spread, kind="stable")[:most_genes]
    order = order[spread[order] > 0]
    if not len(order):
        msg = f"{raw.name}: no gene varies from spot to spot."
        raise InputError(msg)
    if len(order) < len(raw.genes):
        notes.append(
            f"The {len(order):,} most variable of {len(raw.genes):,} genes are kept."
        )
    return SpotTable(
        name=raw.name,
        positions=raw.positions,
        unit=raw.unit,
        um_per_px=raw.um_per_px,
        values=np.ascontiguousarray(values[:, order]),
        genes=tuple(raw.genes[k] for k in order),
        spot_size=raw.spot_size,
        notes=tuple(notes),
    )


def are_counts(values: npt.NDArray[Any]) -> bool:
    """Whether a table may hold counts: whole numbers, none of them negative."""
    return bool((values >= 0).all() and (values == np.rint(values)).all())


def log_normalised(counts: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the logarithm of counts brought to one total: ``log1p(1e4 · c / total)``.

    Parameters
    ----------
    counts : ndarray
        ``(spots, genes)``, numbers, 0 or more.

    Returns
    -------
    ndarray
        ``(spots, genes)`` float32; 0 for a spot without counts.
    """
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logarithms: npt.NDArray[np.float32] = np.log1p(counts / total * TOTAL)
    return logarithms.astype(np.float32, copy=False)


def residual_variance(counts: npt.NDArray[np.float32]) -> Floats:
    """Return every gene's variance beyond what counting alone explains.

    The variance of analytic Pearson residuals (Lause, Berens, Kobak 2021, Genome
    Biology 22:258): 1 for a gene that only follows each spot's total.

    Parameters
    ----------
    counts : ndarray
        ``(spots, genes)``, whole numbers, 0 or more.

    Returns
    -------
    ndarray
        ``(genes,)``; 0 for genes that are never seen.
    """
    share = counts.sum(axis=0, dtype=np.float64) / max(float(counts.sum()), 1.0)
    total = counts.sum(axis=1, dtype=np.float64)
    limit = np.sqrt(len(counts))
    spread = np.zeros(counts.shape[1])
    for start in range(0, counts.shape[1], 512):
        part = slice(start, start + 512)
        expected = np.maximum(total[:, None] * share[part], 1e-12)
        off = (counts[:, part] - expected) / np.sqrt(expected + expected**2 / _THETA)
        spread[part] = np.clip(off, -limit, limit).var(axis=0)
    spread[share == 0] = 0
    return spread


def _plain(values: Any) -> npt.NDArray[np.float32]:
    if hasattr(values, "toarray"):
        values = values.toarray()
    return np.asarray(values, np.float32)
