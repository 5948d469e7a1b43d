"""The script for a machine with a card, as far as it goes without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType

from napari_histodistill.distill.training.objectives import infonce
from napari_histodistill.maps.block_reading import PixelWindow
from napari_histodistill.maps.engine import plan_grid
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.grid import TileGrid
from tests.bench import gpu, gpu_bottleneck, gpu_flows, gpu_slide, gpu_training
from tests.bench.gpu_order import STEPS as ORDERED

ROOT = Path(__file__).parents[2]
STEPS = (
    *("versions", "arithmetic", "lanes", "graphs", "resampling", "shortage", "flat"),
    *("tests", "resume", "commands", "end", "end-2", "plain", "bottleneck"),
    *("training", "model", "feed", "compiled"),
)
SYNCHRONISED = "called a synchronizing CUDA operation (Triggered internally at …)"


def python(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= variables
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


QUICK = ("versions", "lanes", "flat", "tests", "resume", "end", "plain", "bottleneck")


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked")
@pytest.mark.parametrize(
    "steps", [QUICK, pytest.param(STEPS, marks=(pytest.mark.long, pytest.mark.slow))]
)
def test_every_step_runs_dry(steps):
    done = python("-m", "tests.bench.gpu", "--dry", *steps)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr[-3000:]
    failed = {line["step"]: line for line in lines if not line["ok"]}
    assert not failed, done.stderr[-3000:]
    assert [line["step"] for line in lines] == list(steps)
    assert {line["on"] for line in lines} == {"dry"}
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked")
def test_a_step_has_its_time_and_a_failure_is_a_line(tmp_path):
    done = python(
        "-c",
        "import os, time; from types import SimpleNamespace as Step\n"
        "from pathlib import Path; from tests.bench import gpu\n"
        "def fail(dry, folder): raise RuntimeError('no such card')\n"
        "for what in (lambda *_: time.sleep(60), fail, lambda *_: os._exit(3)):\n"
        "    step = Step(name='a', limit_s=0.3, function=what, vital=False)\n"
        f"    gpu._say(gpu._run(step, Path({str(tmp_path)!r}), dry=False))\n",
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["ok"] for line in lines] == [False] * 3, done.stderr
    assert [line["error"] for line in lines] == [
        "not done after 0.3 s",
        "RuntimeError: no such card",
        "the process ended without a word",
    ]


def test_packages_are_found_in_a_folder_of_wheels(tmp_path, monkeypatch, capsys):
    with zipfile.ZipFile(tmp_path / "odd_one-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("odd_one.py", "WHERE = __file__\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gpu, "NEEDED", ("odd_one", "odd_two"))
    assert gpu.main(["--wheels", str(tmp_path)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said == {"step": "packages", "ok": False, "missing": ["odd_two"]}
    assert Path(sys.path[-1]).name == "wheels"
    monkeypatch.delitem(sys.modules, "odd_one")


def test_the_steps_fit_into_the_time_for_which_a_card_is_lent():
    assert [step.name for step in ORDERED] == list(STEPS)
    assert sum(step.limit_s for step in ORDERED) <= 800
    # Right numbers first: what fails there makes later figures worthless.
    last = max(k for k, step in enumerate(ORDERED) if step.vital)
    assert last < STEPS.index("tests") < STEPS.index("end")


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked")
def test_what_follows_a_vital_step_that_failed_is_not_begun():
    done = python(
        "-c",
        "import sys; from types import SimpleNamespace as Some\n"
        "from tests.bench import gpu\n"
        "def fail(dry, folder): raise ValueError('wrong')\n"
        "def good(dry, folder): return {'dry': dry}\n"
        "steps = [Some(name=n, limit_s=90, function=f, vital=v) for n, f, v in\n"
        "    (('a', fail, False), ('b', good, True), ('c', fail, True),\n"
        "     ('d', good, False))]\n"
        "sys.modules['odd'] = Some(STEPS=steps)\n"
        "gpu.STEPS, gpu.NEEDED = 'odd', ()\n"
        "sys.exit(gpu.main(['--dry']))\n",
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["step"], line["ok"]) for line in lines] == [
        *(("a", False), ("b", True), ("c", False))
    ]
    assert lines[1]["dry"] is True
    assert done.returncode == 1


@pytest.mark.slow(10)
@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked")
def test_tests_that_were_all_skipped_have_shown_nothing(tmp_path):
    """Where a card should be, none of them may have looked for it in vain."""
    done = python(
        "-c",
        "import os; from pathlib import Path; from tests.bench import gpu, gpu_steps\n"
        "step = gpu_steps.Step('tests', 100, gpu_steps.tests)\n"
        f"gpu._say(gpu._run(step, Path({str(tmp_path)!r}), dry=False))\n",
        CUDA_VISIBLE_DEVICES="",
    )
    said = json.loads(done.stdout)
    assert not said["ok"]
    assert "AssertionError: no test passed: {'skipped':" in said["error"]


def test_the_slide_repeats_its_patch_and_has_no_level_of_half_the_resolution(tmp_path):
    patch = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    path = tmp_path / "repeated.ome.tif"
    gpu_slide.write_repeated(path, patch, 3, tile_px=64)
    student = gpu_slide.student_at(1.0, "float32", dry=True)
    with open_slide(path) as slide:
        assert slide.shape == (768, 768)
        assert slide.require_mpp().mean == 0.5
        first = slide.read_pixels(0, 0, 0, 256, 256)
        np.testing.assert_array_equal(slide.read_pixels(0, 512, 256, 256, 256), first)
        grid = plan_grid(slide, student)
        left = gpu_flows._read(slide, grid, True, PixelWindow(64, 0, 128, 128)).left
    assert left is not None
    assert left.pixels.shape[0] >= 256  # twice what is wanted, with a border
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_at_2_times_there_are_blocks_and_windows_enough_for_sixteen_readers(tmp_path):
    patch = np.zeros((256, 256, 3), np.uint8)
    path = tmp_path / "one.ome.tif"
    gpu_slide.write_repeated(path, patch, 1, tile_px=64)
    with open_slide(path) as slide:
        mpp = slide.require_mpp()
    edge = 2 * gpu_slide.PATCH_PX * gpu_slide.TIMES
    tiles = {"mpp": gpu_flows.SCALES["2 ×"], "tile_px": 224, "stride_px": 224}
    grid = TileGrid.over((edge, edge), mpp, **tiles)
    rows, columns = (-(-n // 16) for n in grid.shape)
    assert rows * columns >= 100
    assert len(gpu_flows.windows_of(grid, 16)) >= 4 * 16


def test_paces_of_a_run_are_of_all_of_it_and_of_its_second_half():
    marks = [(0.0, 0), (4.0, 10), (6.0, 30), (8.0, 110), (10.0, 150)]
    run = gpu_flows.run_of(marks, 5.0, "processes")
    assert run == gpu_flows.Run(15.0, 30.0, 5.0, 10.0, 4, "processes")
    assert gpu_flows.run_of([(0.0, 0), (2.0, 8)], 0.0, "threads").settled == 4
    alone = {"lanes": 2, "one_lane": 20.0, "all_lanes": 40.0}
    other = gpu_flows.run_of([(0.0, 0), (2.0, 10)], 0.0, "threads")
    told = gpu_flows.told([run, other, other], alone)
    assert (told["pace"], told["runs"]) == (5, [15, 5, 5])
    assert (told["of_all_lanes"], told["of_one_lane"]) == (0.125, 0.25)


def test_the_time_of_a_stage_is_that_of_its_threads_within_the_run():
    clock = gpu_bottleneck.Clock()
    clock._spans = [("reading", 0, 4), ("reading", 3, 9), ("model", 2, 3)]
    # From 2 to 6 s, two threads: 2 + 3 of 8 s.
    assert clock.share("reading", 2, 2.0, 6.0) == 5 / 8
    assert clock.share("writing", 1, 2.0, 6.0) == 0
    with pytest.raises(ZeroDivisionError):
        clock.timed("failing", lambda: 1 / 0)()
    assert clock._spans[-1][0] == "failing"


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.99, 0.2, 0.3, 0.55, 0.1), "reading: at work for 99%"),
        ((0.50, 0.7, 0.2, 0.95, 0.1), "upload and resampling: 70%"),
        ((0.50, 0.1, 0.8, 0.95, 0.1), "the model: 80%"),
        ((0.40, 0.1, 0.3, 0.45, 0.98), "writing: at work for 98%"),
        ((0.60, 0.1, 0.3, 0.45, 0.1), "no stage: reading, the busiest, takes 60%"),
    ],
)
def test_what_holds_a_run_up_is_named(shares, words):
    names = ("reading", "upload", "model", "computing", "writing")
    found = gpu_bottleneck.in_words(dict(zip(names, shares, strict=True)))
    assert found.startswith(words)
    assert f"the student's threads wait for {1 - shares[3]:.0%} of the time" in found


def test_the_cards_share_counts_kernels_once():
    """Operations of the host stand in a profile with the time of their kernels, too."""
    rows = [
        SimpleNamespace(key=key, device_type=kind, self_device_time_total=micros)
        for key, kind, micros in (
            ("aten::conv2d", DeviceType.CPU, 4e6),
            ("conv_kernel", DeviceType.CUDA, 4e6),
            ("Memcpy HtoD (Pinned -> Device)", DeviceType.CUDA, 1e6),
            ("Memset (Device)", DeviceType.CUDA, 1e6),
        )
    ]
    found = gpu_bottleneck.on_the_card(rows, 10.0)
    assert (found["kernels"], found["copies"]) == (0.4, 0.1)
    assert next(iter(found["busiest"].items())) == ("conv_kernel", 0.4)


def test_only_warnings_of_waits_are_waits():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for words in (SYNCHRONISED, "this is deprecated", SYNCHRONISED):
            warnings.warn(words, stacklevel=1)
    assert len(gpu_training.waits_among(caught)) == 2
    most = gpu_training.MOST_WAITS
    seen = {"waits_of_each_step": [1, most], "where": {}}
    gpu_training.check_waits({"small ResNet": seen})
    seen["waits_of_each_step"].append(most + 1)
    with pytest.raises(
        AssertionError, match=rf"small ResNet: .*\[1, {most}, {most + 1}"
    ):
        gpu_training.check_waits({"small ResNet": seen})


def test_without_lightly_the_plain_loop_is_torchs_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightly.loss", None)
    parts = gpu_training.plain_parts(32)
    assert not isinstance(parts, str)
    assert parts.name.startswith("a plain PyTorch InfoNCE loop; lightly cannot be")
    a, b = torch.rand(2, 6, 4)
    torch.testing.assert_close(parts.loss(a, b), infonce([a, b]).total)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "nor torchvision" in gpu_training.plain_parts(32)
