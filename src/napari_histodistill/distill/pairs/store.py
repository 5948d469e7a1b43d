"""Sampled pairs on disk: ``pairs.zarr``, part of a run's folder.

A zarr (v3) group, row for row: ``sparse`` uint8 ``(n, h, w, 3)``, ``partner-0``,
``partner-1`` … (uint8 ``(n, h, w, c)`` or float32 ``(n, genes)``), ``position_um``
``(n, 2)`` in its section's world, ``confidence`` float32 and ``region`` int ``(n,)``;
the regions' names and sections, the partners and the sources of the pairs are
attributes. It is written under another name and renamed at the end, so a half-written
store never has its name.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_histodistill.distill.layers.kinds import PartnerReading, Unlabelled
from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.pairs.provenance import SectionOrigin
from napari_histodistill.errors import ComputeError, StoreError
from napari_histodistill.files import check_tree, read_plain
from napari_histodistill.running import CancelToken
from napari_histodistill.slides.formats.zarr_limits import check_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.distill.pairs.plan import PairPlan
    from napari_histodistill.distill.pairs.pool import PairPool

FORMAT_VERSION = 1
PAIRS = "pairs.zarr"
_KIND = "pairs"
_ROWS = 64
_MOST_BYTES = 2**26
MAX_RATIO = 1000
"""Largest factor by which images shrink on disk, nearly blank ones included."""

_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
    ArithmeticError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredPartner:
    """One partner of stored pairs.

    Attributes
    ----------
    name : str
        Name of the partner in a recipe's ``dense.column``.
    kind : str
        ``"image"``, ``"channels"``, ``"mask"`` or ``"expression"``.
    names : tuple of str
        Names of its channels, classes or genes.
    origin : mapping
        How the layer was read: :func:`_origin`; empty in older stores.
    """

    name: str
    kind: str
    names: tuple[str, ...]
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_classes(self) -> bool:
        """Whether it is a mask that was read as classes, and can label tiles."""
        objects = PartnerReading.OBJECTS.value
        return self.kind == "mask" and self.origin.get("reading") != objects

    @property
    def unlabelled(self) -> Unlabelled:
        """What places of a mask without a label are."""
        return Unlabelled(self.origin.get("unlabelled", Unlabelled.BACKGROUND.value))


@dataclass(frozen=True, slots=True, eq=False)
class StoredPairs:
    """Pairs that were written; get them from :func:`read_pairs`.

    Images stay on disk until they are needed.

    Attributes
    ----------
    path : Path
        The folder.
    partners : tuple of StoredPartner
        In the order of writing.
    regions : ndarray
        ``(n,)`` str, the region of each pair, which stays on one side of a split.
    sections : ndarray
        ``(n,)`` str, the section of each pair; "" in a store that does not name it.
    confidence : ndarray
        ``(n,)`` float32.
    position_um : ndarray
        ``(n, 2)``, (y, x) of the tiles' centres in the world of their section.
    mpp, tile_px : float, int
        Pixel size in µm and edge in px of the sparse tiles.
    source : str
        The layers, in words.
    origins : tuple of SectionOrigin or None
        Where each section comes from; empty in older stores.
    """

    path: Path
    partners: tuple[StoredPartner, ...]
    regions: npt.NDArray[np.str_]
    sections: npt.NDArray[np.str_]
    confidence: npt.NDArray[np.float32]
    position_um: npt.NDArray[np.float64]
    mpp: float
    tile_px: int
    source: str
    origins: tuple[SectionOrigin | None, ...]
    _group: Any

    def __len__(self) -> int:
        return len(self.regions)

    def sparse(self, tile_px: int | None = None) -> npt.NDArray[np.uint8]:
        """Return all sparse tiles, ``(n, tile_px, tile_px, 3)``, reduced if asked."""
        return _resized(self._read("sparse"), tile_px, Image.Resampling.BICUBIC)

    def first_tiles(self, count: int) -> npt.NDArray[np.uint8]:
        """Return the first sparse tiles; the rest stays on disk."""
        tiles: npt.NDArray[np.uint8] = self._read("sparse", slice(count))
        return tiles

    def partner(
        self, name: str, kind: str, tile_px: int | None = None
    ) -> npt.NDArray[np.generic]:
        """Return a partner's tiles or expression values for all pairs.

        Parameters
        ----------
        name : str
            Name of the partner.
        kind : str
            Kind that the caller expects.
        tile_px : int, optional
            Edge that images are resized to; categories are not blended.

        Raises
        ------
        StoreError
            If there is no such partner, or it is of another kind.
        """
        names = [p.name for p in self.partners]
        if name not in names:
            msg = (
                f"{self.path}: dense.column names {name!r}; the pairs have "
                f"{', '.join(map(repr, names)) or 'no partners'}."
            )
            raise StoreError(msg)
        found = self.partners[names.index(name)]
        if found.kind != kind:
            msg = (
                f"{self.path}: {name!r} is of kind {found.kind!r}, dense.kind says "
                f"{kind!r}."
            )
            raise StoreError(msg)
        values = self._read(f"partner-{names.index(name)}")
        if kind == "expression":
            return values
        mask = kind == "mask"
        how = Image.Resampling.NEAREST if mask else Image.Resampling.BICUBIC
        return _resized(values, tile_px, how)

    def labels(self, name: str) -> npt.NDArray[np.str_]:
        """Return the class at the centre of every tile, ``(n,)``; "" where none is.

        Parameters
        ----------
        name : str
            A partner: a mask that was read as classes.

        Raises
        ------
        StoreError
            If there is no such partner, or it has no classes.
        """
        masks = self.partner(name, "mask")
        found = next(p for p in self.partners if p.name == name)
        if not found.has_classes:
            msg = (
                f"{self.path}: {name!r} counts objects and has no classes: sample the "
                "pairs again, with its labels read as classes."
            )
            raise StoreError(msg)
        middle = masks.shape[1] // 2
        codes = masks[:, middle, middle, 0].astype(np.intp)
        titles = np.array(["", *found.names])
        if len(codes) and int(codes.max()) >= len(titles):
            raise _damaged(self.path, ValueError(f"{name!r} has a class too many"))
        labels: npt.NDArray[np.str_] = titles[codes]
        return labels

    def unlabelled(self, name: str) -> Unlabelled:
        """Return what places of a mask without a label are; ``name`` is a partner's."""
        return next(p.unlabelled for p in self.partners if p.name == name)

    def _read(self, name: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
        try:
            values: npt.NDArray[Any] = self._group[name][rows]
        except _DAMAGE as error:
            raise _damaged(self.path, error) from error
        return values


def is_pairs(path: Path) -> bool:
    """Whether a folder looks like stored pairs, sound or damaged."""
    return (path / "zarr.json").is_file() and (path / "sparse").is_dir()


def read_pairs(path: Path | str) -> StoredPairs:
    """Open stored pairs.

    Raises
    ------
    StoreError
        If there are none, they are damaged, or a newer version wrote them.
    """
    import zarr

    path = Path(path)
    if not is_pairs(path):
        msg = f"{path}: there are no stored pairs."
        raise StoreError(msg)
    try:
        check_tree(path)
        group = zarr.open_group(path, mode="r", zarr_format=3)
        meta: Any = group.attrs.asdict()["histodistill"]
        if meta["kind"] == _KIND and meta["format_version"] > FORMAT_VERSION:
            msg = f"{path}: written by a newer version of this program; update it."
            raise StoreError(msg)
        arrays: list[Any] = [group[k] for k in ("region", "confidence", "position_um")]
        titles = ["sparse", *(f"partner-{k}" for k in range(len(meta["partners"])))]
        if [array.shape[1:] for array in arrays] != [(), (), (2,)]:
            msg = "its regions, confidence or positions have another shape"
            raise ValueError(msg)
        _check_rows([*arrays, *(group[title] for title in titles)])
        region, confidence, position = (array[:] for array in arrays)
        # Older stores held one section and did not name it.
        sections = meta.get("sections", [""])
        section = meta.get("region_section", [0] * len(meta["regions"]))
        return StoredPairs(
            path=path,
            partners=tuple(
                StoredPartner(
                    p["name"], p["kind"], tuple(p["names"]), dict(p.get("origin", {}))
                )
                for p in meta["partners"]
            ),
            regions=np.array(meta["regions"])[region],
            sections=np.array(sections, np.str_)[np.array(section, np.intp)][region],
            confidence=confidence,
            position_um=position,
            mpp=float(meta["mpp"]),
            tile_px=int(meta["tile_px"]),
            source=str(meta["source"]),
            origins=_origins_of(meta),
            _group=group,
        )
    except StoreError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def read_origins(path: Path) -> tuple[SectionOrigin | None, ...]:
    """Return where stored pairs come from, without opening their arrays.

    Raises
    ------
    StoreError
        If their description is damaged.
    """
    try:
        content: Any = json.loads(read_plain(path / "zarr.json", _MOST_BYTES))
        return _origins_of(content["attributes"]["histodistill"])
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _origins_of(meta: dict[str, Any]) -> tuple[SectionOrigin | None, ...]:
    """Return where every section comes from; nothing of older stores."""
    return tuple(
        None if one is None else SectionOrigin.read(one)
        for one in meta.get("origins", [])
    )


def _check_rows(arrays: list[Any]) -> None:
    """Refuse arrays that claim more than can be in their files, or do not match."""
    if len({array.shape[0] for array in arrays}) != 1:
        msg = "its arrays are of different lengths"
        raise ValueError(msg)
    for array in arrays:
        check_array(array, array.basename)
        stored = array.nbytes_stored()
        if array.nbytes > max(2**28, MAX_RATIO * stored):
            msg = f"{array.basename} claims {array.nbytes} bytes and holds {stored}"
            raise ValueError(msg)


def write_pairs(
    path: Path | str, plan: PairPlan | PairPool, *, cancel: CancelToken | None = None
) -> Iterator[int]:
    """Read all pairs of a plan and write them.

    Parameters
    ----------
    path : Path or str
        Store to write, such as ``pairs.zarr``; must not exist.
    plan : PairPlan or PairPool
        Pairs of one section or several.
    cancel : CancelToken, optional
        Checked between pairs; nothing is left behind after a stop.

    Yields
    ------
    int
        Number of pairs written so far.

    Raises
    ------
    StoreError
        If ``path`` exists already.
    ComputeError
        If the disk is full or cannot be written to.
    SlideError
        If a layer cannot be read.
    Cancelled
        When asked to stop.
    """
    path, token = Path(path), cancel or CancelToken()
    if path.exists():
        msg = f"{path}: this exists already: choose another name."
        raise StoreError(msg)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield from _write(partial, plan, token)
        partial.rename(path)
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror or error})."
        raise ComputeError(msg) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _described(partner: DenseLayer | Spots) -> dict[str, Any]:
    if isinstance(partner, Spots):
        kind, names = "expression", partner.genes
    else:
        kind, names = partner.kind, partner.channels
    return {
        "name": partner.name,
        "kind": kind,
        "names": list(names),
        "origin": _origin(partner),
    }


