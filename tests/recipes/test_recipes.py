"""Every recipe in training/ is valid and runs on made-up tiles.

The tiles are small textures, one kind a class, dealt into four folds by case: enough to
see a recipe through to a student that loads and scores, not to learn pathology. Trained
recipes take two steps with small batches; the paper's own has a test with the command
line, and sizes that no runner of tests has.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.cli import main
from napari_histodistill.distill.experiments.config import ExperimentConfig
from napari_histodistill.distill.reading import read_recipe
from napari_histodistill.distill.recipes.config import FrozenConfig
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.students import load_student

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
RECIPES = {path.stem: read_recipe(path) for path in (ROOT / "training").glob("*.toml")}
FROZEN = sorted(k for k, r in RECIPES.items() if isinstance(r, FrozenConfig))
TABLES = {k: r for k, r in RECIPES.items() if isinstance(r, ExperimentConfig)}
VARIANTS = sorted((k, v.name) for k, r in TABLES.items() for v in r.variants)
CASES = 8
CLASSES = (
    *("normal", "polyp", "serrated_adenoma"),
    *("low_grade_in", "high_grade_in", "adenocarcinoma"),
)


@pytest.fixture
def histodistill(capfd) -> Callable[..., str]:
    """Return the command line, run here: what it printed, if it went well."""

    def run(*arguments: str) -> str:
        capfd.readouterr()
        code = main(list(arguments))
        said = capfd.readouterr()
        assert code == 0, said.err
        return said.out

    return run


def test_no_recipe_states_a_precision_that_some_machines_only_emulate():
    """On a CPU without bfloat16 such a recipe took ten times as long."""
    for name, recipe in RECIPES.items():
        if isinstance(recipe, ExperimentConfig):
            stated = {
                recipe.run(v.name, fold, 0).schedule.precision
                for v in recipe.variants
                for fold in recipe.experiment.folds[:1]
            }
        elif isinstance(recipe, FrozenConfig):
            continue
        else:
            stated = {recipe.schedule.precision}
        assert stated <= {"auto", "float32"}, name


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiles"
    rng = np.random.default_rng(5)
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "label", "case_id", "fold"])
        for k, name in enumerate(CLASSES):
            wave = np.sin(np.arange(224) * (0.05 + 0.15 * k))
            colour = np.array([200 - 20 * k, 90 + 15 * k, 150])
            mask = np.broadcast_to(wave[:, np.newaxis] > 0, (224, 224))
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}.png")
            for case in range(CASES):
                noise = rng.normal(scale=12, size=(224, 224, 3))
                pixels = colour + 40 * wave[:, np.newaxis, np.newaxis] + noise
                image = f"{name}-{case}.png"
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
                    folder / image
                )
                row = [image, f"{name}.png", name, f"case{case}", case % 4 + 1]
                table.writerow(row)
    return folder


def test_there_are_recipes():
    assert FROZEN
    assert VARIANTS


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_recipe_makes_a_student_that_scores(
    name, tiles, tmp_path, histodistill
):
    recipe = str(ROOT / "training" / f"{name}.toml")
    histodistill(
        "distill", recipe, "--data", str(tiles), "-o", str(tmp_path / "student")
    )
    scored = histodistill(
        *("evaluate", "--student", str(tmp_path / "student")),
        *("--tiles", str(tiles), "--json"),
    )
    score = json.loads(scored)
    assert score["n"] == CASES * len(CLASSES)
    # The same cases were fitted on: the score must be of refits out of fold.
    assert score["protocol"] == "probe"
    assert score["accuracy"] > 0.9


@pytest.mark.parametrize("name", TABLES)
def test_every_run_of_a_table_is_valid(name):
    recipe = RECIPES[name]
    table = recipe.experiment
    for variant in recipe.variants:
        for fold in (None,) if table.judged else table.folds:
            for seed in table.seeds:
                config = recipe.run(variant.name, fold, seed)
                assert config.data.leave_out == (() if fold is None else (fold,))
                assert config.schedule.keep == "last"
    design = recipe.design()
    if name in OTHER_CLASSES:
        assert (design.classes, design.groups) == (OTHER_CLASSES[name], ())
    else:
        assert design.classes == CLASSES
        assert design.groups == (0, 0, 0, 1, 1, 2)


LAYERS = ("granular", "mitral", "outer_plexiform", "glomerular", "olfactory_nerve")
OTHER_CLASSES = {
    "bulb-layers": LAYERS,
    "bulb-layers-long": LAYERS,
    "bulb-layers-imagenet": LAYERS,
    "bulb-expression": (),
    "idc-7": ("other", "invasive"),
    "idc-14": ("other", "invasive"),
}


@pytest.mark.parametrize("name", ["idc-7", "idc-14"])
def test_arms_that_are_compared_see_as_many_pairs(name):
    recipe = RECIPES[name]
    schedules = {"1": set(), "5": set()}
    arms = {"1": set(), "5": set()}
    for variant in recipe.variants:
        if variant.name == "untrained":
            continue
        arm, epochs = variant.name.rsplit("-", 1)
        config = recipe.run(variant.name, "1", 0)
        schedules[epochs].add(config.schedule.model_dump_json())
        dense = tuple(d.model_dump_json() for d in config.dense)
        arms[epochs].add((arm, config.arm, dense))
    assert {len(found) for found in schedules.values()} == {1}
    assert arms["1"] == arms["5"]


SEARCH = "ebhi-magnification-search"
CHOICES = "bundled-choices"
TWO_LENGTHS = {"idc-7", "idc-14"}


@pytest.mark.parametrize("name", sorted(set(TABLES) - {SEARCH, CHOICES} - TWO_LENGTHS))
def test_the_arms_of_a_table_share_student_steps_and_augmentation(name):
    recipe = RECIPES[name]
    trained = [v.name for v in recipe.variants if v.name != "untrained"]
    runs = [recipe.run(variant, None, 0) for variant in trained]
    assert len({(r.sparse.model_dump_json(), r.augmentation) for r in runs}) == 1
    alike = [r.schedule for r in runs]
    started = []
    for k, run in enumerate(runs):
        if any(d.encoder.start and not d.encoder.frozen for d in run.dense):
            # A dense branch that starts from trained weights has a rate of its own,
            # and the precision in which its convolutions are fast; so has its control.
            started.append(run.schedule.model_dump_json())
            own = alike[0].model_dump(include={"dense_lr_scale", "precision"})
            alike[k] = run.schedule.model_copy(update=own)
    assert len(set(started)) <= 1
    assert len({s.model_dump_json() for s in alike}) == 1


def test_the_search_tries_the_same_settings_with_and_without_the_partner():
    recipe = RECIPES[SEARCH]
    settings = {}
    for variant in recipe.variants:
        run = recipe.run(variant.name, "1", 0)
        assert run.schedule.batch * run.schedule.steps == 200 * 128
        arm, name = variant.name.split("-", 1)
        assert arm == run.arm
        settings[arm, name] = run.model_dump(exclude={"arm", "dense"})
    names = {name for _, name in settings}
    shared = names - {"colder", "denser"}
    assert len(shared) == 7
    for name in shared:
        assert settings["privileged", name] == settings["unprivileged", name]
    trials = recipe.experiment.chosen
    assert len(trials["privileged"]) == len(trials["unprivileged"]) == 8


# The others differ from the first table in sizes and settings alone, or do all at once.
TRAINED = [
    (name, variant)
    for name, variant in VARIANTS
    if not name.endswith(("-14", "-7", "-28", "-search", "-choices"))
    and name not in OTHER_CLASSES
]
TRAINED += [("ebhi-start-28", "dense"), (CHOICES, "all-three")]


@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_a_variant_trains_and_its_student_loads(
    name, variant, tiles, tmp_path, monkeypatch
):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    config = RECIPES[name].run(variant, "1", 0, steps=2)
    changes = {"batch": 12, "checkpoint_every": 2, "report_every": 1}
    config = config.model_copy(
        update={
            "schedule": config.schedule.model_copy(update=changes),
            "dense": tuple(
                d.model_copy(
                    update={
                        "frozen_views": min(d.frozen_views, 1),
                        "components": d.components and 8,
                    }
                )
                for d in config.dense
            ),
        }
    )
    start_run(config, tmp_path / "run", tiles, home=ROOT / "training")
    reports = list(train(tmp_path / "run", device="cpu"))
    assert reports[-1].kind == "finished"
    student = load_student(tmp_path / "run" / "student", device="cpu")
    assert student.spec.class_names == CLASSES
    assert student.spec.tile_um == pytest.approx(224)


def test_the_choices_for_the_bundled_student_differ_in_one_thing_each():
    recipe = RECIPES[CHOICES]
    runs = {v.name: recipe.run(v.name, "1", 0) for v in recipe.variants}
    full = RECIPES["bundled"].run("fine-tuned", "1", 0)
    parts = {"labels", "augmentation", "surroundings"}
    for run in runs.values():
        assert run.model_dump(exclude=parts) == runs["plain"].model_dump(exclude=parts)
        assert run.sparse.encoder == full.sparse.encoder
        assert run.schedule == full.schedule.model_copy(update={"steps": 300})
    assert runs["plain"].labels is None
    assert runs["plain"].surroundings is None
    around = runs["surroundings"].surroundings
    assert around == full.surroundings
    assert runs["turned"].surroundings == around.model_copy(update={"turned": True})
    both = runs["all-three"]
    assert both.augmentation == runs["strong-stain"].augmentation
    assert both.labels.prior == runs["prior-corrected"].labels.prior == 1
    assert both.labels.grades == runs["graded"].labels.grades


@pytest.fixture(scope="module")
def spots(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "spots"
    rng = np.random.default_rng(5)
    folder.mkdir()
    rows = [["image", "genes", "case_id", "fold"]]
    for k in range(64):
        name = f"s{k % 4}_{k // 16}x{k // 4 % 4}"
        pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        np.save(folder / f"{name}.npy", rng.random(60, np.float32))
        rows.append([f"{name}.png", f"{name}.npy", f"s{k % 4}", str(k % 4 // 2 + 1)])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


# What no other table has.
WITH_GENES = ("privileged", "triplet-nearby", "triplet-within")


@pytest.mark.parametrize("variant", WITH_GENES)
def test_a_student_of_genes_trains_and_loads(variant, spots, tmp_path):
    config = RECIPES["bulb-expression"].run(variant, "1", 0, steps=1)
    schedule = config.schedule.model_copy(update={"batch": 12})
    config = config.model_copy(update={"schedule": schedule})
    start_run(config, tmp_path / "run", spots, home=ROOT / "training")
    reports = list(train(tmp_path / "run", device="cpu", bare=True))
    assert reports[-1].kind == "finished"
    student = load_student(tmp_path / "run" / "student", device="cpu")
    assert student.spec.tile_um == pytest.approx(256)


PAIR = ("bulb-genes", "bulb-control")


def test_the_control_of_the_bundled_student_of_genes_differs_in_the_genes_alone():
    genes, control = (RECIPES[name] for name in PAIR)
    assert (genes.arm, control.arm) == ("triplet", "unprivileged")
    assert [d.kind for d in genes.dense] == ["expression"]
    own = {"arm", "dense", "name", "title", "description"}
    assert genes.model_dump(exclude=own) == control.model_dump(exclude=own)


def test_the_bundled_student_of_genes_is_the_one_of_the_table_but_for_its_width():
    genes, row = RECIPES["bulb-genes"], RECIPES["bulb-layers"].run("triplet", None, 0)
    for part in ("dense", "objective", "augmentation", "mpp", "source_px", "seed"):
        assert getattr(genes, part) == getattr(row, part)
    for field in ("steps", "batch", "lr", "warmup_share", "weight_decay", "keep"):
        assert getattr(genes.schedule, field) == getattr(row.schedule, field)
    # Recipes are read once for all tests here: only copies may be changed.
    sparse, theirs = (r.sparse.model_copy(deep=True) for r in (genes, row))
    widths, wider = (s.encoder.options.pop("channels") for s in (sparse, theirs))
    assert [8 * width for width in widths] == [5 * width for width in wider]
    assert sparse == theirs


@pytest.mark.parametrize("name", PAIR)
def test_a_bundled_student_of_the_bulb_trains_and_keeps_a_reference(
    name, spots, tmp_path
):
    config = RECIPES[name]
    short = {"steps": 2, "batch": 12, "report_every": 1, "checkpoint_every": 2}
    schedule = config.schedule.model_copy(update=short)
    config = config.model_copy(update={"schedule": schedule})
    start_run(config, tmp_path / "run", spots, home=ROOT / "training")
    reports = list(train(tmp_path / "run", device="cpu"))
    assert reports[-1].kind == "finished"
    student = load_student(tmp_path / "run" / "student", device="cpu")
    assert (student.name, student.head) == (name, None)
    assert student.trust is not None
    assert student.modes == ("tiles", "tokens")
