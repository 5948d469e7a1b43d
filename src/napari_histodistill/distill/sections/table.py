"""A table of sections: one row each, for a batch."""

from __future__ import annotations

import csv
import difflib
import io
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from napari_histodistill.distill.exchange.frames import FixedImage, PointUnit
from napari_histodistill.distill.exchange.texts import number, read_text_file
from napari_histodistill.distill.layers.kinds import Unlabelled
from napari_histodistill.distill.layers.registration import KINDS, RegistrationKind
from napari_histodistill.distill.pairs.provenance import SectionRelation
from napari_histodistill.distill.sections.files import (
    AlignmentFiles,
    PartnerSort,
    SectionFiles,
    vectors_of,
)
from napari_histodistill.distill.spots.spot_wish import SpotWish, named_genes
from napari_histodistill.errors import HistodistillError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_histodistill.distill.layers.marker import StainVectors

MOST_SECTIONS = 10_000
_YES = {"yes", "true", "1"}
_NO = {"no", "false", "0", ""}

COLUMNS = (
    *("he", "partner", "case", "as", "unlabelled", "relation", "approved_by"),
    *("mpp", "partner_mpp", "image", "partner_image", "rgb"),
    *("transform", "transform_unit", "fixed", "in_register", "kind"),
    *("landmarks", "partner_landmarks", "landmark_pairs", "landmark_unit"),
    *("library", "genes", "gene_score", "most_genes", "stain_vectors"),
)
"""Columns of a table; ``he`` and ``partner`` must be there, others may be empty."""

_OF_HE = ("case", "mpp", "image", "rgb")
"""Columns that a row without an H&E leaves empty."""

_Chosen = TypeVar("_Chosen", bound=Enum)


@dataclass(frozen=True, slots=True)
class SectionRow:
    """A section of a table.

    Attributes
    ----------
    place : str
        File and row, for messages; "" for the only section.
    files : SectionFiles
        What the row names.
    more : tuple of SectionRow
        Rows below it that name further partners of the same H&E.
    """

    place: str
    files: SectionFiles
    more: tuple[SectionRow, ...] = ()

    @property
    def parts(self) -> tuple[SectionRow, ...]:
        """A row for each partner, this one first."""
        return (self, *self.more)


def read_sections(path: Path, said: SectionFiles) -> list[SectionRow]:
    """Read a table of sections.

    Parameters
    ----------
    path : Path
        CSV (comma, semicolon or tab) with a header of :data:`COLUMNS`; paths count from
        its folder. A row without an H&E names a further partner of the one above.
    said : SectionFiles
        What holds for every section whose row does not say otherwise.

    Raises
    ------
    InputError
        If it is no such table; the message names row and column.
    """
    text = read_text_file(path)
    first = text.lstrip("\n").partition("\n")[0]
    between = next((mark for mark in "\t;," if mark in first), ",")
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=between))
    except csv.Error as error:
        msg = f"{path}: is not a table ({error})."
        raise InputError(msg) from error
    numbered = [(k, row) for k, row in enumerate(rows, 1) if "".join(row).strip()]
    header = [word.strip().lower() for word in numbered[0][1]] if numbered else []
    _check_header(path, header)
    if not 1 < len(numbered) <= MOST_SECTIONS + 1:
        msg = f"{path}: holds no section, or more than {MOST_SECTIONS:,}."
        raise InputError(msg)
    found: list[SectionRow] = []
    for place, row in numbered[1:]:
        where = f"{path} row {place}"
        if len(row) > len(header) and "".join(row[len(header) :]).strip():
            msg = f"{where}: has {len(row)} fields, the header {len(header)}."
            raise InputError(msg)
        fields = dict(zip(header, (word.strip() for word in row), strict=False))
        _add(found, where, _Row(where, path.parent, fields), said)
    return found


def _add(found: list[SectionRow], where: str, row: _Row, said: SectionFiles) -> None:
    """Add a section, or a further partner to the last one."""
    if row.fields.get("he"):
        found.append(SectionRow(where, row.files(said)))
        return
    if not found:
        msg = f"{where}: names no H&E."
        raise InputError(msg)
    own = [name for name in _OF_HE if row.fields.get(name)]
    if own:
        msg = (
            f"{where}: {own[0]} is said of an H&E, and this row names none: it is a "
            "further partner of the one above."
        )
        raise InputError(msg)
    first = found[-1].files
    alone = _Row(where, row.home, row.fields | {"he": "."}).files(said)
    files = replace(
        alone,
        **{name: getattr(first, name) for name in ("he", *_OF_HE)},
    )
    found[-1] = replace(found[-1], more=(*found[-1].more, SectionRow(where, files)))


@contextmanager
def in_row(row: SectionRow) -> Iterator[None]:
    """Name the row in whatever error the block raises."""
    try:
        yield
    except HistodistillError as error:
        if not row.place:
            raise
        raise type(error)(f"{row.place}: {error}") from error


