"""Similarity to clicked places: where on a slide the tissue looks like them.

The definition:

1. embeddings are centred by the mean embedding of the slide's computed cells, then
   scaled to unit length. All tissue of a slide has much in common (stain, scanner), so
   plain cosines crowd near 1; centring removes what is common.
2. the query is Rocchio's: ``q = mean(positive) − 0.5 · mean(negative)`` of the unit
   vectors of the cells that were clicked, scaled to unit length again (Rocchio 1971,
   *Relevance feedback in information retrieval*).
3. a cell's similarity is its cosine with ``q``: 1 the same, 0 unrelated, −1 opposite.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.maps.store import CellStatus, EmbeddingStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.students.spec import EmbeddingMode

Clicks = tuple[tuple[float, float], ...]

NEGATIVE_WEIGHT = 0.5
"""How strongly a "not like this" counts against a "like this"."""

_IN_FLOAT32_BYTES = 1 << 30
_SLAB_ROWS = 16384
_QUERY_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimilarityMap:
    """The similarity of every cell to the clicked ones.

    Attributes
    ----------
    values : ndarray
        ``(rows, columns)`` float32, −1 to 1; NaN where there is no embedding.
    grid : TileGrid
        Grid of the cells.
    at, not_at : tuple of (y, x)
        The clicks, level-0 pixels.
    mode : {"tiles", "tokens"}
        Mode of the embeddings.
    origin_um : tuple of float
        World position ``(y, x)`` of the slide's first pixel, µm; see
        :class:`SlideInfo`.
    """

    values: npt.NDArray[np.float32]
    grid: TileGrid
    at: Clicks
    not_at: Clicks = ()
    mode: EmbeddingMode = "tiles"
    origin_um: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityIndex:
    """Normalised embeddings of one slide, kept for instant clicks.

    Make one with :meth:`of` or :meth:`from_store`.

    Attributes
    ----------
    grid : TileGrid
        Grid of the cells.
    mode : {"tiles", "tokens"}
        Mode of the embeddings.
    origin_um : tuple of float
        World position ``(y, x)`` of the slide's first pixel, µm; see
        :class:`SlideInfo`.

    Notes
    -----
    Held as float32 up to 1 GiB (200 000 cells × 1280), above that as float16.
    """

    grid: TileGrid
    mode: EmbeddingMode
    _row_of: npt.NDArray[np.intp]
    _unit: npt.NDArray[np.floating]
    origin_um: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(
        cls,
        embeddings: npt.NDArray[np.floating],
        status: npt.NDArray[np.uint8],
        grid: TileGrid,
        mode: EmbeddingMode = "tiles",
    ) -> SimilarityIndex:
        """Index embeddings that lie in memory.

        Parameters
        ----------
        embeddings : ndarray
            ``(rows, columns, dim)``, any float type.
        status : ndarray
            ``(rows, columns)`` uint8: 1 where there is an embedding.
        grid : TileGrid
            Grid of the cells.
        mode : {"tiles", "tokens"}
            Mode of the embeddings.

        Raises
        ------
        InputError
            If nothing was computed, or all cells have the same embedding.
        """
        done = _some(status)
        unit = _unit_rows(iter((embeddings[done],)), done, embeddings.shape[-1])
        return cls(grid, mode, _row_of(done), unit)

    @classmethod
    def from_store(cls, store: EmbeddingStore) -> SimilarityIndex:
        """Index a store's finished cells; raises what :meth:`of` raises, too.

        Raises
        ------
        StoreError
            If the store is damaged.
        """
        # Status before numbers: what it calls done is on disk, even during a run.
        done = _some(store.status)
        parts = (store.read(block)[done[block]] for block in store.slabs())
        unit = _unit_rows(parts, done, store.dim)
        made_by = store.provenance
        return cls(store.grid, made_by.mode, _row_of(done), unit, made_by.origin_um)

    def query(
        self,
        at: Sequence[tuple[float, float]],
        not_at: Sequence[tuple[float, float]] = (),
    ) -> SimilarityMap:
        """Return the similarity of every cell to places a person chose.

        Parameters
        ----------
        at : sequence of (y, x)
            "Like this": at least one, level-0 pixels.
        not_at : sequence of (y, x)
            "Not like this".

        Raises
        ------
        InputError
            If there is no positive place, if one lies outside the slide or has no
            embedding, or if the choices cancel each other out.
        """
        query = query_of(self._units(at), self._units(not_at))
        values = np.full(self._row_of.shape, np.nan, np.float32)
        values[self._row_of >= 0] = np.clip(self._dot(query), -1, 1)
        return SimilarityMap(
            values=values,
            grid=self.grid,
            at=tuple(at),
            not_at=tuple(not_at),
            mode=self.mode,
            origin_um=self.origin_um,
        )

    def _units(self, places: Sequence[tuple[float, float]]) -> npt.NDArray[np.float32]:
        rows = [self._row(y, x) for y, x in places]
        return self._unit[rows].astype(np.float32)

    def _row(self, y: float, x: float) -> int:
        row = int(self._row_of[self.grid.cell_at(y, x)])
        if row < 0:
            raise InputError(not_computed(y, x))
        return row

    def _dot(self, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._unit.dtype == np.float32:
            return np.asarray(self._unit @ query, np.float32)
        # numpy turns float16 into float32 one number at a time, eight times slower than
        # torch. Slabs are small enough for the float32 copy to stay in the cache.
        import torch

        unit, wanted = torch.from_numpy(self._unit), torch.from_numpy(query)
        slab = torch.empty((_QUERY_ROWS, len(query)))
        values = torch.empty(len(unit))
        for k in range(0, len(unit), _QUERY_ROWS):
            rows = unit[k : k + _QUERY_ROWS]
            exact = slab[: len(rows)].copy_(rows)
            torch.mv(exact, wanted, out=values[k : k + len(rows)])
        return values.numpy()


def query_of(
    like: npt.NDArray[np.float32], unlike: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the unit vector to compare with, as the module defines it.

    Parameters
    ----------
    like, unlike : ndarray
        ``(places, dim)`` float32, centred rows of unit length.

    Raises
    ------
    InputError
        If there is no positive place, or the places cancel each other out.
    """
    if not len(like):
        msg = "Choose at least one place that the search should resemble."
        raise InputError(msg)
    query = like.mean(axis=0)
    if len(unlike):
        query -= np.float32(NEGATIVE_WEIGHT) * unlike.mean(axis=0)
    length = float(np.linalg.norm(query))
    if length < 1e-6:
        msg = (
            "The chosen places leave nothing to search for: they look like the average "
            "of all tissue, or cancel each other out; choose others."
        )
        raise InputError(msg)
    return np.asarray(query / length, np.float32)


