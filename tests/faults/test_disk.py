"""Disks that are full, closed, gone or shared: a sentence, and nothing lost."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from napari_histodistill.cli import main
from napari_histodistill.maps import EmbeddingStore
from napari_histodistill.slides.codecs.decoding import SegmentCache
from tests.faults.killing import fingerprint
from tests.faults.workplace import Outcome, write_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def here(*arguments: object) -> Outcome:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Volume:
    """A small disk of its own."""

    path: Path

    def remount(self, options: str) -> None:
        command = ["mount", "-o", f"remount,{options}", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def volume(tmp_path) -> Iterator[Volume]:
    """Return a tmpfs of 72 KB."""
    path = tmp_path / "volume"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=72k", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, check=False, capture_output=True)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.decode()}")
    yield Volume(path)
    subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


def embedding(place, out: Path, *more: object) -> tuple[object, ...]:
    options = ("--student", place.bundle, "--stride-um", 24, "--device", "cpu")
    return ("embed", place.slide, "-o", out, *options, *more)


def distilling(place, out: Path) -> tuple[object, ...]:
    options = ("--device", "cpu", "--threads", 1, "--resume")
    return ("distill", place.recipe, "--data", place.tiles, "-o", out, *options)


@pytest.fixture(scope="module")
def embedded(place, tmp_path_factory) -> dict[str, str]:
    """Return the bytes of an undisturbed store."""
    out = tmp_path_factory.mktemp("embedded")
    assert here(*embedding(place, out)).code == 0
    return fingerprint("embed", out)


@pytest.fixture(scope="module")
def distilled(place, tmp_path_factory) -> dict[str, str]:
    """Return the bytes of an undisturbed training."""
    out = tmp_path_factory.mktemp("distilled") / "run"
    assert here(*distilling(place, out)).code == 0
    return fingerprint("distill", out)


def test_a_full_disk_while_embedding(place, volume, embedded):
    out = volume.path / "out"
    outcome = here(*embedding(place, out))
    assert outcome.code == 1
    assert "space" in outcome.sentence
    assert outcome.out == ""
    with EmbeddingStore.open(out / "slide.ome.zarr") as store:
        done = int((store.status == 1).sum())
        store.read()
    assert done > 0, "the disk was full before anything was done"
    volume.remount("size=64m")
    outcome = here(*embedding(place, out))
    assert outcome.code == 0, outcome.err
    assert f"{done} of" in outcome.err
    assert fingerprint("embed", out) == embedded


def test_a_full_disk_before_anything(place, volume):
    filled = volume.path / "filled"
    with contextlib.suppress(OSError):
        filled.write_bytes(bytes(10**6))
    for command in (
        embedding(place, volume.path / "a"),
        ("classify", *embedding(place, volume.path / "b")[1:]),
        distilling(place, volume.path / "c"),
    ):
        outcome = here(*command)
        assert outcome.code == 1, outcome.err
        assert "space" in outcome.sentence
    filled.unlink()
    assert here(*embedding(place, volume.path / "a")[:4], "--student", "none").code == 2


def test_a_full_disk_while_training(place, volume, distilled):
    out = volume.path / "run"
    volume.remount("size=2m")
    outcome = here(*distilling(place, out))
    assert outcome.code == 1
    assert "free space" in outcome.sentence
    assert not list(out.rglob("*.part"))
    volume.remount("size=64m")
    outcome = here(*distilling(place, out))
    assert outcome.code == 0, outcome.err
    assert fingerprint("distill", out) == distilled


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow(place, tmp_path, embedded):
    with largest_file(2_500):
        outcome = here(*embedding(place, tmp_path))
    assert outcome.code == 1
    assert "too large" in outcome.sentence
    outcome = here(*embedding(place, tmp_path))
    assert outcome.code == 0, outcome.err
    assert fingerprint("embed", tmp_path) == embedded


def test_a_folder_that_is_read_only(place, volume):
    volume.remount("size=64m")
    out = volume.path / "out"
    assert here(*embedding(place, out)).code == 0
    before = fingerprint("embed", out)
    volume.remount("ro")
    wanted = [
        embedding(place, out),
        embedding(place, out, "--restart"),
        embedding(place, volume.path / "new"),
        ("classify", *embedding(place, volume.path / "new")[1:]),
        distilling(place, volume.path / "run"),
    ]
    for command in wanted:
        outcome = here(*command)
        assert outcome.code == 2, (command, outcome.err)
        assert str(volume.path) in outcome.sentence
        assert "ead-only" in outcome.sentence
    assert fingerprint("embed", out) == before
    store = out / "slide.ome.zarr"
    outcome = here("similar", store, "--at", "200,200", "-o", volume.path / "s")
    assert outcome.code == 2
    looking = here("similar", store, "--at", "200,200", "-o", volume.path.parent / "s")
    assert looking.code == 0, looking.err


def numbers(found: dict[str, str]) -> dict[str, str]:
    """Leave out where the slide lay; compare the store, not the slide beside it."""
    return {
        name: digest
        for name, digest in found.items()
        if name.startswith("slide.ome.zarr/") and name != "slide.ome.zarr/zarr.json"
    }


class Cut:
    """Spoils the slide's file when the run is in the middle."""

    def __init__(self, monkeypatch, spoil) -> None:
        self.blocks = 0
        original = EmbeddingStore.write_block

        def write_block(store: EmbeddingStore, *arguments: Any) -> None:
            original(store, *arguments)
            self.blocks += 1
            if self.blocks == 2:
                spoil()

        monkeypatch.setattr(EmbeddingStore, "write_block", write_block)
        # This slide is small: all of it would be remembered by now.
        monkeypatch.setattr(SegmentCache.__init__, "__defaults__", (1,))


