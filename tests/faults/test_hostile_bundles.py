"""Students that lie: refused before a tensor is used, in bounded memory."""

from __future__ import annotations

from pathlib import Path

from tests.faults.capped import run_capped
from tests.faults.hostile_bundles import make_hostile

MAX_CPU_S = 20.0
"""A file of 1.25 GiB is hashed to the end before it is refused."""


def test_hostile_bundles_are_refused_in_a_sentence(place, small_slide, tmp_path):
    made = make_hostile(place.bundle, tmp_path)
    out = tmp_path / "out"
    commands = [
        ("embed", small_slide, "-o", out, "--student", folder, "--device", "cpu")
        for folder, _ in made.values()
    ]
    results = run_capped(
        commands,
        memory_mb=1024,
        imports=("napari_histodistill.students.backends.build",),
    )
    wrong = {}
    for (name, (_folder, word)), result in zip(made.items(), results, strict=True):
        if result.code != 2 or word not in result.sentence or result.out:
            wrong[name] = (result.code, result.err[-300:])
        elif result.cpu_s > MAX_CPU_S:
            wrong[name] = f"{result.cpu_s} s of CPU"
    assert not wrong
    assert not out.exists()
    assert not Path("/tmp/histodistill-was-fooled").exists()
