"""A training on an imitated CUDA card: nothing is out of place, no step waits."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch

from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.runs.checkpoints import LAST, read_checkpoint
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.runs.watch import Watch
from napari_histodistill.distill.training import teacher, trainer
from napari_histodistill.distill.training.moving import sent
from napari_histodistill.distill.training.trainer import StepResult, Trainer
from napari_histodistill.distill.training.views import Views
from napari_histodistill.errors import ComputeError
from napari_histodistill.running import CancelToken
from tests.card import imitated_card
from tests.distill.small_runs import TINY, small_config, write_textures

NARROW = TINY | {"options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}}
AMONG = {
    "sparse": {"tile_px": 64, "input_px": 64, "encoder": NARROW},
    "surroundings": {"margin_px": 32},
}
GENES = {
    "kind": "expression",
    "column": "genes",
    "encoder": {"backbone": "mlp"},
    "components": 3,
}
KINDS = {
    "plain": ("privileged", {}),
    "two views": ("unprivileged", {}),
    "float16": ("privileged", {"schedule": {"precision": "float16"}}),
    "bfloat16": ("privileged", {"schedule": {"precision": "bfloat16"}}),
    "clip each": ("privileged", {"schedule": {"clip_each": True, "average": 0.9}}),
    "surroundings": ("unprivileged", AMONG),
    "turned": (
        "supervised",
        AMONG
        | {
            "surroundings": {"margin_px": 32, "turned": True},
            "schedule": {"mixup": 0.4, "label_smoothing": 0.1},
        },
    ),
    "genes": ("privileged", {"dense": [GENES], "objective": {"projector": [16]}}),
    "fixed targets": (
        "privileged",
        {
            "dense": [GENES],
            "objective": {"kind": "regression", "queue": 20, "projector": [16]},
        },
    ),
}


def card_on(monkeypatch, **options):
    """Imitate a card; what it has in use is of no interest here."""
    return imitated_card(monkeypatch, weighs=False, **options)


@pytest.fixture(scope="module")
def frozen(tiles, tmp_path_factory):
    """A recipe with a frozen teacher."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    whole = {"tile_px": 64, "input_px": 64, "encoder": TINY}
    start_run(
        small_config("supervised", sparse=whole, schedule={"steps": 1}), folder, tiles
    )
    list(train(folder, device="cpu", bare=True))
    encoder = TINY | {"frozen": True, "start": str(folder / "student")}
    dense = {"tile_px": 64, "input_px": 32, "encoder": encoder, "frozen_views": 3}
    return small_config(dense=[dense])


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Stripes, and beside each a few numbers."""
    folder = write_textures(tmp_path_factory.mktemp("data") / "tiles", cases=4)
    header, *rows = (folder / "manifest.csv").read_text().split()
    rng = np.random.default_rng(1)
    for k in range(len(rows)):
        np.save(folder / f"{k}.npy", rng.normal(size=6).astype(np.float32))
        rows[k] += f",{k}.npy"
    (folder / "manifest.csv").write_text("\n".join([f"{header},genes", *rows]))
    return folder


def config(kind: str, **schedule):
    arm, changes = KINDS[kind]
    schedule = {"steps": 3, "report_every": 10, "checkpoint_every": 3, **schedule}
    return small_config(
        arm, **changes | {"schedule": schedule | changes.get("schedule", {})}
    )


def by_file(lines: Counter) -> dict[str, int]:
    """Return counts by file rather than by line."""
    found: Counter = Counter()
    for line, n in lines.items():
        found[line.partition(":")[0]] += n
    return dict(found)


def losses(run, device: str, card=None):
    """Train; return losses, what each report waited for, and what was sent."""
    found, waits, sends = [], [], []
    waited = was_sent = Counter()
    for report in train(run, device=device, bare=True):
        if report.kind in ("step", "validation"):
            found.append(report.total)
            if card:
                waits.append(by_file(card.waits - waited))
                sends.append(by_file(card.sends - was_sent))
        if card:
            waited, was_sent = Counter(card.waits), Counter(card.sends)
    return found, waits, sends


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_learns_as_on_the_cpu_and_no_step_waits(tiles, tmp_path, monkeypatch, kind):
    recipe = config(kind)
    expected, _, _ = losses(start_run(recipe, tmp_path / "cpu", tiles), "cpu")
    run = start_run(recipe, tmp_path / "card", tiles)
    with card_on(monkeypatch) as card:
        found, waits, sends = losses(run, "cuda", card)
    assert not card.faults
    # Lower precision is not imitated, only what has to be done for it.
    near = 5e-3 if recipe.schedule.precision == "float32" else 0.1
    np.testing.assert_allclose(found, expected, rtol=near)
    # A report reads whether all went well, the loss and the embeddings; the second is
    # after two steps more.
    assert waits[:2] == [{"watch.py": 3}] * 2
    judged = 1 if kind == "turned" else 2  # the loss, and whether partners are found
    assert waits[2] == {"trainer.py": judged, "watch.py": 1}
    # All that is drawn for a step is one copy; so are the surroundings.
    among = recipe.surroundings is not None
    assert sends[:2] == [{"moving.py": 1 + among}, {"moving.py": 2 * (1 + among)}]


def test_a_cpu_keeps_the_memory_of_a_step_for_the_next(tiles, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(trainer, "keep_freed_memory", lambda: asked.append(1))
    losses(start_run(config("plain", steps=1), tmp_path / "cpu", tiles), "cpu")
    assert asked
    with card_on(monkeypatch) as card:
        run = start_run(config("plain", steps=1), tmp_path / "card", tiles)
        asked.clear()
        losses(run, "cuda", card)
    assert not asked


@pytest.mark.parametrize("kind", ["float16", "fixed targets"])
def test_pairs_that_do_not_fit_are_sent_and_give_the_same_bytes(
    tiles, tmp_path, monkeypatch, kind
):
    found = {}
    for free in (2**34, 1000):
        run = start_run(config(kind), tmp_path / str(free), tiles)
        with card_on(monkeypatch, free=free) as card:
            started, *_ = list(train(run, device="cuda", bare=True))
        assert not card.faults
        assert ("every step sends its own" in started.message) == (free == 1000)
        found[free] = (run / "checkpoints" / LAST).read_bytes()
    assert found[1000] == found[2**34]


@pytest.mark.parametrize("card", [False, True])
@pytest.mark.parametrize("kind", ["two views", "plain", "genes", "frozen"])
def test_views_are_the_same_wherever_pairs_lie(
    tiles, frozen, tmp_path, monkeypatch, kind, card
):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path))
    recipe = frozen if kind == "frozen" else config(kind)
    pairs = load_pairs(recipe, tiles).train
    rows = np.random.default_rng(0).integers(0, len(pairs), 12)
    drawn = []
    with card_on(monkeypatch) if card else nullcontext():
        for room in (0, 2**40):
            views = Views(
                recipe,
                pairs,
                home=tmp_path,
                device="cuda" if card else "cpu",
                cancel=CancelToken(),
                room=room,
            )
            assert views.stays == bool(room)
            one = views.draw(rows, 3, 1)
            parts = [*one.sparse, *one.partners, one.labels, one.confidence, one.rows]
            drawn.append([part.cpu() for part in parts])
    for sent_there, stayed in zip(*drawn, strict=True):
        assert torch.equal(sent_there, stayed)
        assert sent_there.stride() == stayed.stride()  # kernels go by it
    assert drawn[0][-1].tolist() == rows.tolist()
    assert drawn[0][-2].tolist() == pairs.confidence[rows].tolist()
    assert drawn[0][-3].tolist() == pairs.labels[rows].tolist()


def test_what_is_sent_arrives_to_the_bit_in_one_copy(monkeypatch):
    groups = [
        {"many": torch.tensor([2**24 + 1, 2**53 + 1]), "no": torch.zeros(0)},
        {"real": torch.randn(3, 2, 3), "is": torch.tensor([True, False, True])},
        {},
        {"one": torch.tensor(0.1)},
    ]
    with card_on(monkeypatch) as card:
        found = sent(groups, torch.device("cuda"))
        assert sum(card.sends.values()) == 1
        assert not card.waits
        assert all(card.is_here(t) for group in found for t in group.values())
        back = [{k: v.cpu() for k, v in group.items()} for group in found]
    assert [list(g) for g in back] == [list(g) for g in groups]
    for one, other in zip(groups, back, strict=True):
        for name, tensor in one.items():
            assert other[name].dtype == tensor.dtype
            assert torch.equal(other[name], tensor)


@pytest.mark.parametrize("kind", ["clip each", "fixed targets"])
def test_a_run_goes_on_where_it_stopped_to_the_bit(tiles, tmp_path, monkeypatch, kind):
    recipe = config(kind, steps=4, checkpoint_every=2)
    loaded = []

    def counters_lie_on_the_card(self, tensors):
        load(self, tensors)
        states = self.optimiser.state.values()
        loaded.extend(card.is_here(state["step"]) for state in states)

    load = Trainer.load
    monkeypatch.setattr(Trainer, "load", counters_lie_on_the_card)
    with card_on(monkeypatch) as card:
        whole = start_run(recipe, tmp_path / "whole", tiles)
        list(train(whole, device="cuda", bare=True))
        parts = start_run(recipe, tmp_path / "parts", tiles)
        first = train(parts, device="cuda", bare=True)
        for report in first:
            if report.kind == "checkpoint":
                first.close()
        assert read_checkpoint(parts / "checkpoints" / LAST)[1].step == 2
        list(train(parts, device="cuda", bare=True))
    assert not card.faults
    assert loaded
    assert all(loaded), "a fused optimiser counts on the card"
    last = [folder / "checkpoints" / LAST for folder in (whole, parts)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_float16_grows_its_scale_as_if_it_had_not_stopped(tiles, tmp_path, monkeypatch):
    # Doubled after three steps, by default after 2,000.
    soon = partial(torch.amp.GradScaler, init_scale=8.0, growth_interval=3)
    monkeypatch.setattr(trainer.torch.amp, "GradScaler", soon)
    recipe = config("float16", steps=4, checkpoint_every=2)
    whole = start_run(recipe, tmp_path / "whole", tiles)
    list(train(whole, device="cpu", bare=True))
    parts = start_run(recipe, tmp_path / "parts", tiles)
    first = train(parts, device="cpu", bare=True)
    for report in first:
        if report.kind == "checkpoint":
            first.close()
    list(train(parts, device="cpu", bare=True))
    tensors, progress = read_checkpoint(whole / "checkpoints" / LAST)
    assert progress.step == 4
    assert tensors["scaler.scale"] == 16
    assert tensors["scaler.grown"] == 1
    last = [folder / "checkpoints" / LAST for folder in (whole, parts)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_a_loss_that_is_no_number_is_remembered_on_the_card(monkeypatch):
    watch = Watch(small_config())
    with card_on(monkeypatch) as card:
        for done, loss in enumerate([1.0, 2.0, math.inf, math.nan, 3.0], 1):
            values = torch.stack([torch.tensor(v) for v in (loss, loss, done / 4)])
            result = StepResult(values.cuda(), ("a", "b"), torch.zeros(2, 2))
            before = sum(card.waits.values())
            watch.follow(result, done, 0)
            assert sum(card.waits.values()) == before
            if done == 2:
                watch.check(0)
        with pytest.raises(ComputeError, match=r"at step 3 \(a inf, b 0.75\).*step 2 "):
            watch.check(2)


def test_nothing_is_saved_after_a_loss_that_is_no_number(tiles, tmp_path, monkeypatch):
    """It is found before the next checkpoint, even where no report is due."""
    recipe = config("plain", steps=8, checkpoint_every=3)
    step = Trainer.step

    def broken(self, number):
        if number == 4:
            with torch.no_grad():
                next(self.net.student.parameters()).fill_(float("nan"))
        return step(self, number)

    monkeypatch.setattr(Trainer, "step", broken)
    run = start_run(recipe, tmp_path / "run", tiles)
    with (
        card_on(monkeypatch),
        pytest.raises(ComputeError, match=r"at step 5 .*step 3 is intact"),
    ):
        list(train(run, device="cuda", bare=True))
    assert read_checkpoint(run / "checkpoints" / LAST)[1].step == 3


def test_a_frozen_teacher_sees_many_pictures_at_once(
    tiles, frozen, tmp_path, monkeypatch
):
    (partner,) = load_pairs(frozen, tiles).train.partners
    names = len({values.tobytes() for values in partner.values})
    monkeypatch.setattr(teacher, "AT_A_TIME", 15)  # five pictures of three views
    found, calls = {}, {}
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / device))
        seen = calls[device] = []
        forward = teacher.ImageEncoder.forward

        def counted(self, images, forward=forward, seen=seen):
            seen.append(len(images))
            return forward(self, images)

        with monkeypatch.context() as patch, card_on(patch) as card:
            patch.setattr(teacher.ImageEncoder, "forward", counted)
            found[device] = teacher.teacher_features(
                frozen,
                frozen.dense[0],
                partner,
                home=tmp_path,
                device=device,
                cancel=CancelToken(),
            )
        assert not card.faults
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=1e-3, atol=1e-4)
    # One by one on a CPU, where the last bits of features are promised.
    assert calls["cpu"] == [3] * names
    assert calls["cuda"] == [15] * (names // 5) + [3 * (names % 5)] * bool(names % 5)
