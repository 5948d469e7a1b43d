"""TOML files: read with care, validated against a schema, written back."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from napari_histodistill.distill.recipes.config import Frozen
from napari_histodistill.errors import InputError
from napari_histodistill.students.spec_file import first_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari_histodistill.distill.recipes.config import DistillConfig

Config = TypeVar("Config", bound=BaseModel)

MAX_CHARACTERS = 2**20
MAX_DOTS = 100
"""Most dots in one word: no sensible key has so many parts."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return a recipe's content, unchecked.

    Raises
    ------
    InputError
        If it cannot be opened or is not TOML.
    """
    try:
        kind = Path(path).stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            msg = f"{path}: this is no file but a device or a pipe; copy it to a file."
            raise InputError(msg)
        with Path(path).open(encoding="utf-8-sig") as file:  # as Notepad writes
            text = file.read(MAX_CHARACTERS + 1)
        # tomllib's time grows with the square of the number of a key's parts.
        if len(text) > MAX_CHARACTERS or max(_dots(text), default=0) > MAX_DOTS:
            msg = f"{path} is too large or too deeply nested for a recipe."
            raise InputError(msg)
        return tomllib.loads(text)
    except OSError as error:
        msg = f"{path}: the recipe cannot be opened ({error.strerror})."
        raise InputError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not a text file; a recipe is TOML."
        raise InputError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"{path} cannot be read as TOML ({error})."
        raise InputError(msg) from error


def _dots(text: str) -> Iterator[int]:
    """Yield the number of dots in every word; a dotted key counts as a word."""
    together = re.sub(r"[ \t]*\.[ \t]*", ".", text)
    return (word.count(".") for word in re.split(r"[\s,=\[\]{}]+", together))


def validated(schema: type[Config], content: dict[str, Any], where: str) -> Config:
    """Return the content as a schema's value.

    Parameters
    ----------
    schema : type
        A frozen pydantic model.
    content : dict
        Plain values.
    where : str
        Beginning of the message: the file, or a part of it.

    Raises
    ------
    InputError
        Naming a field that cannot be used: an unknown one first, with the known one
        that it resembles.
    """
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        msg = f"{where}: {first_fault(schema, error, 'the recipe')}"
        raise InputError(msg) from error


def recipe_text(
    config: DistillConfig, *, without: Mapping[str, Any] | None = None
) -> str:
    """Return a recipe as TOML that ``read_recipe`` reads back to an equal value.

    Parameters
    ----------
    config : DistillConfig
        The recipe.
    without : mapping, optional
        Settings to leave out, as :func:`later_at_default` returns them.
    """
    lines: list[str] = []
    table = config.model_dump(
        mode="json", exclude_none=True, exclude=dict(without or {})
    )
    _write_table(lines, (), table)
    return "\n".join(lines).strip() + "\n"


def later_at_default(model: Frozen) -> dict[str, Any]:
    """Return the settings that earlier versions did not know, where they are defaults.

    Without them, a recipe reads as an earlier version would have written it.

    Parameters
    ----------
    model : Frozen
        A recipe, or a table of one.

    Returns
    -------
    dict
        As pydantic takes it for ``exclude``: fields, or tables and rows with fields.
    """
    found: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if name in type(model).LATER and value == info.default:
            found[name] = True
        elif isinstance(value, Frozen):
            found[name] = later_at_default(value)
        elif isinstance(value, tuple):
            tables = {k: row for k, row in enumerate(value) if isinstance(row, Frozen)}
            rows = {k: later_at_default(row) for k, row in tables.items()}
            found[name] = {k: row for k, row in rows.items() if row}
    return {k: v for k, v in found.items() if v}


def _write_table(
    lines: list[str], path: tuple[str, ...], table: dict[str, Any]
) -> None:
    """Append a table: its values first, then the tables inside it, as TOML requires."""
    nested = {k: v for k, v in table.items() if isinstance(v, dict)}
    rows = {k: v for k, v in table.items() if _is_rows(v)}
    for key, value in table.items():
        if key not in nested and key not in rows:
            lines.append(f"{toml_key(key)} = {toml_value(value)}")
    for key, value in nested.items():
        lines += ["", f"[{'.'.join(map(toml_key, (*path, key)))}]"]
        _write_table(lines, (*path, key), value)
    for key, tables in rows.items():
        for one in tables:
            lines += ["", f"[[{'.'.join(map(toml_key, (*path, key)))}]]"]
            _write_table(lines, (*path, key), one)


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def toml_key(key: str) -> str:
    """Return a key as TOML, in quotes where it needs them."""
    return key if _BARE.fullmatch(key) else toml_value(key)


def toml_value(value: object) -> str:
    """Return a plain value (no table) as TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    # JSON's strings, whole numbers and booleans are TOML's, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
