"""Columns beside spots: which hold positions, which are genes, what lies on tissue."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_histodistill.distill.spots.spot_tables import LengthUnit, RawSpots

COLUMNS: tuple[tuple[str, str, LengthUnit | None], ...] = (
    ("y_um", "x_um", "µm"),
    ("y_µm", "x_µm", "µm"),
    ("y_microns", "x_microns", "µm"),
    ("y_micrometer", "x_micrometer", "µm"),
    ("centroid_y_µm", "centroid_x_µm", "µm"),
    ("centroid_y_um", "centroid_x_um", "µm"),
    ("pxl_row_in_fullres", "pxl_col_in_fullres", "px"),
    ("pxl_row", "pxl_col", "px"),
    ("imagerow", "imagecol", "px"),
    ("y_px", "x_px", "px"),
    ("pixel_y", "pixel_x", "px"),
    ("y_pixel", "x_pixel", "px"),
    ("centroid_y_px", "centroid_x_px", "px"),
    ("centery_global_px", "centerx_global_px", "px"),
    ("y_global_px", "x_global_px", "px"),
    ("y_centroid", "x_centroid", None),
    ("centroid_y", "centroid_x", None),
    ("center_y", "center_x", None),
    ("global_y", "global_x", None),
    ("y_location", "x_location", None),
    ("y_coord", "x_coord", None),
    ("ycoord", "xcoord", None),
    ("y_coordinate", "x_coordinate", None),
    ("y_koordinate", "x_koordinate", None),
    ("y_position", "x_position", None),
    ("y", "x", None),
)
"""Names of position columns, as :func:`bare_name` gives them, and the unit implied."""

POSITIONS = frozenset(name for y, x, _ in COLUMNS for name in (y, x))

POSITION_HEADER = (
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
)
"""Columns of ``tissue_positions.csv``; before Space Ranger 2 it had no header."""

_IDENTITY = r"""
    barcodes?|cell|cell_?id|cell_index|spot|spot_?id|index|id|name|row\.?names|array
    |sample|library|section|slide|slice|region|batch|fov|fov_name|.+_id|entityid
    |label|class|group|patient|donor|replicate
    |clusters?|cluster_id|seurat_clusters|orig\.ident|annotation|cell_?type|in_tissue
    |array_row|array_col|row|col|z|z_um|z_level|z_centroid
    |(leiden|louvain|kmeans|graphclust|snn_res)([_.\d].*)?
    |(x_)?(umap|tsne|pca|pc)[_\ ]?\d+
    |unnamed:\ \d+  # an index that pandas wrote and read again
"""
_QUALITY = r"""
    (log1p_)?(total_counts|n_counts|n_genes)(_.+)?|counts_total|n_?umi|n_?genes
    |transcript_counts?|control_(probe|codeword)_counts|genomic_control_counts
    |(unassigned|deprecated)_codeword_counts|nucleus_count
    |(pct|percent)[_.].+  # scanpy: pct_counts_mt; Seurat: percent.mt
    |n(count|feature)_.+  # Seurat: nCount_RNA
    |(log1p_)?mean_counts|n_cells(_by_counts)?|doublet_scores?|predicted_doublet
    |size_?factors?|s[_.]score|g2m[_.]score
    |(cell_|nucleus_)?(area|volume|perimeter)|radius|spot_diameter|width|height|length
    |(aspect|perimeter_area)_?ratio|anisotropy|solidity|eccentricity|circularity
    |roundness|compactness|elongation|(major|minor|max|min)_.*(axis|diameter|caliper).*
    |(mean|max|min|median|std)[._ ].+  # CosMx: Mean.PanCK; QuPath, scikit-image
    |.+_(raw|high_pass)  # MERSCOPE: DAPI_raw
    |(nucleus|cell|cytoplasm|membrane|detection|roi)[: ]\ ?.+  # QuPath: Cell: Area
    |(center|centroid|global|local)_?[xyz](_.*)?|[xyz]_(local|global|fov|slide)_.+
    |qv|overlaps_nucleus|nucleus_distance
