"""What is wrong with a file of settings, in words: the likeliest mistake first.

A misspelt key makes two errors, one for the unknown key and one for the key that is now
missing. Only the first helps.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

LEAST_ALIKE = 0.75
"""Likeness (``difflib``) from which a known field is taken for the one that was meant.
"""

MOST_LISTED = 12
"""Known fields listed in a message; a table with more is not listed."""


def first_fault(schema: type[BaseModel], error: ValidationError, whole: str) -> str:
    """Return the field that is most likely the mistake, and what is wrong with it.

    Unknown fields come first, and among them one that resembles a known field.

    Parameters
    ----------
    schema : type
        The pydantic model that refused.
    error : ValidationError
        Its error.
    whole : str
        Name of the content, for a fault of no single field.

    Returns
    -------
    str
        As in ``"schedule.stepz: there is no such field; did you mean 'steps'?"``.
    """
    faults = error.errors()
    unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
    if not unknown:
        said = faults[0]["msg"].removeprefix("Value error, ")
        return f"{_name(faults[0]['loc']) or whole}: {said}."
    known = [_fields(schema, fault["loc"]) for fault in unknown]
    nearest = [
        _nearest(fault, names) for fault, names in zip(unknown, known, strict=True)
    ]
    first = next((k for k, near in enumerate(nearest) if near), 0)
    field = f"{_name(unknown[first]['loc'])}: there is no such field"
    if nearest[first]:
        return f"{field}; did you mean {nearest[first]!r}?"
    if 0 < len(known[first]) <= MOST_LISTED:
        return f"{field}; known here: {', '.join(known[first])}."
    return f"{field}; leave it out."


def _name(place: Sequence[int | str]) -> str:
    return ".".join(map(str, place))


def _nearest(fault: ErrorDetails, known: Sequence[str]) -> str:
    return next(
        iter(get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=LEAST_ALIKE)),
        "",
    )


def _fields(schema: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the fields of the table that holds the last part of a place."""
    models = [schema]
    for step in place[:-1]:
        inner = [
            model
            for outer in models
            if step in outer.model_fields
            for model in _models(outer.model_fields[str(step)].annotation)
        ]
        models = inner or models  # a place in a list or a union has no field
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a type of a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _models(part)
