"""Settings as they are being changed by hand, starting from a preset. No window."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_histodistill.distill.pairs.enlarging import why_unlike_start
from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.form import (
    Field,
    FieldGroup,
    FieldPath,
    describe,
    read,
    text_of,
    value_at,
)
from napari_histodistill.errors import HistodistillError, InputError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

WHOLE: FieldPath = ()
"""Key of problems that belong to no single field."""

Texts = Mapping[FieldPath, str]


@dataclass(frozen=True, slots=True)
class Draft:
    """A preset's recipe and what a person typed over it.

    Attributes
    ----------
    base : DistillConfig
        Of the preset.
    typed : mapping of path to str
        As it stands in the form, only where it differs from the preset.
    pairs : int or None
        How many there are to train on: no batch may be larger.
    """

    base: DistillConfig
    typed: Texts = field(default_factory=lambda: MappingProxyType({}))
    pairs: int | None = None

    @property
    def form(self) -> FieldGroup:
        """The form, from the recipe's schema."""
        return describe(self.base)

    @property
    def changed(self) -> frozenset[FieldPath]:
        """Paths of the settings that differ from the preset."""
        return frozenset(self._own_typed())

    def text(self, asked: Field) -> str:
        """Return what stands in a field."""
        own = self.typed.get(asked.path)
        return text_of(asked, value_at(self.base, asked.path)) if own is None else own

    def type(self, asked: Field, text: str) -> Draft:
        """Return the draft with this in a field; the preset's value is no change."""
        kept = {k: v for k, v in self.typed.items() if k != asked.path}
        same = False
        with contextlib.suppress(InputError):
            same = read(asked, text) == value_at(self.base, asked.path)
        return replace(self, typed=kept if same else kept | {asked.path: text})

    def reset(self, path: FieldPath | None = None) -> Draft:
        """Return the draft with one field, or all, as in the preset."""
        kept = {k: v for k, v in self.typed.items() if path is not None and k != path}
        return replace(self, typed=kept)

    def problems(self) -> dict[FieldPath, str]:
        """Return one sentence for every field that cannot be used; empty if all can.

        What is wrong with the whole stands under :data:`WHOLE`.
        """
        return self._tried()[1]

    def config(self) -> DistillConfig:
        """Return the recipe.

        Raises
        ------
        InputError
            Naming the first field that cannot be used.
        """
        config, problems = self._tried()
        if config is None or problems:
            titles = {f.path: f.title for f in self.form.all_fields()}
            path, said = next(iter(problems.items()))
            msg = f"{titles[path]}: {said}" if path in titles else said
            raise InputError(msg)
        return config

    def _own_typed(self) -> dict[FieldPath, str]:
        """Return what was typed into fields that this preset and its layers have."""
        known = {f.path for f in self.form.all_fields()}
        return {k: v for k, v in self.typed.items() if k in known}

    def _tried(self) -> tuple[DistillConfig | None, dict[FieldPath, str]]:
        fields = {f.path: f for f in self.form.all_fields()}
        content: Any = self.base.model_dump()
        problems: dict[FieldPath, str] = {}
        for path, text in self._own_typed().items():
            try:
                _put(content, path, read(fields[path], text))
            except InputError as error:
                problems[path] = str(error)
        try:
            config = DistillConfig.model_validate(content)
        except ValidationError as error:
            for one in error.errors():
                problems.setdefault(_place(one["loc"], fields), _in_words(one))
            return None, problems
        batch = ("schedule", "batch")
        if self.pairs is not None and config.schedule.batch > self.pairs:
            problems[batch] = (
                f"There are {self.pairs:,} pairs to train on: a batch of "
                f"{config.schedule.batch:,} does not fit."
            )
        return config, problems


def say_changes(count: int) -> str:
    """Return how many settings differ from the preset, in words."""
    return {0: "Nothing changed", 1: "1 setting changed"}.get(
        count, f"{count} settings changed"
    )


def say_group(changed: int, wrong: int) -> str:
    """Return what is inside a folded group of settings; empty if it is the preset's."""
    words = f"{say_changes(changed)}." if changed else ""
    return f"{words} ▲ {wrong} cannot be used." if wrong else words


def _put(content: Any, path: FieldPath, value: Any) -> None:
    for step in path[:-1]:
        content = content[step]
    content[path[-1]] = value


def _place(
    where: tuple[int | str, ...], fields: Mapping[FieldPath, Field]
) -> FieldPath:
    """Return the field that an error belongs to: pydantic may point inside of it."""
    for length in range(len(where), 0, -1):
        if where[:length] in fields:
            return where[:length]
    return WHOLE


_COMPARED = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def _in_words(error: ErrorDetails) -> str:
    """Return pydantic's complaint as a sentence for people."""
    if error["type"] in _COMPARED:
        key, words = _COMPARED[error["type"]]
        return f"It must be {words} {error['ctx'][key]:g}."
    if error["type"] == "finite_number":
        return "It must be a finite number."
    if error["type"] in {"string_too_short", "too_short"}:
        return "It must not be empty."
    if error["type"] == "string_pattern_mismatch":
        return f"{error['input']!r} has characters that a name cannot have."
    said = error["msg"].removeprefix("Value error, ")
    return said[:1].upper() + said[1:] + "."


def say_start(draft: Draft) -> str:
    """Return what is likely wrong with the start of a training; empty if nothing is."""
    if draft.problems():
        return ""  # which are said, too
    try:
        return why_unlike_start(draft.config(), Path())
    except HistodistillError as error:
        return str(error)
