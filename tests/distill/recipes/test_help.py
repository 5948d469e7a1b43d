"""Help texts of settings are the docstrings under the fields, and outlive -OO."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from pydantic import BaseModel

from napari_histodistill.distill.experiments.config import ExperimentConfig
from napari_histodistill.distill.recipes import config
from napari_histodistill.distill.recipes.config import DistillConfig, FrozenConfig
from napari_histodistill.distill.recipes.form import describe, field_help

CONTENT = {
    "arm": "unprivileged",
    "name": "small",
    "title": "Small",
    "licence": "CC0-1.0",
    "mpp": 0.5,
    "data": {
        "folder": "tiles",
        "description": "Tiles",
        "licence": "CC0-1.0",
        "attribution": "Nobody",
    },
    "sparse": {"encoder": {"backbone": "resnet18"}, "tile_px": 64, "input_px": 64},
    "schedule": {"steps": 10},
}


def models(*roots: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every model that a recipe may hold, found through the fields' annotations."""
    found: dict[str, type[BaseModel]] = {}

    def walk(annotation: object) -> None:
        is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        if is_model and annotation.__name__ not in found:
            found[annotation.__name__] = annotation
            for info in annotation.model_fields.values():
                walk(info.annotation)
        for inside in getattr(annotation, "__args__", ()):
            walk(inside)

    for root in roots:
        walk(root)
    return found


def test_every_field_of_every_settings_model_has_its_own_help():
    found = models(FrozenConfig, DistillConfig, ExperimentConfig)
    assert len(found) == 18, "a table of a recipe is not reached"
    for name, model in found.items():
        for field, info in model.model_fields.items():
            words = field_help(info)
            assert words, f"{name}.{field} has no docstring under it"
            assert words[0].isupper() or info.description.startswith(
                ("``", "µ", "λ", "τ")
            )
            assert words.endswith("."), f"{name}.{field}: {words}"


SCRIPT = """
import json
from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.form import describe
form = describe(DistillConfig.model_validate(json.loads(input())))
helps = {".".join(map(str, f.path)): f.help for f in form.all_fields()}
print(json.dumps([describe.__doc__, helps, [g.help for g in form.groups]]))
"""


def test_help_survives_python_that_drops_docstrings():
    def helps(*options: str) -> tuple[object, ...]:
        done = subprocess.run(
            [sys.executable, *options, "-c", SCRIPT],
            input=json.dumps(CONTENT),
            capture_output=True,
            text=True,
            check=True,
        )
        return tuple(json.loads(done.stdout))

    plain, stripped = helps(), helps("-OO")
    assert plain[0]
    assert stripped[0] is None, "-OO dropped no docstrings: this proves nothing"
    assert stripped[1:] == plain[1:]
    assert all(stripped[1].values())
    assert all(stripped[2])


def test_without_source_a_form_has_no_help_and_no_error(monkeypatch):
    """As in a program that was frozen into one file."""
    name = "frozen_recipe_config"
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    text = Path(config.__file__).read_text(encoding="utf-8")
    exec(compile(text, "<frozen>", "exec"), module.__dict__)
    form = describe(module.DistillConfig.model_validate(CONTENT))
    fields = [f for f in form.all_fields() if f.path[0] == "schedule"]
    assert fields
    assert {f.help for f in fields} == {""}
    assert all(f.title for f in fields)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"pace": 1}])
def test_docstrings_under_fields_are_no_fields(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DistillConfig.model_validate({**CONTENT, "schedule": {"steps": 10, **bad}})
