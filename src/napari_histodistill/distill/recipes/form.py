"""The settings of a training as a form: names, help texts, kinds and bounds.

Everything comes from
:class:`~napari_histodistill.distill.recipes.config.DistillConfig`: a field that is
added there appears here without further work. A form shows text; :func:`read` and
:func:`text_of` are its two directions. No window is needed.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from napari_histodistill.distill.recipes.files import toml_key, toml_value
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic.fields import FieldInfo

    from napari_histodistill.distill.recipes.config import DistillConfig

FieldPath = tuple[str | int, ...]
"""Path of a value: names of fields, and indices into ``dense``."""

FieldKind = Literal[
    "switch", "choice", "whole", "number", "text", "wholes", "texts", "table"
]

LEFT_OUT = {
    "name": "decided with the run's folder",
    "mpp": "decided with the pairs",
    "mpp_source": "decided with the pairs",
    "source_px": "decided with the pairs",
    "classes": "decided with the layers",
    "data.folder": "decided with the pairs",
    "data.leave_out": "pairs of layers have no folds",
    "data.validate_on": "decided with the pairs",
    "data.labels_from": "decided with the layers",
    "data.labelled": "only for labelled tiles",
    "data.positions": "pairs of layers know where they lie",
    "dense.column": "decided with the layers",
    "dense.kind": "decided with the layers",
    "labels": "only for labelled tiles",
    "surroundings": "a table that most recipes lack",
    "report": "names are asked for on purpose, in a recipe",
    "temperature": "only for labelled tiles",
    "objective.weight": "only for labelled tiles",
    "schedule.label_smoothing": "only for labelled tiles",
    "schedule.balance": "only for labelled tiles",
    "schedule.mixup": "only for labelled tiles",
}
"""Settings that the window's form does not show, with the reason."""

_WORDS = {"lr": "learning rate", "mpp": "µm/px"}
_UNITS = ("px", "um")
_PLAIN = re.compile(r"[^\s,\[\]\"']+( [^\s,\[\]\"']+)*")


@dataclass(frozen=True, slots=True)
class Field:
    """One setting.

    Attributes
    ----------
    path : tuple
        Path of the setting in the recipe.
    title, help : str
        Name and help text for the user.
    kind : str
        Kind of entry: ``switch`` (yes or no), ``choice``, ``whole`` and ``number``,
        ``text``, lists ``wholes`` and ``texts`` with commas, or ``table`` (``key =
        value`` pairs with commas).
    choices : tuple of str
        Values to choose from, for ``choice``.
    bounds : str
        Bounds in words; empty if there are none.
    optional : bool
        Whether it may be left empty.
    """

    path: FieldPath
    title: str
    help: str
    kind: FieldKind
    choices: tuple[str, ...] = ()
    bounds: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class FieldGroup:
    """Settings that belong together; a part of the form that folds.

    Attributes
    ----------
    path : tuple
        Path of its table in the recipe; empty for the recipe itself.
    title, help : str
        Name and help text for the user.
    fields : tuple of Field
        Settings of the group itself.
    groups : tuple of FieldGroup
        Groups for the tables inside it.
    """

    path: FieldPath
    title: str
    help: str
    fields: tuple[Field, ...]
    groups: tuple[FieldGroup, ...]

    def all_fields(self) -> Iterator[Field]:
        """Yield its settings and those of the groups inside it."""
        yield from self.fields
        for group in self.groups:
            yield from group.all_fields()


def describe(config: DistillConfig) -> FieldGroup:
    """Return the form of a recipe, with a group for each of its partners."""
    return _group(config, (), "Recipe", "")


def value_at(config: BaseModel, path: FieldPath) -> Any:
    """Return a setting's value."""
    found: Any = config
    for step in path:
        found = found[step] if isinstance(step, int) else getattr(found, step)
    return found


def text_of(field: Field, value: Any) -> str:
    """Return a value as a form shows it; :func:`read` is the way back."""
    if value is None:
        return ""
    if field.kind == "switch":
        return "yes" if value else "no"
    if field.kind == "wholes":
        return ", ".join(map(str, value))
    if field.kind == "texts":
        plain = all(_PLAIN.fullmatch(part) for part in value)
        return ", ".join(value) if plain else toml_value(list(value))
    if field.kind == "table":
        pairs = (f"{toml_key(k)} = {toml_value(_listed(v))}" for k, v in value.items())
        return ", ".join(pairs)
    return repr(value) if isinstance(value, float) else str(value)


def read(field: Field, text: str) -> Any:
    """Return an entry as a value; bounds are left to the schema.

    Raises
    ------
    InputError
        If it cannot be read: one sentence, without the field's name.
    """
    if field.optional and not text.strip():
        return None
    return _READERS[field.kind](text if field.kind == "text" else text.strip())


