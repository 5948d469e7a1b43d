"""Training runs: what they leave on disk, how they end, and that they can go on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch

import napari_histodistill.distill.runs.checkpoints as checkpoints
import napari_histodistill.distill.runs.folder as folder_module
import napari_histodistill.distill.runs.run as run_module
import napari_histodistill.distill.training.trainer as trainer_module
from napari_histodistill.distill.pairs.batches import torch_seed
from napari_histodistill.distill.reading import read_recipe
from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.files import read_toml
from napari_histodistill.distill.runs.events import EVENTS, read_events
from napari_histodistill.distill.runs.folder import read_run, start_run
from napari_histodistill.distill.runs.run import precision_for, train, training_device
from napari_histodistill.distill.runs.watch import advice
from napari_histodistill.errors import (
    Cancelled,
    ComputeError,
    DeviceMemoryError,
    InputError,
)
from napari_histodistill.running import CancelToken
from napari_histodistill.students import load_student
from napari_histodistill.students.backends import stages
from napari_histodistill.students.student import DeviceChoice
from tests.distill.small_runs import TINY, small_config, write_textures


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


def run(config, folder, tiles, **options):
    start_run(config, folder, tiles)
    return list(train(folder, device="cpu", **options))


def fingerprint(folder: Path) -> dict[str, str]:
    """Everything a run is judged by, byte for byte."""
    files = [*(folder / "student").iterdir(), *(folder / "checkpoints").iterdir()]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def last_of(run: Path) -> Path:
    return run / "checkpoints" / checkpoints.LAST


def stop_after(folder, step):
    token = CancelToken()

    def follow():
        for report in train(folder, device="cpu", cancel=token):
            if report.kind == "step" and report.step == step:
                token.cancel()

    with pytest.raises(Cancelled):
        follow()


def test_a_training_reads_its_recipe_once(tiles, tmp_path, monkeypatch):
    start_run(small_config(schedule={"steps": 2}), tmp_path / "run", tiles)
    read = []

    def counted(path):
        read.append(Path(path).name)
        return read_toml(path)

    monkeypatch.setattr(folder_module, "read_toml", counted)
    list(train(tmp_path / "run", device="cpu"))
    assert (tmp_path / "run" / "report.html").is_file()
    assert read == ["config.toml"], "the report has no need to parse it again"


def test_what_follows_the_last_step_is_said(tiles, tmp_path, monkeypatch):
    """Comparing slides takes a minute or more of one core: nobody should wonder."""
    monkeypatch.setattr(stages, "_REPORTED", 16)
    monkeypatch.setattr(stages, "FEWEST_CASES", 4)
    reports = run(small_config(), tmp_path / "run", tiles)
    saving = [r.message for r in reports if r.kind == "saving"]
    assert saving[0] == "writing the encoder"
    assert "training pairs" in saving[1]
    assert [m for m in saving if "with: " in m] == [
        f"fitting what slides are compared with: {k} of 48 tiles" for k in (0, 16, 32)
    ]
    assert {r.step for r in reports if r.kind == "saving"} == {6}
    assert reports[-1].kind == "finished"
    events = read_events(tmp_path / "run")
    assert [e["message"] for e in events if e["kind"] == "saving"] == saving


@pytest.mark.parametrize("arm", ["unprivileged", "privileged", "triplet", "supervised"])
def test_every_arm_ends_in_a_student(tiles, tmp_path, arm):
    reports = run(small_config(arm), tmp_path / "run", tiles)
    student = load_student(tmp_path / "run" / "student", device="cpu")
    assert reports[0].kind == "started"
    assert reports[-1].kind == "finished"
    assert [r.step for r in reports if r.kind == "step"] == [1, 2, 3, 4, 5, 6]
    assert [r.step for r in reports if r.kind == "validation"] == [2, 4, 6]
    assert student.spec.tile_px == 16
    assert student.spec.mpp == pytest.approx(0.5 * 64 / 16)
    assert student.spec.training.arm == arm
    assert student.spec.class_names == ("fine", "coarse")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    assert student.embed(pixels).shape == (3, student.spec.embedding_dim)


@pytest.mark.parametrize("arm", ["unprivileged", "supervised"])
def test_a_class_that_no_training_tile_shows_is_told_and_never_named(
    tiles, tmp_path, arm
):
    classes = [
        {"name": name, "color": f"#0000{k}0"}
        for k, name in enumerate(("fine", "absent", "coarse"))
    ]
    config = small_config(arm, classes=classes)
    reports = run(config, tmp_path / "run", tiles)
    assert (
        "no training tile shows absent, so it will not be named" in reports[0].message
    )
    student = load_student(tmp_path / "run" / "student", device="cpu")
    assert student.spec.class_names == ("fine", "absent", "coarse")
    embeddings = np.random.default_rng(0).normal(size=(50, student.spec.embedding_dim))
    named = student.classify(embeddings.astype(np.float32))
    assert (named[:, 1] < named.max(axis=1)).all()


def test_the_loss_falls(tiles, tmp_path):
    config = small_config(schedule={"steps": 40, "batch": 16, "checkpoint_every": 40})
    totals = [r.total for r in run(config, tmp_path / "run", tiles) if r.kind == "step"]
    assert np.mean(totals[-5:]) < 0.9 * np.mean(totals[:5])


def test_the_events_are_the_reports(tiles, tmp_path):
    reports = run(small_config(), tmp_path / "run", tiles)
    events = read_events(tmp_path / "run")
    assert [e["kind"] for e in events] == [r.kind for r in reports]
    assert [e["total"] for e in events] == [r.total for r in reports]


@pytest.mark.parametrize("arm", ["triplet", "supervised"])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(tiles, tmp_path, arm):
    config = small_config(arm, schedule={"average": 0.9, "steps": 5})
    run(config, tmp_path / "whole", tiles)
    start_run(config, tmp_path / "parts", tiles)
    stop_after(tmp_path / "parts", 1)
    stop_after(tmp_path / "parts", 4)
    list(train(tmp_path / "parts", device="cpu"))
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")


def test_what_is_kept_by_the_clock_is_gone_on_from_and_changes_nothing(
    tiles, tmp_path, monkeypatch
):
    config = small_config(schedule={"steps": 5, "checkpoint_every": 4})
    run(config, tmp_path / "whole", tiles)
    monkeypatch.setattr(run_module, "KEPT_EVERY_S", -1.0)
    start_run(config, tmp_path / "killed", tiles)
    reports = train(tmp_path / "killed", device="cpu")
    next(r for r in reports if r.kind == "step" and r.step == 3)
    reports.close()
    _, mark = checkpoints.read_checkpoint(last_of(tmp_path / "killed"))
    assert mark.step == 2, "the third is kept after it was reported"
    again = list(train(tmp_path / "killed", device="cpu"))
    assert next(r for r in again if r.kind == "step").step == 3
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")


def test_several_partners_are_trained_at_once(tiles, tmp_path):
    image = {"tile_px": 64, "input_px": 32, "encoder": TINY}
    mask = image | {"column": "mask", "kind": "mask"}
    config = small_config("triplet", dense=[image, mask], schedule={"steps": 3})
    reports = run(config, tmp_path / "whole", tiles)
    start_run(config, tmp_path / "parts", tiles)
    stop_after(tmp_path / "parts", 1)
    list(train(tmp_path / "parts", device="cpu"))
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
    # Both have a branch of their own, and both are judged.
    tensors, _ = checkpoints.read_checkpoint(last_of(tmp_path / "parts"))
    kinds = ("partners", "partner_projectors")
    for prefix in [f"net.{kind}.{k}." for kind in kinds for k in (0, 1)]:
        assert any(name.startswith(prefix) for name in tensors), prefix
    (judged, *_) = [r for r in reports if r.kind == "validation"]
    assert len(judged.retrievals) == 2
    assert judged.retrieval == pytest.approx(np.mean(judged.retrievals))
    page = (tmp_path / "whole" / "report.html").read_text("utf-8")
    assert "own partner found: mask" in page
    assert "own partner found: the same layer at its full resolution" in page


def test_other_seeds_give_other_students(tiles, tmp_path):
    run(small_config(seed=0), tmp_path / "a", tiles)
    run(small_config(seed=1), tmp_path / "b", tiles)
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_a_stop_keeps_the_best_as_a_student(tiles, tmp_path):
    start_run(small_config(), tmp_path / "run", tiles)
    stop_after(tmp_path / "run", 3)
    mark = checkpoints.read_checkpoint(last_of(tmp_path / "run"))[1]
    assert mark.step == 3
    assert load_student(tmp_path / "run" / "student", device="cpu").spec.name == "small"
    assert read_events(tmp_path / "run")[-1]["kind"] == "stopped"


def test_the_best_checkpoint_has_the_lowest_validation_loss(tiles, tmp_path):
    config = small_config(schedule={"steps": 12, "lr": 3e-2})
    reports = run(config, tmp_path / "run", tiles)
    losses = {r.step: r.total for r in reports if r.kind == "validation"}
    mark = checkpoints.read_checkpoint(last_of(tmp_path / "run"))[1]
    assert mark.best_score == min(losses.values())
    assert losses[mark.best_step] == mark.best_score


def test_a_loss_that_is_no_number_ends_the_run(tiles, tmp_path, monkeypatch):
    start_run(small_config(), tmp_path / "run", tiles)
    stop_after(tmp_path / "run", 3)
    before = fingerprint(tmp_path / "run")
    step = trainer_module.Trainer.step

    def broken(self, number):
        with torch.no_grad():
            next(self.net.student.parameters()).fill_(float("nan"))
        return step(self, number)

    monkeypatch.setattr(trainer_module.Trainer, "step", broken)
    with pytest.raises(ComputeError, match=r"no longer a number at step 4 .*intact"):
        list(train(tmp_path / "run", device="cpu"))
    assert fingerprint(tmp_path / "run") == before
    assert read_events(tmp_path / "run")[-1]["kind"] == "failed"


def test_a_collapse_ends_the_run_in_plain_words(tiles, tmp_path, monkeypatch):
    def same(self, sparse, partners, windows):
        outputs = forward(self, sparse, partners, windows)
        flat = outputs.embeddings.mean(0, keepdim=True).expand_as(outputs.embeddings)
        return outputs._replace(embeddings=flat)

    from napari_histodistill.distill.training.networks import DistillNet

    forward = DistillNet.forward
    monkeypatch.setattr(DistillNet, "forward", same)
    with pytest.raises(ComputeError, match="no longer tells tiles apart"):
        run(small_config("unprivileged"), tmp_path / "run", tiles)


@pytest.mark.parametrize(
    ("objective", "frozen", "words"),
    [
        ({"kind": "vicreg"}, {}, "raise schedule.batch or objective.variance"),
        ({"kind": "infonce"}, {}, "raise schedule.batch, or lower"),
        (
            {"kind": "regression", "projector": [16]},
            {"kind": "expression", "components": 4, "encoder": {"backbone": "mlp"}},
            "look at the partner",
        ),
    ],
)
def test_advice_against_a_collapse_names_what_the_recipe_has(objective, frozen, words):
    config = small_config()
    plain = config.model_dump()
    plain["objective"] |= objective
    plain["dense"] = [{**plain["dense"][0], **frozen}]
    assert words in advice(DistillConfig.model_validate(plain))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", DeviceMemoryError),
        ("a kernel failed", ComputeError),
    ],
)
def test_what_torch_raises_becomes_a_sentence(
    tiles, tmp_path, monkeypatch, words, kind
):
    def fail(*_args, **_kwargs):
        raise RuntimeError(words)

    monkeypatch.setattr(trainer_module, "joint_embedding_loss", fail)
    with pytest.raises(
        kind, match=r"schedule.batch" if "memory" in words else "kernel"
    ):
        run(small_config(), tmp_path / "run", tiles)


def test_a_full_disk_leaves_the_last_good_checkpoint(tiles, tmp_path, monkeypatch):
    start_run(small_config(), tmp_path / "run", tiles)
    stop_after(tmp_path / "run", 3)
    before = fingerprint(tmp_path / "run")
    save = checkpoints.save_file

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(ComputeError, match=r"No space left.*intact"):
        list(train(tmp_path / "run", device="cpu"))
    assert fingerprint(tmp_path / "run") == before
    monkeypatch.setattr(checkpoints, "save_file", save)
    assert list(train(tmp_path / "run", device="cpu"))[-1].kind == "finished"


def test_a_changed_recipe_or_changed_pairs_are_not_continued(tiles, tmp_path):
    own = write_textures(tmp_path / "own")
    start_run(small_config(), tmp_path / "run", own)
    stop_after(tmp_path / "run", 3)
    recipe = tmp_path / "run" / "config.toml"
    text = recipe.read_text()
    recipe.write_text(text.replace("seed = 0", "seed = 7"))
    with pytest.raises(InputError, match="the recipe changed"):
        list(train(tmp_path / "run", device="cpu"))
    recipe.write_text(text)
    for picture in own.glob("*-0-0.png"):
        picture.write_bytes((own / "0-1-1.png").read_bytes())
    with pytest.raises(InputError, match="the pairs changed"):
        list(train(tmp_path / "run", device="cpu"))


def test_a_damaged_checkpoint_is_named(tiles, tmp_path):
    start_run(small_config(), tmp_path / "run", tiles)
    stop_after(tmp_path / "run", 3)
    last = tmp_path / "run" / "checkpoints" / checkpoints.LAST
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(InputError, match=r"last\.safetensors.*damaged"):
        list(train(tmp_path / "run", device="cpu"))


def test_a_batch_larger_than_the_pairs_is_refused(tiles, tmp_path):
    with pytest.raises(InputError, match=r"schedule\.batch: there are 36 pairs"):
        run(small_config(schedule={"batch": 64}), tmp_path / "run", tiles)


def test_a_folder_that_holds_something_else_is_refused(tiles, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    with pytest.raises(InputError, match="not empty"):
        start_run(small_config(), tmp_path / "thesis", tiles)
    start_run(small_config(), tmp_path / "run", tiles)
    start_run(small_config(), tmp_path / "run", tiles)  # the very same is fine
    with pytest.raises(InputError, match=r"another recipe.*\(seed: 0 → 1\)"):
        start_run(small_config(seed=1), tmp_path / "run", tiles)


def test_the_recipe_of_a_run_reads_back_equal(tiles, tmp_path):
    config = small_config("triplet", title='Quotes " and µ, \\ back', seed=3)
    start_run(config, tmp_path / "run", tiles)
    assert read_run(tmp_path / "run")[0] == config
    assert read_recipe(tmp_path / "run" / "config.toml") == config


def test_half_a_line_of_a_killed_run_is_skipped(tiles, tmp_path):
    run(small_config(), tmp_path / "run", tiles)
    before = read_events(tmp_path / "run")
    with (tmp_path / "run" / EVENTS).open("a") as file:
        file.write(json.dumps(before[1] | {"total": 9.0}) + '\n{"kind": "st')
    after = read_events(tmp_path / "run")
    assert len(after) == len(before)
    assert [e["total"] for e in after if e["step"] == before[1]["step"]].count(9.0) == 1


def test_views_of_a_frozen_teacher_are_computed_once(tiles, tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    whole = {"tile_px": 64, "input_px": 64, "encoder": TINY}
    run(small_config("supervised", sparse=whole), tmp_path / "teacher", tiles)
    start = str(tmp_path / "teacher" / "student")
    encoder = {"backbone": "test_resnet", "frozen": True, "start": start}
    dense = {"tile_px": 64, "input_px": 32, "encoder": encoder, "frozen_views": 3}
    config = small_config(dense=[dense])
    run(config, tmp_path / "a", tiles)
    kept = list((tmp_path / "cache" / "teacher").rglob("*.npy"))
    assert len(kept) == 48
    views = np.load(kept[0])
    assert views.shape == (3, 96)
    assert not np.array_equal(views[0], views[1])

    def never(*_arguments):
        pytest.fail("computed again")

    with monkeypatch.context() as patch:
        patch.setattr("napari_histodistill.distill.training.teacher._write", never)
        run(config, tmp_path / "b", tiles)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    # The same weights pooled otherwise are another teacher.
    encoder["options"] = {"global_pool": "max"}
    run(small_config(dense=[dense]), tmp_path / "c", tiles)
    assert len(list((tmp_path / "cache" / "teacher").rglob("*.npy"))) == 2 * 48


@pytest.mark.parametrize(
    ("backbone", "device", "trained", "precision"),
    [
        ("test_resnet", "cpu", True, "bfloat16"),
        ("tf_efficientnet_lite0", "cpu", True, "float32"),
        ("tf_efficientnet_lite0", "cpu", False, "bfloat16"),
        ("tf_efficientnet_lite0", "cuda", True, "bfloat16"),
    ],
)
def test_auto_takes_the_precision_that_suits_the_network(
    backbone, device, trained, precision
):
    net = timm.create_model(backbone, num_classes=0).requires_grad_(trained)
    choice = DeviceChoice(device, "a device", "a test", precision="bfloat16")
    assert precision_for(net, choice).precision == precision


@pytest.mark.parametrize(("generation", "precision"), [(9, "bfloat16"), (7, "float32")])
def test_a_card_trains_in_bfloat16_only_where_it_is_native(
    monkeypatch, generation, precision
):
    """torch counts emulation as support, and asks the current card."""
    patches = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "is_bf16_supported": lambda **_: True,
        "get_device_name": lambda index: "Card",
        "get_device_capability": lambda index: (generation if index else 9, 0),
    }
    for name, value in patches.items():
        monkeypatch.setattr(torch.cuda, name, value)
    config = small_config(schedule={"precision": "auto"})
    choice = training_device(config, "cuda:1", None)
    assert (choice.name, choice.precision) == ("cuda:1", precision)


def test_a_step_seeds_no_card_but_its_own(monkeypatch):
    def never(_seed):
        pytest.fail("every card was seeded")

    torch.manual_seed(torch_seed(3, 1))
    expected = torch.rand(3)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", never)
    trainer = SimpleNamespace(_device="cpu", config=SimpleNamespace(seed=3))
    with trainer_module.Trainer._randomness(trainer, 1):
        assert torch.equal(torch.rand(3), expected)
