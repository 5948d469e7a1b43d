"""Tables of text: encoding, separator and decimal mark are recognised, pandas reads.

What is ambiguous is refused: ``1,234`` may be a thousand or a bit more than 1.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.spots.spot_columns import first_line, position_columns
from napari_histodistill.errors import InputError
from napari_histodistill.files import is_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

MOST_BYTES = 2**29
"""Of one table, unpacked: half a GB."""

MOST_FIELDS = 150_000_000

POSITIONS_ALONE = (
    "{} holds Space Ranger's positions without counts: choose "
    "filtered_feature_bc_matrix.h5 beside the folder spatial, or the folder that holds "
    "both."
)

_SEPARATORS = (",", ";", "\t", "|", " ")
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
_DECIMAL_POINT = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?")
_MAYBE_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
_POINTS_IN_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")
_SAMPLE = 200


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """A table as it was written.

    Attributes
    ----------
    names : tuple of str
        Of the columns; empty for a column without one.
    columns : tuple of ndarray
        Numbers (float64, empty places NaN), or texts (object, empty places "").
    """

    names: tuple[str, ...]
    columns: tuple[npt.NDArray[Any], ...]

    def is_numeric(self, column: int) -> bool:
        """Whether a column holds numbers only."""
        return self.columns[column].dtype.kind == "f"

    def words(self, column: int) -> list[str]:
        """Return a column as texts; empty places are empty."""
        found = self.columns[column]
        if self.is_numeric(column):
            # A number of a cell beyond a million keeps all of its digits.
            return ["" if np.isnan(x) else f"{x:.15g}" for x in found]
        return [str(x) for x in found]


def read_text(path: Path, header: Sequence[str] = ()) -> TextTable:
    """Read a table of text.

    Parameters
    ----------
    path : Path
        A plain file, maybe packed with gzip.
    header : sequence of str
        Names for a table that may come without a header; empty where there is one.

    Raises
    ------
    InputError
        If it is not a table, its rows are not of one length, or names occur twice.
    """
    try:
        import pandas as pd
    except ImportError as error:
        msg = (
            f"{path.name}: reading tables needs pandas: install it with "
            'pip install "napari-histodistill[spatial]".'
        )
        raise InputError(msg) from error
    try:
        text = _without_comments(_text_of(path))
        separator = _separator(text)
        if not text.strip():
            raise ValueError("it is empty")
        names, start = _header(path.name, text, separator, header)
        names = _checked(path.name, text, separator, names, start=start)
        decimal = "," if _has_decimal_commas(path.name, text, separator) else "."
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            skiprows=start,
            names=range(len(names)),
            index_col=False,
            decimal=decimal,
            skipinitialspace=True,
            low_memory=False,
            na_values=[""],
        )
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        msg = (
            f"{path.name} cannot be read as a table with a header "
            f"({first_line(error)})."
        )
        raise InputError(msg) from error
    frame = frame.dropna(how="all")
    columns = tuple(_column(frame[k], decimal) for k in range(len(names)))
    return TextTable(tuple(names), columns)


def _text_of(path: Path) -> str:
    if not is_plain(path):
        msg = f"{path.name} is a link or not a plain file: choose the file itself."
        raise InputError(msg)
    content = b""
    if path.stat().st_size <= MOST_BYTES:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(MOST_BYTES + 1)
    if not content or len(content) > MOST_BYTES:
        why = "larger than half a GB: write it as .h5ad" if content else "empty"
        if path.stat().st_size > MOST_BYTES:
            why = "larger than half a GB: write it as .h5ad"
        msg = f"{path.name} cannot be read as a table: it is {why}."
        raise InputError(msg)
    text = _decoded(content)
    if "\0" in text:
        msg = f"{path.name} cannot be read as a table: it is not a file of text."
        raise InputError(msg)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding)
    head = content[:4096]
    # UTF-16 without its mark: every other byte of plain letters is 0.
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) > 3 and head[first::2].count(0) > 0.4 * len(head) / 2:
            return content.decode(encoding)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # as older programs of Windows write µ


def _without_comments(text: str) -> str:
    """Leave out lines of comments and a first line that names the separator."""
    text = text.lstrip("\n")
    if re.match(r'"?sep=."?\n', text):
        text = text.split("\n", 1)[1]
    if not text.startswith("#") and "\n#" not in text:
        return text
    lines = text.split("\n")
    first = next((k for k, line in enumerate(lines) if not line.startswith("#")), 0)
    if first and not _names_positions(lines[first]):
        # The header itself, as some tools write it.
        lines[first - 1] = lines[first - 1].lstrip("# ")
    return "\n".join(line for line in lines if not line.startswith("#"))


def _names_positions(line: str) -> bool:
    fields = re.split(r"[,;\t| ]", line)
    return position_columns([f.strip().strip('"') for f in fields]) is not None


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    lines = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    return (row for row in lines if row)


def _separator(text: str) -> str:
    """Return the separator that gives the most columns, in every row alike."""
    best, most = ",", (False, 1)
    head = "\n".join(text.split("\n", 30)[:30])
    for separator in _SEPARATORS:
        try:
            rows = list(_rows(head, separator))[:20]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        alike = all(len(row) in (width, width + 1) for row in rows)
        # Spaces stand in names, too: only where nothing else separates.
        if width > 1 and (separator != " " or most[1] == 1):
            best, most = max((best, most), (separator, (alike, width)), key=_second)
    return best


def _second(pair: tuple[str, tuple[bool, int]]) -> tuple[bool, int]:
    return pair[1]


def _header(
    name: str, text: str, separator: str, known: Sequence[str]
) -> tuple[list[str], int]:
    """Return the names of the columns, and how many lines they take."""
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    names = next((row for row in reader if row), [])
    names = [n.strip() for n in names]
    numbers = sum(bool(_NUMBER.fullmatch(n.replace(",", "."))) for n in names)
    headless = position_columns(names) is None and numbers > len(names) / 2
    if not headless:
        return names, reader.line_num
    if len(names) == len(known):
        return list(known), 0
    if _are_positions(names):
        raise InputError(POSITIONS_ALONE.format(name))
    msg = (
        f"{name}: there is no header: the first row has to name the columns, such as "
        "barcode, x, y and genes."
    )
    raise InputError(msg)


def _are_positions(row: Sequence[str]) -> bool:
    return (
        len(row) == 6
        and row[1] in ("0", "1")
        and all(_NUMBER.fullmatch(field) for field in row[2:])
    )


def _checked(
    name: str, text: str, separator: str, names: list[str], *, start: int
) -> list[str]:
    """Return names for all columns; refuse rows of another length, and equal names."""
    widths = _widths(text, separator, start)
    if len(widths) * len(names) > MOST_FIELDS:
        msg = (
            f"{name}: {len(widths):,} rows × {len(names):,} columns are too many for "
            "text: write it as .h5ad."
        )
        raise InputError(msg)
    if widths and all(width == len(names) + 1 for width in widths):
        # R writes names of rows without a name for their column; others end each row
        # with a separator.
        rows = list(islice(_rows(text, separator), start + 20))
        ends = all(not row[-1] for row in rows[1:])
        names = [*names, ""] if ends else ["", *names]
    uneven = next((k for k, w in enumerate(widths) if w != len(names)), None)
    if uneven is not None:
        msg = (
            f"{name}: row {uneven + 1} has {widths[uneven]} fields, the header "
            f"{len(names)}."
        )
        raise InputError(msg)
    twice = [n for n, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        msg = f"{name}: two columns are called {twice[0][:40]!r}: rename one."
        raise InputError(msg)
    return names


def _widths(text: str, separator: str, start: int) -> list[int]:
    """Return the number of fields of every row below the header."""
    if '"' in text or separator == " ":
        body = text.split("\n", start)[start] if start else text
        return [len(row) for row in _rows(body, separator)]
    lines = text.split("\n")[start:]
    return [line.count(separator) + 1 for line in lines if line.strip(" ")]


def _has_decimal_commas(name: str, text: str, separator: str) -> bool:
    if separator == ",":
        return False
    fields = [
        field.strip()
        for row in islice(_rows(text, separator), _SAMPLE)
        for field in row
        if "," in field or "." in field
    ]
    commas = [f for f in fields if _DECIMAL_COMMA.fullmatch(f)]
    points = [f for f in fields if _DECIMAL_POINT.fullmatch(f)]
    if any(re.search(r"\.\d{3},\d", f) for f in fields):
        return True
    _refuse_points_between_thousands(name, text, separator)
    if not commas or points:
        return False
    if all(_MAYBE_THOUSANDS.fullmatch(f) for f in commas):
        msg = (
            f"{name}: {commas[0]!r} may mean {commas[0].replace(',', '.')} or "
            f"{commas[0].replace(',', '')}: write decimals with a point, and thousands "
            "without a comma."
        )
        raise InputError(msg)
    return True


def _refuse_points_between_thousands(name: str, text: str, separator: str) -> None:
    """Refuse a column of whole numbers in which all points may part thousands.

    Programs that write decimals write them in every field, or drop zeros at their end:
    beside 800, 1.500 is not one and a half.
    """
    rows = [*islice(_rows(text, separator), 1, _SAMPLE)]
    rows += [*_rows("\n".join(text.rsplit("\n", _SAMPLE)[1:]), separator)]
    for fields in zip_longest(*rows, fillvalue=""):
        words = [field.strip() for field in fields]
        points = [w for w in words if "." in w]
        if not points or not all(map(_POINTS_IN_THOUSANDS.fullmatch, points)):
            continue
        whole = any(re.fullmatch(r"[-+]?\d+", w) for w in words)
        if whole and any(w.endswith("0") for w in points):
            odd = next(w for w in points if w.endswith("0"))
            msg = (
                f"{name}: {odd!r} may mean {odd.replace('.', '')} or {float(odd):g}: "
                "write thousands without a point."
            )
            raise InputError(msg)


def _column(found: Any, decimal: str) -> npt.NDArray[Any]:
    """Return a column as numbers, if all its fields are."""
    if found.dtype.kind in "iuf":
        return np.asarray(found, np.float64)
    words = np.array(["" if x != x else str(x).strip() for x in found], object)
    filled = [w for w in words if w]
    group = "." if decimal == "," else ","
    grouped = re.compile(
        rf"[-+]?\d{{1,3}}([{re.escape(group)} '\u00a0\u202f]\d{{3}})+"
        rf"({re.escape(decimal)}\d+)?"
    )
    plain = re.compile(rf"[-+]?\d+({re.escape(decimal)}\d+)?")
    if not filled or not all(
        grouped.fullmatch(w) or plain.fullmatch(w) for w in filled
    ):
        return words
    bare = [re.sub(rf"[{re.escape(group)} '\u00a0\u202f]", "", w) for w in words]
    return np.array([float(w.replace(decimal, ".") or "nan") for w in bare])
