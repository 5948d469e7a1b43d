"""``histodistill demo`` says what it does before anything slow is imported."""

from __future__ import annotations

import subprocess
import sys

FIRST = """
import sys
from napari_histodistill.cli import demo as _, main
import napari_histodistill.cli.demo

module = sys.modules["napari_histodistill.cli.demo"]

def tell(line):
    slow = {"torch", "napari", "qtpy", "timm", "sklearn"} & set(sys.modules)
    print(line, sorted(slow))
    raise SystemExit

module.tell = tell
main(["demo"])
"""


def test_the_first_word_comes_before_the_slow_imports():
    ended = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, check=False
    )
    assert "four strokes teach it four tissues" in ended.stdout, ended.stderr
    assert ended.stdout.rstrip().endswith("[]")