def test_a_slide_that_is_cut_short_in_mid_run(place, tmp_path, monkeypatch, embedded):
    slide = tmp_path / "slide.ome.tif"
    shutil.copy(place.slide, slide)
    whole = slide.read_bytes()
    command = ("embed", slide, *embedding(place, tmp_path)[2:])
    cut = Cut(monkeypatch, lambda: os.truncate(slide, len(whole) // 2))
    outcome = here(*command)
    monkeypatch.undo()
    assert cut.blocks >= 2
    assert outcome.code in {0, 2}, outcome.err
    assert "truncated" in outcome.err
    with EmbeddingStore.open(tmp_path / "slide.ome.zarr") as store:
        store.read()  # what was done before is sound
        unreadable = int((store.status == 2).sum())
    assert unreadable or outcome.code
    slide.write_bytes(whole)
    outcome = here(*command)
    assert outcome.code == 0, outcome.err
    assert numbers(fingerprint("embed", tmp_path)) == numbers(embedded)


def test_a_slide_that_vanishes_in_mid_run(place, tmp_path, monkeypatch, embedded):
    """Its disk is gone: whatever is asked for fails."""
    slide = tmp_path / "slide.ome.tif"
    shutil.copy(place.slide, slide)
    command = ("embed", slide, *embedding(place, tmp_path)[2:])

    def fail(*_arguments: object) -> bytes:
        raise OSError(5, "Input/output error")

    Cut(monkeypatch, lambda: monkeypatch.setattr(os, "pread", fail))
    outcome = here(*command)
    monkeypatch.undo()
    assert outcome.code == 2
    assert "slide.ome.tif" in outcome.sentence
    assert "nothing of it can be read any more" in outcome.sentence
    outcome = here(*command)
    assert outcome.code == 0, outcome.err
    assert numbers(fingerprint("embed", tmp_path)) == numbers(embedded)


def test_two_runs_on_one_store(place, tmp_path, embedded):
    assert here(*embedding(place, tmp_path)).code == 0
    before = fingerprint("embed", tmp_path)
    with EmbeddingStore.open(tmp_path / "slide.ome.zarr", writable=True):
        for more in ((), ("--restart",)):
            outcome = here(*embedding(place, tmp_path, *more))
            assert outcome.code == 2
            assert "another run" in outcome.sentence
    assert fingerprint("embed", tmp_path) == before == embedded


def test_a_store_of_another_student_or_a_newer_version(place, tmp_path):
    assert here(*embedding(place, tmp_path)).code == 0
    before = fingerprint("embed", tmp_path)
    other = write_bundle(tmp_path.parent / f"{tmp_path.name}-other", name="o", seed=1)
    outcome = here(*embedding(place, tmp_path, "--student", other))
    assert outcome.code == 2
    assert "student 'tiny' instead of 'o'" in outcome.sentence
    assert fingerprint("embed", tmp_path) == before
    meta = tmp_path / "slide.ome.zarr" / "zarr.json"
    newer = meta.read_text().replace('"format_version": 1', '"format_version": 2', 1)
    assert newer != meta.read_text()
    meta.write_text(newer)
    outcome = here(*embedding(place, tmp_path))
    assert outcome.code == 2
    assert "newer version" in outcome.sentence
    assert meta.read_text() == newer


def test_a_clock_that_goes_backwards(place, tmp_path, monkeypatch, embedded, distilled):
    slide = tmp_path / "slide.ome.tif"
    shutil.copy(place.slide, slide)
    future = time.time() + 10 * 365 * 86400
    os.utime(slide, (future, future))
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    monkeypatch.setattr(time, "time_ns", lambda: next(now) * 10**9)
    outcome = here("embed", slide, *embedding(place, tmp_path / "o")[2:])
    assert outcome.code == 0, outcome.err
    found = fingerprint("embed", tmp_path / "o")
    assert numbers(found) == numbers(embedded)
    outcome = here(*distilling(place, tmp_path / "run"))
    assert outcome.code == 0, outcome.err
    assert fingerprint("distill", tmp_path / "run") == distilled
