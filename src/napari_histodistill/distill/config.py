"""What a student is made of: one frozen schema is validation, file and help text."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_histodistill.errors import InputError
from napari_histodistill.students.spec import ClassSpec, Name


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSource(_Frozen):
    """Where the tiles are and whose they are.

    Attributes
    ----------
    folder : str
        A tile folder, relative to the recipe's file; whoever runs the recipe may name
        another place.
    description, licence, attribution : str
        For the model card: a student carries them wherever it goes.
    """

    folder: Annotated[str, Field(min_length=1)]
    description: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    attribution: Annotated[str, Field(min_length=1)]


class DistillConfig(_Frozen):
    """A recipe.

    Attributes
    ----------
    arm : {"frozen"}
        ``frozen``: the encoder stays as it is, a head is fitted on labelled tiles.
    student : str
        The student to start from: a bundled name, or a folder relative to the recipe.
    name, title, description, licence : str
        Of the student that is made.
    mpp : float
        µm per pixel of the tiles.
    mpp_source : {"stated", "estimated"}
        Whether the data say so, or somebody measured cells and crypts.
    classes : tuple of ClassSpec
        Exactly the labels of the tiles, in the order of legends, with colours.
    seed : int
        Of the folds in which strength and temperature are chosen.
    data : DataSource
        What it learns from.
    """

    arm: Literal["frozen"] = "frozen"
    student: str = "imagenet-lite0"
    name: Name
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    licence: Annotated[str, Field(min_length=1)]
    mpp: Annotated[float, Field(gt=0.01, le=100, allow_inf_nan=False)]
    mpp_source: Literal["stated", "estimated"] = "stated"
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2, max_length=254)]
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSource

    @model_validator(mode="after")
    def _classes_differ(self) -> DistillConfig:
        if len({c.name for c in self.classes}) != len(self.classes):
            msg = "two classes have the same name"
            raise ValueError(msg)
        return self


def read_config(path: str | Path) -> DistillConfig:
    """Read and check a recipe.

    Raises
    ------
    InputError
        Naming the file and the field that cannot be used.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path}: the recipe cannot be opened ({error.strerror})."
        raise InputError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not a text file; a recipe is TOML."
        raise InputError(msg) from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"{path} cannot be read as TOML ({error})."
        raise InputError(msg) from error
    try:
        return DistillConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the recipe"
        msg = f"{path}: {field}: {first['msg']}."
        raise InputError(msg) from error
