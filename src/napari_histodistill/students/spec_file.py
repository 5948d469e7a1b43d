"""Reading ``spec.json``, which may come from strangers: everything is checked.

What is wrong with a file of settings is said here for recipes, too: the likeliest
mistake first. A misspelt key makes two errors, one for the unknown key and one for the
key that is now missing, and only the first helps.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from napari_histodistill.errors import BundleError
from napari_histodistill.students.spec import FORMAT_VERSION, StudentSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

MAX_SPEC_BYTES = 2**20
LEAST_ALIKE = 0.75
"""Likeness (``difflib``) from which a known field is taken for the one that was meant.
"""

MOST_LISTED = 12
"""Known fields listed in a message; a table with more is not listed."""


def read_spec(path: Path) -> StudentSpec:
    """Read and check a student's ``spec.json``.

    Raises
    ------
    BundleError
        If it cannot be read, states something impossible, was changed, or is from a
        newer version.
    """
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            msg = f"{path} is larger than {MAX_SPEC_BYTES} bytes: not a student's spec."
            raise BundleError(msg)
        content = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_only_once
        )
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read as JSON ({error}): get the bundle again."
        raise BundleError(msg) from error
    _check_version(path, content)
    try:
        spec = StudentSpec.model_validate(content)
    except ValidationError as error:
        msg = f"{path}: {first_fault(StudentSpec, error, 'the spec')}"
        raise BundleError(msg) from error
    if spec.digest != spec.computed_digest():
        msg = (
            f"{path} was changed after it was saved (its digest does not match): get "
            "the bundle again, or save it again with save_student."
        )
        raise BundleError(msg)
    return spec


def _only_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse an object with a field twice: JSON readers do not agree on its value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        msg = f"the field {twice!r} occurs twice"
        raise ValueError(msg)
    return found


def _check_version(path: Path, content: object) -> None:
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        msg = f"{path}: format_version must be a whole number: not a student's spec."
        raise BundleError(msg)
    if version > FORMAT_VERSION:
        msg = (
            f"{path} was made by a newer version (format {version}, this one reads up "
            f"to {FORMAT_VERSION}): update napari-histodistill."
        )
        raise BundleError(msg)


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