def unit_rows(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float]:
    """Return rows ``(k, dim)`` scaled to unit length (zero rows stay), and the longest.

    The rows are scaled in place.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, np.newaxis]
    rows /= np.maximum(lengths, 1e-12)
    return rows, float(lengths.max(initial=0.0))


def refuse_all_same(longest: float, mean: npt.NDArray[np.float32]) -> None:
    """Refuse embeddings that differ by rounding alone.

    Parameters
    ----------
    longest : float
        Length of the longest centred embedding.
    mean : ndarray
        ``(dim,)``, what was taken away.

    Raises
    ------
    InputError
        If so: differences below a thousandth of the mean are float16's rounding, not
        tissue.
    """
    if longest <= 1e-3 * float(np.linalg.norm(mean)):
        msg = (
            "All computed squares look the same to this student, so there is nothing "
            "to compare; compute a larger region."
        )
        raise InputError(msg)


def not_computed(y: float, x: float) -> str:
    """Return the sentence for a place (level-0 pixels) that has no embedding."""
    return (
        f"Nothing was computed at ({y:.0f}, {x:.0f}): it is glass, or its turn has not "
        "come yet; choose a place on computed tissue."
    )


def similarity_map(
    store: EmbeddingStore | Path | str,
    *,
    at: Sequence[tuple[float, float]],
    not_at: Sequence[tuple[float, float]] = (),
) -> SimilarityMap:
    """Return where a slide looks like the given places, as the module defines it.

    Parameters
    ----------
    store : EmbeddingStore or path
        The slide's embeddings; may be unfinished.
    at, not_at : sequence of (y, x)
        "Like this" and "not like this", level-0 pixels.

    Returns
    -------
    SimilarityMap
        ``values`` ``(rows, columns)`` float32 from −1 to 1, NaN where there is no
        embedding, and the grid they lie on.

    Raises
    ------
    InputError
        If a place has no embedding (:class:`StoreError` if the store is at fault).

    Examples
    --------
    >>> from napari_histodistill import embed_slide, load_student, open_slide
    >>> from napari_histodistill import similarity_map
    >>> from napari_histodistill.samples import ihc_sample
    >>> student = load_student("colon-he", device="cpu:torch")
    >>> with open_slide(ihc_sample()) as slide:
    ...     *_, last = embed_slide(slide, student, "colon.zarr")
    >>> heat = similarity_map("colon.zarr", at=[(100, 100)])
    >>> round(float(heat.values[0, 0]), 3)  # the square that was asked for
    1.0
    """
    if isinstance(store, EmbeddingStore):
        return SimilarityIndex.from_store(store).query(at, not_at)
    with EmbeddingStore.open(Path(store)) as opened:
        return SimilarityIndex.from_store(opened).query(at, not_at)


def _some(status: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which cells have an embedding, or refuse if none has."""
    done: npt.NDArray[np.bool_] = status == CellStatus.DONE
    if not done.any():
        msg = "Nothing has been computed yet: run the student first."
        raise InputError(msg)
    return done


def _row_of(done: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return every cell's row among those that are done, −1 for the others."""
    rows = np.cumsum(done.ravel()).reshape(done.shape) - 1
    return np.where(done, rows, -1)


def _unit_rows(
    parts: Iterator[npt.NDArray[np.floating]], done: npt.NDArray[np.bool_], dim: int
) -> npt.NDArray[np.floating]:
    """Return ``(cells, dim)``: centred rows of unit length (zero rows stay zero).

    ``parts`` are ``(k, dim)`` each, all cells that are done in row order.
    """
    count = int(done.sum())
    large = count * dim * 4 > _IN_FLOAT32_BYTES
    unit = np.empty((count, dim), np.float16 if large else np.float32)
    at = 0
    for part in parts:
        unit[at : at + len(part)] = part
        at += len(part)
    slabs = [slice(k, k + _SLAB_ROWS) for k in range(0, count, _SLAB_ROWS)]
    total = np.zeros(dim)
    for slab in slabs:
        total += unit[slab].sum(axis=0, dtype=np.float32)
    mean = (total / count).astype(np.float32)
    longest = 0.0
    for slab in slabs:
        unit[slab], length = unit_rows(unit[slab] - mean)
        longest = max(longest, length)
    refuse_all_same(longest, mean)
    return unit