"""
_NO_GENE = re.compile(f"{_IDENTITY}|{_QUALITY}", re.VERBOSE)

_ON_TISSUE = {"1": True, "1.0": True, "true": True,
              "0": False, "0.0": False, "false": False}  # fmt: skip
"""As Space Ranger, Python and R write it, in upper or lower case."""


_LISTED = ("gene", "geneid", "gene_id", "gene_name", "genename", "feature_name")


def bare_name(column: str) -> str:
    """Return a name in lower case, with one kind of µ and ``_`` between its words.

    Examples
    --------
    >>> bare_name("Centroid X [µm]")
    'centroid_x_µm'
    """
    return re.sub(r"[^\w]+|_+", "_", column.strip().lower().replace("μ", "µ")).strip(
        "_"
    )


def lists_transcripts(columns: Sequence[str]) -> str:
    """Return the column of texts that holds a gene in each row; empty without one.

    As in files of transcripts (Stereo-seq's GEM, Xenium, MERSCOPE, CosMx), of which
    each row is a molecule, not a spot.
    """
    names = {bare_name(column): column for column in columns}
    if "cellcomp" in names and "target" in names:
        return names["target"]
    return next((names[n] for n in _LISTED if n in names), "")


def is_gene(column: str) -> bool:
    """Whether a column of numbers may be a gene: its name does not say otherwise.

    Positions, sums over genes, sizes of cells and names of clusters are not: as genes
    they would teach where a spot lies, or outweigh all others.
    """
    name = column.strip().lower()
    known = bare_name(column) in POSITIONS or _NO_GENE.fullmatch(name)
    return bool(name) and not known


def position_columns(names: Sequence[str]) -> tuple[int, int, LengthUnit | None] | None:
    """Return the places of y and x among columns, and their unit; None without them."""
    lower = [bare_name(n) for n in names]
    for y, x, unit in COLUMNS:
        if y in lower and x in lower:
            return lower.index(y), lower.index(x), unit
    return None


def keep_on_tissue(raw: RawSpots, name: str, in_tissue: Iterable[Any]) -> RawSpots:
    """Leave out spots that a column says are outside the tissue.

    Parameters
    ----------
    raw : RawSpots
        All spots.
    name : str
        Of the file, for messages.
    in_tissue : iterable
        One value for each spot; missing ones are empty text.

    Raises
    ------
    InputError
        If a value is none of 1, 0, TRUE and FALSE, or there are more or fewer than
        spots.
    """
    words = [str(value).strip() for value in in_tissue]
    if len(words) != len(raw.positions):
        msg = (
            f"{name}: 'in_tissue' has {len(words)} values, there are "
            f"{len(raw.positions)} spots: write the file again."
        )
        raise InputError(msg)
    unclear = next(
        (k for k, x in enumerate(words) if x.lower() not in _ON_TISSUE), None
    )
    if unclear is not None:
        msg = (
            f"{name}: the column 'in_tissue' says {words[unclear][:40]!r} in row "
            f"{unclear + 1}: write 1 or 0, TRUE or FALSE, or drop the column."
        )
        raise InputError(msg)
    kept = np.array([_ON_TISSUE[x.lower()] for x in words], bool)
    if kept.all() or not kept.any():
        return raw
    note = (
        f"{int((~kept).sum())} spots outside the tissue (by in_tissue) were left out."
    )
    return replace(
        raw,
        positions=raw.positions[kept],
        values=raw.values[np.flatnonzero(kept)],
        notes=(*raw.notes, note),
    )


def unlike(genes: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Number genes of one name, and return a sentence on it; empty without any.

    As AnnData's ``var_names_make_unique`` does: G, G-1, G-2.
    """
    taken, found, changed = set(genes), [], 0
    seen: dict[str, int] = {}
    for gene in genes:
        name, k = gene, seen.get(gene, 0)
        while k and name in taken:
            name, k = f"{gene}-{k}", k + 1
        changed += name != gene
        taken.add(name)
        seen[gene] = max(k, 1)
        found.append(name)
    note = f"{changed} genes had the name of another and were numbered."
    return tuple(found), note if changed else ""


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Return names as a list for a sentence, the first few of many."""
    shown = ", ".join(n[:40] for n in names[:most])
    more = len(names) - most
    return f"{shown} and {more:,} more" if more > 0 else shown


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line; its kind if it says nothing."""
    lines = str(error).strip("'\" \n").splitlines()
    return lines[0][:200] if lines else type(error).__name__