def _check_header(path: Path, header: list[str]) -> None:
    for name in header:
        if name and name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, 1)
            hint = f": is {near[0]!r} meant?" if near else f"; known: {_listed()}."
            msg = (
                f"{path}: there is no column {name[:40]!r} in a table of sections{hint}"
            )
            raise InputError(msg)
    for name in ("he", "partner"):
        if header.count(name) != 1:
            msg = f"{path}: a table of sections has one column {name!r}: {_listed()}."
            raise InputError(msg)


def _listed() -> str:
    return ", ".join(COLUMNS)


@dataclass(frozen=True, slots=True)
class _Row:
    """The fields of a row, read one by one."""

    where: str
    home: Path
    fields: dict[str, str]

    def files(self, said: SectionFiles) -> SectionFiles:
        """Return the section."""
        he, partner = self._path("he"), self._path("partner")
        if he is None or partner is None:
            msg = f"{self.where}: names no {'H&E' if he is None else 'partner'}."
            raise InputError(msg)
        return replace(
            said,
            he=he,
            partner=partner,
            mpp=self._number("mpp") or said.mpp,
            partner_mpp=self._number("partner_mpp") or said.partner_mpp,
            image=self._text("image") or said.image,
            partner_image=self._text("partner_image") or said.partner_image,
            rgb=self._yes("rgb", unsaid=said.rgb),
            sort=self._choice("as", PartnerSort) or said.sort,
            unlabelled=self._choice("unlabelled", Unlabelled) or said.unlabelled,
            wish=self._wish(said.wish),
            stains=self._stains() or said.stains,
            alignment=self._alignment(said.alignment),
            relation=self._choice("relation", SectionRelation) or said.relation,
            approved_by=self._text("approved_by") or said.approved_by,
            case=self._text("case"),
        )

    def _wish(self, said: SpotWish) -> SpotWish:
        most = self._number("most_genes")
        if most is not None and not most.is_integer():
            msg = f"{self.where}: most_genes is {most:g}, not a whole number."
            raise InputError(msg)
        genes = self._text("genes")
        try:
            return said.choosing(
                library=self._text("library"),
                genes=named_genes(genes, self.home) if genes else (),
                score=self._text("gene_score"),
                most_genes=None if most is None else int(most),
            )
        except InputError as error:
            msg = f"{self.where}: {error}"
            raise InputError(msg) from error

    def _stains(self) -> StainVectors | None:
        text = self._text("stain_vectors")
        values = [value for value in map(number, text.split()) if value is not None]
        if text and not len(values) == len(text.split()) == 6:
            msg = (
                f"{self.where}: stain_vectors is {text[:40]!r}, not six numbers: red, "
                "green and blue of haematoxylin, then those of the marker."
            )
            raise InputError(msg)
        return vectors_of(values) if text else None

    def _alignment(self, said: AlignmentFiles) -> AlignmentFiles:
        here, there = self._path("landmarks"), self._path("partner_landmarks")
        if (here is None) != (there is None):
            msg = (
                f"{self.where}: names landmarks of one image only: fill in landmarks "
                "and partner_landmarks, or landmark_pairs for a file that holds both."
            )
            raise InputError(msg)
        return AlignmentFiles(
            transform=self._path("transform"),
            landmarks=None if here is None or there is None else (here, there),
            landmark_pairs=self._path("landmark_pairs"),
            in_register=self._yes("in_register", unsaid=said.in_register),
            kind=self._kind() or said.kind,
            transform_unit=self._choice("transform_unit", PointUnit)
            or said.transform_unit,
            landmark_unit=self._choice("landmark_unit", PointUnit)
            or said.landmark_unit,
            fixed=self._choice("fixed", FixedImage) or said.fixed,
        )

    def _text(self, name: str) -> str:
        return self.fields.get(name, "")

    def _path(self, name: str) -> Path | None:
        text = self._text(name)
        return self.home / text if text else None

    def _number(self, name: str) -> float | None:
        text = self._text(name)
        value = number(text) if text else None
        if text and (value is None or value <= 0):
            msg = f"{self.where}: {name} is {text[:40]!r}, not a number above 0."
            raise InputError(msg)
        return value

    def _yes(self, name: str, *, unsaid: bool) -> bool:
        text = self._text(name).lower()
        if text not in _YES | _NO:
            msg = f"{self.where}: {name} is yes or no, not {text[:40]!r}."
            raise InputError(msg)
        return text in _YES if text else unsaid

    def _kind(self) -> RegistrationKind | None:
        text = self._text("kind").lower()
        for kind in KINDS:
            if text == kind:
                return kind
        if text:
            msg = f"{self.where}: kind is one of {', '.join(KINDS)}, not {text[:40]!r}."
            raise InputError(msg)
        return None

    def _choice(self, name: str, choices: type[_Chosen]) -> _Chosen | None:
        text = self._text(name).lower()
        for choice in choices:
            if text == choice.value:
                return choice
        if text:
            known = ", ".join(str(choice.value) for choice in choices)
            msg = f"{self.where}: {name} is one of {known}, not {text[:40]!r}."
            raise InputError(msg)
        return None
