"""A training on an imitated CUDA card: nothing is out of place, and hardly a wait."""

from __future__ import annotations

from collections import Counter

import numpy as np

from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from tests.card import imitated_card
from tests.distill.small_runs import small_config, write_textures


def losses(run, device: str, card=None) -> tuple[list[float], list[Counter]]:
    """Take two steps; return their losses, and the waits of each by line."""
    found, waits, before = [], [], Counter()
    reports = train(run, device=device)
    for report in reports:
        now = Counter(card.waits) if card else Counter()
        if report.kind == "step":
            found.append(report.total)
            waits.append(now - before)
        before = now
        if len(found) == 2:
            reports.close()
    return found, waits


def test_it_learns_as_on_the_cpu_and_a_step_waits_for_one_copy(tmp_path, monkeypatch):
    tiles = write_textures(tmp_path / "tiles", cases=4)
    schedule = {"steps": 3, "checkpoint_every": 3}
    plain = start_run(small_config(schedule=schedule), tmp_path / "cpu", tiles)
    expected, _ = losses(plain, "cpu")
    schedule["precision"] = "float16"  # the most there is: gradients are scaled
    run = start_run(small_config(schedule=schedule), tmp_path / "card", tiles)
    with imitated_card(monkeypatch) as card:
        found, waits = losses(run, "cuda", card)
    assert not card.faults
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    # The loss and its terms are one copy; besides, float16 looks whether a gradient is
    # infinite, and what is clipped lies on the host in this imitation.
    for step in waits:
        ours = {line: n for line, n in step.items() if not line.startswith("health")}
        assert sum(ours.values()) <= 3, step
