"""The heap that torch computes in on a CPU: what was given back is used again."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from napari_histodistill.students.backends import build, heap
from napari_histodistill.students.bundle import load_student

PAGES = 40 * 2**20 // 4096
"""What each of the layers below takes, and glibc gives back at once."""

LAYERS = f"""
import ctypes, resource, sys, threading
from napari_histodistill.students.backends.heap import keep_freed_memory

def layers(count):
    for _ in range(count):
        b"x" * {PAGES * 4096}

def run(count):
    thread = threading.Thread(target=layers, args=(count,))
    thread.start(), thread.join()

def zeroed():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages: pages are what is counted
run(1)  # before, as in a window that is already open
kept = sys.argv[1] == "kept" and keep_freed_memory()
run(2)
before = zeroed()
run(10)
print(int(kept), zeroed() - before)
"""


def _zeroed(how: str, **environment: str) -> tuple[bool, int]:
    """Return whether memory is kept, and how many pages ten layers had zeroed."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", LAYERS, how],
        env=clean | environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    kept, pages = done.stdout.split()
    return bool(int(kept)), int(pages)


@pytest.fixture
def _glibc() -> None:
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("the C library is not glibc")


@pytest.mark.usefixtures("_glibc")
class TestOfGlibc:
    def test_memory_that_was_given_back_is_not_zeroed_again(self):
        assert _zeroed("as it is")[1] > 9 * PAGES
        kept, pages = _zeroed("kept")
        assert kept
        assert pages < 3 * PAGES  # a new thread may have memory of its own, once

    @pytest.mark.parametrize(
        "environment",
        [
            {"MALLOC_ARENA_MAX": "4"},
            {"MALLOC_TRIM_THRESHOLD_": "100000"},
            {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"},
        ],
    )
    def test_what_somebody_has_set_stays(self, environment):
        assert not _zeroed("kept", **environment)[0]


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not heap.keep_freed_memory()


@pytest.mark.parametrize(("device", "times"), [("cpu:torch", 1), ("cpu:openvino", 0)])
def test_a_student_asks_where_torch_runs_it(monkeypatch, device, times):
    if device == "cpu:openvino":
        pytest.importorskip("openvino")
    asked = []
    monkeypatch.setattr(build, "keep_freed_memory", lambda: asked.append(1))
    load_student("colon-he", device=device)
    assert len(asked) == times
