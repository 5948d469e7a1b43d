"""A recipe on disk becomes a frozen schema, or one clear sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from napari_histodistill.distill.experiments.config import ExperimentConfig
from napari_histodistill.distill.recipes.config import DistillConfig, FrozenConfig
from napari_histodistill.distill.recipes.files import read_toml, validated

if TYPE_CHECKING:
    from pathlib import Path

Recipe: TypeAlias = FrozenConfig | DistillConfig | ExperimentConfig


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Parameters
    ----------
    path : str or Path
        TOML. With a table ``[experiment]`` it is a whole table of runs; otherwise
        ``arm`` says what it is: ``"frozen"`` fits a head, the others train an encoder.

    Raises
    ------
    InputError
        Naming the file and the field that cannot be used.
    """
    content = read_toml(path)
    if "experiment" in content:
        return validated(ExperimentConfig, content, str(path))
    if content.get("arm", "frozen") == "frozen":
        return validated(FrozenConfig, content, str(path))
    return validated(DistillConfig, content, str(path))
