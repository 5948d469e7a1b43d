"""Pairs of sparse images and dense partners, read and split for validation.

The results are arrays: no file is opened after :func:`load_pairs`, and tiles that the
recipe leaves out are never read at all.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.kinds import Unlabelled
from napari_histodistill.distill.pairs.batches import PARTNERS, stream
from napari_histodistill.distill.pairs.categories import spread_masks
from napari_histodistill.distill.pairs.dealing import (
    dealt_nearby,
    dealt_to_other_cases,
    dealt_within_cases,
)
from napari_histodistill.distill.pairs.split import (
    PairPlaces,
    folds_for,
    held_out_rows,
    labelled_rows,
    reaching_across,
)
from napari_histodistill.distill.pairs.store import is_pairs, read_pairs
from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.errors import StoreError, TileFolderError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.store import StoredPairs
    from napari_histodistill.distill.pairs.tilefolder import Tile, TileFolder
    from napari_histodistill.distill.recipes.config import (
        DenseConfig,
        DenseKind,
        DistillConfig,
    )

    Ints = npt.NDArray[np.intp]
    Pixels = npt.NDArray[np.uint8]

_SAME_EDGE = 1e-3
"""Relative tolerance: µm per pixel pass through text."""


@dataclass(frozen=True, slots=True, eq=False)
class PartnerValues:
    """The data of one dense branch, for every pair.

    Attributes
    ----------
    kind : {"image", "channels", "mask", "expression"}
        Kind of the partner, as in the recipe.
    values : ndarray
        ``(n, h, w, 3)`` uint8 for an image, ``(n, h, w, c)`` uint8 for channels,
        ``(n, h, w, 1)`` uint8 for a mask as stored, ``(n, h, w, k)`` once its
        categories have channels, ``(n, genes)`` float32 for expression.
    unknown : bool
        Whether 0 in a mask is unknown, and not background.
    """

    kind: DenseKind
    values: npt.NDArray[Any]
    unknown: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PairSet:
    """Pairs in memory, row for row.

    Attributes
    ----------
    sparse : ndarray
        ``(n, h, w, 3)`` uint8, RGB.
    partners : tuple of PartnerValues
        One per dense branch.
    labels : ndarray or None
        ``(n,)`` int, indices into the recipe's classes.
    cases : ndarray
        ``(n,)``, the case or region of each pair, which stays on one side of a split.
    confidence : ndarray
        ``(n,)`` float32, weight of each pair in the invariance term.
    slides : ndarray or None
        ``(n,)`` str, the slide or patient of each pair, "" where it is not known; None
        if nothing is known. Cases may be finer (regions of one slide).
    rows : ndarray or None
        ``(n,)`` int, row of each pair in the store; None for a tile folder.
    positions : ndarray or None
        ``(n, 2)``: row and column of each tile in a folder's own steps, or the middle
        of each stored pair, µm ``(y, x)``; None where it is not known.
    """

    sparse: Pixels
    partners: tuple[PartnerValues, ...]
    labels: Ints | None
    cases: npt.NDArray[np.str_]
    confidence: npt.NDArray[np.float32]
    slides: npt.NDArray[np.str_] | None = None
    rows: Ints | None = None
    positions: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.sparse)

    def take(self, rows: Ints) -> PairSet:
        """Return the pairs of these rows, in their order."""
        return PairSet(
            self.sparse[rows],
            tuple(replace(p, values=p.values[rows]) for p in self.partners),
            None if self.labels is None else self.labels[rows],
            self.cases[rows],
            self.confidence[rows],
            None if self.slides is None else self.slides[rows],
            None if self.rows is None else self.rows[rows],
            None if self.positions is None else self.positions[rows],
        )

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Slide or patient of each pair, ``(n,)``; "" where it is not known."""
        return np.full(len(self), "") if self.slides is None else self.slides

    def with_partner(self, place: int, values: npt.NDArray[Any]) -> PairSet:
        """Return the same pairs with other values of one partner."""
        partners = list(self.partners)
        partners[place] = replace(partners[place], values=values)
        return replace(self, partners=tuple(partners))

    def digest(self) -> str:
        """Return a SHA-256 of every value: a continued run must find the same."""
        found = hashlib.sha256()
        arrays = [self.sparse, *(p.values for p in self.partners), self.confidence]
        if self.labels is not None:
            arrays.append(self.labels)
        for array in arrays:
            found.update(f"{array.dtype.str}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
        found.update("\n".join(map(str, self.cases)).encode())
        return found.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class PairSplit:
    """Pairs to train on, and pairs of other cases to judge checkpoints by, if any.

    ``left_out`` counts pairs that are neither: they reach across the border between
    both.
    """

    train: PairSet
    validation: PairSet | None
    left_out: int = 0


def load_pairs(config: DistillConfig, data: Path) -> PairSplit:
    """Read a recipe's pairs and split them by case, or by region.

    Controls are made here, separately on each side of the split, so that nothing of the
    validation pairs reaches training through a shuffled or a blank partner.

    Parameters
    ----------
    config : DistillConfig
        Names columns, sizes, controls and the split.
    data : Path
        A tile folder, or pairs that were sampled from layers (``pairs.zarr``).

    Raises
    ------
    TileFolderError
        Naming the row and column that cannot be used, and why.
    StoreError
        If stored pairs are damaged or lack what the recipe names.
    """
    read = _from_store if is_pairs(data) else _from_tiles
    everything, parts, places = _with_labels(*read(config, data))
    if config.data.validate_on:
        validation = _rows_of_parts(config.data.validate_on, parts, data)
    else:
        validation = _validation_rows(config, everything.labels, everything.cases)
    rows = np.setdiff1d(np.arange(len(everything)), validation)
    if places is not None and len(validation):
        across = reaching_across(places, validation)
        rows = _still_some(np.setdiff1d(rows, across), data)
    left_out = len(everything) - len(rows) - len(validation)
    if everything.labels is not None:
        share = config.data.labelled
        rows = labelled_rows(everything.labels, rows, share, config.seed)
    train = controlled(everything.take(rows), config)
    if not len(validation):
        (train,) = _with_categories([train], config.dense)
        return PairSplit(train, None)
    held_out = controlled(everything.take(validation), config, train)
    train, held_out = _with_categories([train, held_out], config.dense)
    return PairSplit(train, held_out, left_out)


def _still_some(rows: Ints, data: Path) -> Ints:
    if not len(rows):
        msg = (
            f"{data}: every pair reaches into a region that is held out: add sections, "
            "choose smaller tiles, or set data.validation_share to 0."
        )
        raise StoreError(msg)
    return rows


def _with_categories(
    sets: Sequence[PairSet], dense: Sequence[DenseConfig]
) -> list[PairSet]:
    """Return pairs whose masks have a channel per category, in all sets the same."""
    found = list(sets)
    for place, config in enumerate(dense):
        if config.kind == "mask":
            masks = [pairs.partners[place].values for pairs in found]
            unknown = found[0].partners[place].unknown
            channels = spread_masks(masks, config.column, unknown=unknown)
            found = [
                pairs.with_partner(place, values)
                for pairs, values in zip(found, channels, strict=True)
            ]
    return found


def _with_labels(
    pairs: PairSet, parts: npt.NDArray[np.str_], places: PairPlaces | None
) -> _Read:
    """Leave out pairs without a label, or of whose tile a mask says nothing at all."""
    said = np.ones(len(pairs), bool)
    if pairs.labels is not None:
        said &= pairs.labels >= 0
        if not said.any():
            msg = "data.labels_from: no tile has a class at its centre."
            raise StoreError(msg)
    for partner in pairs.partners:
        if partner.unknown:
            said &= partner.values.any(axis=(1, 2, 3))
    if said.all():
        return pairs, parts, places
    if not said.any():
        msg = (
            "dense.unlabelled: no tile has a label, and what is not labelled is "
            'unknown: use "background", or label some.'
        )
        raise TileFolderError(msg)
    rows = np.flatnonzero(said)
    kept = None if places is None else places.take(rows)
    return pairs.take(rows), parts[rows], kept


_Read = tuple[PairSet, "npt.NDArray[np.str_]", PairPlaces | None]
"""Pairs; the fold or section of each, "" where it has none; where they lie, if known.
"""


def _from_tiles(config: DistillConfig, data: Path) -> _Read:
    folder = read_tile_folder(data).without(config.data.leave_out)
    tiles, names = folder.tiles, [c.name for c in config.classes]
    pairs = PairSet(
        sparse=_pictures(folder, tiles, config.sparse.tile_px, config.source_px),
        partners=tuple(
            _partner(folder, tiles, dense, config.source_px) for dense in config.dense
        ),
        labels=folder.classes(names) if names else None,
        cases=_cases(tiles),
        confidence=np.ones(len(tiles), np.float32),
        slides=np.array([tile.case_id or "" for tile in tiles], np.str_),
        positions=tile_positions(folder, config.data.positions),
    )
    return pairs, np.array([tile.fold for tile in tiles]), None


def _from_store(config: DistillConfig, data: Path) -> _Read:
    stored = read_pairs(data)
    if config.data.leave_out:
        msg = "data.leave_out: pairs sampled from layers have no folds."
        raise StoreError(msg)
    if config.data.positions:
        msg = "data.positions: stored pairs have positions of their own: remove it."
        raise StoreError(msg)
    edge, said = stored.mpp * stored.tile_px, config.mpp * config.source_px
    if abs(said / edge - 1) > _SAME_EDGE:
        msg = (
            f"mpp, source_px: tiles of {data} are {stored.tile_px} px of "
            f"{stored.mpp:.4g} µm, the recipe says {config.source_px} px of "
            f"{config.mpp:.4g} µm: correct it."
        )
        raise StoreError(msg)
    partners: list[PartnerValues] = []
    for dense in config.dense:
        px = dense.tile_px
        if dense.column:
            values = stored.partner(dense.column, dense.kind, px)
            unknown = _is_unknown(dense, stored.unlabelled(dense.column))
            partners.append(PartnerValues(dense.kind, values, unknown))
        else:
            partners.append(PartnerValues(dense.kind, stored.sparse(px)))
    pairs = PairSet(
        sparse=stored.sparse(config.sparse.tile_px),
        partners=tuple(partners),
        labels=_stored_labels(config, stored),
        cases=stored.regions,
        confidence=stored.confidence,
        slides=stored.sections,
        rows=np.arange(len(stored)),
        positions=stored.position_um,
    )
    places = PairPlaces(stored.sections, stored.position_um, edge)
    return pairs, stored.sections, places


def _stored_labels(config: DistillConfig, stored: StoredPairs) -> Ints | None:
    """Return every pair's label, an index into the recipe's classes; −1 for none."""
    names, column = [c.name for c in config.classes], config.data.labels_from
    if not names and not column:
        return None
    if not names or not column:
        msg = (
            "classes, data.labels_from: pairs sampled from layers have labels where a "
            "mask of classes is among the partners: name both, or neither."
        )
        raise StoreError(msg)
    found = stored.labels(column)
    others = sorted(set(found.tolist()) - {"", *names})
    if others:
        msg = (
            f"classes: {column!r} also shows {others[0]!r}; the recipe's classes are "
            f"{', '.join(names)}."
        )
        raise StoreError(msg)
    place = {"": -1} | {name: k for k, name in enumerate(names)}
    return np.array([place[label] for label in found.tolist()], np.intp)


def controlled(
    pairs: PairSet, config: DistillConfig, source: PairSet | None = None
) -> PairSet:
    """Return the pairs with the partners that the recipe's controls ask for.

    Parameters
    ----------
    pairs : PairSet
        Pairs with their own partners.
    config : DistillConfig
        ``dense[i].partner`` says which control, ``seed`` how partners are dealt.
    source : PairSet or None
        Pairs that a blank partner is the mean of: the training pairs, with controls
        applied; ``pairs`` themselves by default.

    Raises
    ------
    TileFolderError
        If partners cannot be dealt as the control asks.
    """
    partners = []
    for place, (dense, own) in enumerate(
        zip(config.dense, pairs.partners, strict=True)
    ):
        drawn = _dealt(pairs, dense, stream(config.seed, PARTNERS, place))
        if drawn is not None:
            partners.append(replace(own, values=own.values[drawn]))
        elif dense.partner == "blank":
            from_here = own if source is None else source.partners[place]
            blank = _blank(from_here)
            partners.append(replace(own, values=np.repeat(blank, len(pairs), axis=0)))
        else:
            partners.append(own)
    return replace(pairs, partners=tuple(partners))


def _dealt(
    pairs: PairSet, dense: DenseConfig, random: np.random.Generator
) -> Ints | None:
    """Return the row whose partner each row gets; None where partners stay."""
    if dense.partner == "shuffled":
        return dealt_to_other_cases(pairs.cases, random)
    # A section may be cut into several regions, which are the cases of a split.
    sections = np.where(pairs.patients == "", pairs.cases, pairs.patients)
    if dense.partner == "shuffled_within_case":
        return dealt_within_cases(sections, random)
    if dense.partner == "shuffled_nearby":
        return dealt_nearby(sections, pairs.positions, dense.nearby, random)
    return None


def tile_positions(folder: TileFolder, pattern: str) -> npt.NDArray[np.float64] | None:
    """Read where every tile lies off its image's file name.

    Parameters
    ----------
    folder : TileFolder
        The tiles.
    pattern : str
        ``data.positions`` of the recipe.

    Returns
    -------
    ndarray or None
        ``(n, 2)``: row and column; None without a pattern.

    Raises
    ------
    TileFolderError
        Naming the tile whose name has no place.
    """
    if not pattern:
        return None
    known = re.compile(pattern)
    found: list[tuple[float, float]] = []
    for tile in folder.tiles:
        match = known.search(tile.image.name)
        try:
            row, column = map(float, match.groups() if match else ())
            if not math.isfinite(row + column):
                raise ValueError
        except (ValueError, TypeError):
            msg = (
                f"{folder.folder} row {tile.row}: data.positions ({pattern}) finds no "
                f"two numbers in {tile.image.name}."
            )
            raise TileFolderError(msg) from None
        found.append((row, column))
    return np.array(found, np.float64)


def _cases(tiles: Sequence[Tile]) -> npt.NDArray[np.str_]:
    # A tile without a case counts as a case of its own.
    return np.array([tile.case_id or tile.image.name for tile in tiles])


def _rows_of_parts(
    named: tuple[str, ...], parts: npt.NDArray[np.str_], data: Path
) -> Ints:
    """Return the rows of the folds or sections that are held out."""
    known = sorted(set(parts.tolist()) - {""})
    for name in named:
        if name not in known:
            msg = (
                f"data.validate_on: {data} has no fold or section {name!r}, only "
                f"{', '.join(known) or 'pairs of none'}."
            )
            raise TileFolderError(msg)
    rows = np.flatnonzero(np.isin(parts, named))
    if len(rows) == len(parts):
        msg = f"data.validate_on: nothing of {data} is left to train on."
        raise TileFolderError(msg)
    return rows


def _validation_rows(
    config: DistillConfig, labels: Ints | None, cases: npt.NDArray[np.str_]
) -> Ints:
    share = config.data.validation_share
    if not share:
        return np.empty(0, np.intp)
    groups = len(np.unique(cases))
    if groups < folds_for(share):
        msg = (
            f"data.validation_share: {groups} cases cannot be split so that a share of "
            f"{share:g} is held out: use a larger share or 0, or add cases."
        )
        raise TileFolderError(msg)
    return held_out_rows(cases, share=share, seed=config.seed, labels=labels)


def _pictures(
    folder: TileFolder, tiles: Sequence[Tile], tile_px: int, source_px: int
) -> Pixels:
    found = []
    for tile in tiles:
        pixels, (height, _) = folder.read(tile, tile_px)
        if height != source_px:
            msg = (
                f"{folder.folder} row {tile.row}: {tile.image.name} is {height} px "
                f"wide, the recipe's source_px says {source_px}: correct it, or µm per "
                "pixel would be wrong."
            )
            raise TileFolderError(msg)
        found.append(pixels)
    return np.stack(found)


def _partner(
    folder: TileFolder, tiles: Sequence[Tile], dense: DenseConfig, source_px: int
) -> PartnerValues:
    if not dense.column:
        return PartnerValues(
            dense.kind, _pictures(folder, tiles, dense.tile_px, source_px)
        )
    values = [
        folder.read_partner(tile, dense.column, dense.kind, dense.tile_px)
        for tile in tiles
    ]
    for tile, found in zip(tiles, values, strict=True):
        if found.shape != values[0].shape:
            msg = (
                f"{folder.folder} row {tile.row}: {dense.column!r} has "
                f"{len(found)} values, row {tiles[0].row} has {len(values[0])}."
            )
            raise TileFolderError(msg)
    unknown = _is_unknown(dense, Unlabelled.BACKGROUND)
    return PartnerValues(dense.kind, np.stack(values), unknown)


def _is_unknown(dense: DenseConfig, said: Unlabelled) -> bool:
    """Whether unlabelled places of a mask are unknown: the recipe's word goes first."""
    chosen = said if dense.unlabelled is None else Unlabelled(dense.unlabelled)
    return dense.kind == "mask" and chosen is Unlabelled.UNKNOWN


def _blank(partner: PartnerValues) -> npt.NDArray[Any]:
    """Return ``(1, …)``: the mean partner, or for masks the commonest category."""
    if partner.kind == "mask":
        counts = np.bincount(partner.values.reshape(-1), minlength=2)
        counts[0] *= not partner.unknown
        common = counts.argmax()
        return np.full_like(partner.values[:1], common)
    mean = partner.values.mean(axis=0, dtype=np.float64)[None]
    if np.issubdtype(partner.values.dtype, np.integer):
        mean = np.rint(mean)
    blank: npt.NDArray[Any] = mean.astype(partner.values.dtype)
    return blank