def field_help(info: FieldInfo) -> str:
    """Return a field's help text in one line, without the marks of code.

    It is the docstring under the field, which pydantic reads from the source text. It
    is empty where the source is missing, as in a program that was frozen.
    """
    return " ".join((info.description or "").split()).replace("``", "")


def title_of(name: str) -> str:
    """Return a field's name as the user sees it: ``tile_px`` is "Tile (px)"."""
    words = name.split("_")
    unit = f" ({words.pop()})" if len(words) > 1 and words[-1] in _UNITS else ""
    spoken = " ".join(_WORDS.get(word, word) for word in words)
    return spoken[:1].upper() + spoken[1:] + unit


def _group(model: BaseModel, path: FieldPath, title: str, help_: str) -> FieldGroup:
    fields: list[Field] = []
    groups: list[FieldGroup] = []
    for name, info in type(model).model_fields.items():
        here = (*path, name)
        if _dotted(here) in LEFT_OUT:
            continue
        value, words = getattr(model, name), field_help(info)
        if isinstance(value, BaseModel):
            groups.append(_group(value, here, title_of(name), words))
        elif name == "dense":
            groups += [
                _group(one, (*here, k), _partner_title(one, k), words)
                for k, one in enumerate(value)
            ]
        else:
            fields.append(_field(here, info, words))
    return FieldGroup(path, title, help_, tuple(fields), tuple(groups))


def _partner_title(dense: Any, place: int) -> str:
    return f"Partner {place + 1}: {dense.column or 'the same layer'}"


def _field(path: FieldPath, info: FieldInfo, words: str) -> Field:
    kind, choices, constraints, optional = _kind_of(info.annotation)
    return Field(
        path,
        title_of(str(path[-1])),
        words,
        kind,
        choices,
        _bounds([*constraints, *info.metadata]),
        optional,
    )


def _kind_of(annotation: Any) -> tuple[FieldKind, tuple[str, ...], list[Any], bool]:
    """Return kind, choices, constraints and whether None is allowed."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        kind, choices, constraints, _ = _kind_of(
            next(one for one in inside if one is not type(None))
        )
        return kind, choices, constraints, type(None) in inside
    if origin is Annotated:
        kind, choices, constraints, optional = _kind_of(inside[0])
        for extra in inside[1:]:
            constraints = [*constraints, *getattr(extra, "metadata", [extra])]
        return kind, choices, constraints, optional
    if origin is Literal:
        return "choice", tuple(map(str, inside)), [], False
    if origin is dict:
        return "table", (), [], False
    if origin is tuple:
        return (
            ("texts" if _kind_of(inside[0])[0] == "text" else "wholes"),
            (),
            [],
            False,
        )
    plain: dict[Any, FieldKind] = {
        bool: "switch",
        int: "whole",
        float: "number",
        str: "text",
    }
    return plain[annotation], (), [], False


def _bounds(constraints: list[Any]) -> str:
    """Return the constraints of annotated-types on a number in words."""
    found = {
        name: getattr(one, name)
        for one in constraints
        for name in ("ge", "gt", "le", "lt")
        if getattr(one, name, None) is not None
    }
    words = [
        f"{word} {_number_text(found[name])}"
        for name, word in (
            ("ge", "at least"),
            ("gt", "more than"),
            ("le", "at most"),
            ("lt", "less than"),
        )
        if name in found
    ]
    return ", ".join(words)


def _number_text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _dotted(path: FieldPath) -> str:
    return ".".join(step for step in path if isinstance(step, str))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        msg = (
            f"{text!r} is not a whole number." if text else "A whole number is missing."
        )
        raise InputError(msg) from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        msg = f"{text!r} is not a number." if text else "A number is missing."
        raise InputError(msg) from None


def _texts(text: str) -> tuple[str, ...]:
    if not text.startswith("["):
        return tuple(_parts(text))
    found = _toml(f"x = {text}")["x"]
    return tuple(map(str, found)) if isinstance(found, list) else (text,)


def _table(text: str) -> dict[str, Any]:
    found: dict[str, Any] = _toml(f"x = {{{text}}}")["x"]
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        msg = "Write pairs like: channels = [32, 64], drop_rate = 0.1."
        raise InputError(msg) from None


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_READERS: dict[FieldKind, Callable[[str], Any]] = {
    "switch": lambda text: text == "yes",
    "choice": str,
    "whole": _whole,
    "number": _number,
    "text": str,
    "wholes": lambda text: tuple(map(_whole, _parts(text))),
    "texts": _texts,
    "table": _table,
}