def _origin(partner: DenseLayer | Spots) -> dict[str, Any]:
    """Return how a layer was read: what was asked, measured or given, for JSON."""
    if isinstance(partner, Spots):
        return dict(partner.origin)
    found: dict[str, Any] = {"reading": partner.reading.value}
    if partner.kind == "mask":
        found["unlabelled"] = partner.unlabelled.value
    if partner.stains is not None:
        found["stains"] = partner.stains.content()
    return found


def _write(path: Path, plan: PairPlan | PairPool, token: CancelToken) -> Iterator[int]:
    import zarr
    from zarr.codecs import ZstdCodec

    names, first, region = np.unique(
        plan.regions, return_index=True, return_inverse=True
    )
    meta = {
        "format_version": FORMAT_VERSION,
        "kind": _KIND,
        "regions": names.tolist(),
        "sections": list(plan.section_names),
        "region_section": plan.sections[first].tolist(),
        "mpp": plan.sampling.mpp,
        "tile_px": plan.sampling.tile_px,
        "source": plan.source,
        "origins": [one and one.content() for one in plan.origins],
        "partners": [_described(p) for p in plan.partners],
    }
    group = zarr.create_group(path, attributes={"histodistill": meta}, zarr_format=3)
    codec = ZstdCodec(level=1, checksum=True)

    def array(name: str, like: npt.NDArray[Any]) -> Any:
        shape = (len(plan), *like.shape[1:])
        return group.create_array(
            name,
            shape=shape,
            chunks=(min(_ROWS, len(plan)), *like.shape[1:]),
            dtype=like.dtype,
            fill_value=0,
            compressors=codec,
        )

    for name, values in (
        ("region", region.astype(np.int32)),
        ("confidence", plan.confidence),
        ("position_um", plan.centres_um),
    ):
        array(name, values)[:] = values
    arrays: list[Any] = []
    for start in range(0, len(plan), _ROWS):
        rows = range(start, min(start + _ROWS, len(plan)))
        read: list[list[npt.NDArray[Any]]] = []
        for row in rows:
            token.check()
            partners = [plan.partner_tile(row, k) for k in range(len(plan.partners))]
            read.append([plan.sparse_tile(row), *partners])
        blocks = [np.stack(column) for column in zip(*read, strict=True)]
        if not arrays:
            titles = ["sparse", *(f"partner-{k}" for k in range(len(plan.partners)))]
            arrays = [array(t, b) for t, b in zip(titles, blocks, strict=True)]
        for target, block in zip(arrays, blocks, strict=True):
            target[rows.start : rows.stop] = block
        yield rows.stop


def _resized(
    pictures: npt.NDArray[Any], tile_px: int | None, how: Image.Resampling
) -> npt.NDArray[np.uint8]:
    if tile_px is None or pictures.shape[1] == tile_px:
        return pictures
    out = np.empty((len(pictures), tile_px, tile_px, pictures.shape[3]), np.uint8)
    for row, picture in enumerate(pictures):
        for channel in range(pictures.shape[3]):
            image = Image.fromarray(np.ascontiguousarray(picture[:, :, channel]))
            out[row, :, :, channel] = np.asarray(image.resize((tile_px, tile_px), how))
    return out


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path}: the pairs are damaged ({error}); sample them again.")
