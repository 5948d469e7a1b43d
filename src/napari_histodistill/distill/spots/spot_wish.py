"""What a person wants of a file of spots: which library, and which genes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.files import read_plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

MOST_GENES = 2000
"""Number of the most variable genes that are kept."""

_MOST_LIST = 2**22


class SeveralLibrariesError(InputError):
    """A file holds several libraries, and one must be chosen by its name.

    Attributes
    ----------
    names : tuple of str
        Of the libraries.
    """

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class SpotWish:
    """What is wanted of a file of spots.

    Attributes
    ----------
    library : str
        The library (a section) that is read, by its name; needed where there are
        several, which are never mixed.
    most_genes : int
        Number of genes that are kept: the most variable, or those of highest score.
    genes : tuple of str
        Genes that are kept, in this order; empty for no list.
    score : str
        Column of the genes' table by which they are ranked; empty for variance.
    """

    library: str = ""
    most_genes: int = MOST_GENES
    genes: tuple[str, ...] = ()
    score: str = ""

    def choosing(
        self,
        *,
        library: str = "",
        genes: Sequence[str] = (),
        score: str = "",
        most_genes: int | None = None,
    ) -> SpotWish:
        """Return it with what is said in its place; what is not said stays.

        A list of genes takes the place of a score, and a score that of a list.

        Raises
        ------
        InputError
            If what is said contradicts itself.
        """
        if genes and (score or most_genes is not None):
            other = "--gene-score" if score else "--most-genes"
            msg = (
                f"--genes and {other}: listed genes are all kept, and not ranked: "
                "leave out one of the two."
            )
            raise InputError(msg)
        ranked = bool(genes or score)
        return SpotWish(
            library or self.library,
            self.most_genes if most_genes is None else most_genes,
            tuple(genes) if ranked else self.genes,
            score if ranked else self.score,
        )

    def content(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> SpotWish:
        """Return what :meth:`content` gave."""
        return cls(**{**content, "genes": tuple(content.get("genes", ()))})

    def origin(self) -> dict[str, Any]:
        """Return what is kept with pairs: how genes were chosen, and the library."""
        rule = "list" if self.genes else ("score" if self.score else "variance")
        found: dict[str, Any] = {"genes_by": rule}
        if self.score and not self.genes:
            found["score"] = self.score
        if self.library:
            found["library"] = self.library
        return found


def places_of(
    name: str, genes: Sequence[str], wanted: Sequence[str]
) -> tuple[npt.NDArray[np.intp], str]:
    """Return where listed genes are among all, and a sentence on missing ones.

    Names are matched as written or, where that gives none, in upper or lower case.

    Raises
    ------
    InputError
        If none of them is there.
    """
    exact = {gene: k for k, gene in enumerate(genes)}
    loose = {gene.lower(): k for k, gene in reversed(list(enumerate(genes)))}
    found = [exact.get(gene, loose.get(gene.lower())) for gene in wanted]
    missing = [g for g, k in zip(wanted, found, strict=True) if k is None]
    places = list(dict.fromkeys(k for k in found if k is not None))
    if not places:
        msg = (
            f"{name}: none of the {len(wanted):,} listed genes is in it (such as "
            f"{_few(wanted)}); its genes are called such as {_few(genes)}."
        )
        raise InputError(msg)
    note = f"Not in it: {_few(missing, 8)}." if missing else ""
    return np.array(places, np.intp), note


def _few(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    shown = ", ".join(name[:40] for name in names[:most])
    return f"{shown} and {more:,} more" if more > 0 else shown


def listed_genes(text: str) -> tuple[str, ...]:
    """Return the genes that a person typed: between commas, semicolons or spaces."""
    return tuple(dict.fromkeys(word for word in re.split(r"[\s,;]+", text) if word))


def named_genes(text: str, home: Path | None = None) -> tuple[str, ...]:
    """Return the genes that a text names: itself, or the file whose name it is.

    Parameters
    ----------
    text : str
        Names of genes, or of a file that ends in .txt, .csv or .tsv.
    home : Path, optional
        Folder from which the file's name counts.

    Raises
    ------
    InputError
        If it names none, or the file cannot be read as a list of genes.
    """
    text = text.strip()
    path = Path(text) if home is None else home / text
    if path.suffix.lower() in {".txt", ".csv", ".tsv"}:
        return read_gene_list(path)
    found = listed_genes(text)
    if not found:
        msg = (
            f"{text[:40]!r} names no gene: write names between commas, or the name of "
            "a text file that lists them."
        )
        raise InputError(msg)
    return found


def read_gene_list(path: Path) -> tuple[str, ...]:
    """Read a list of genes: a text file with one in each line, or separated.

    Raises
    ------
    InputError
        If it cannot be read, or names none.
    """
    try:
        raw = read_plain(path, _MOST_LIST + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path.name} cannot be read as a list of genes: give a text file."
        raise InputError(msg) from error
    found = listed_genes(text)
    if not found or len(raw) > _MOST_LIST:
        what = "names no gene" if not found else "is too large for a list of genes"
        msg = f"{path.name} {what}: write one name in each line."
        raise InputError(msg)
    return found
