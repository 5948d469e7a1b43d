"""Cancelling a run

From the request to the end of the run, asked at different moments of `imagenet-lite0`
on the painted sample slide; tiles and tokens, a cell every 32 µm. What was
computed stays in the store.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from napari_histodistill.errors import Cancelled
from napari_histodistill.maps import embed_slide
from napari_histodistill.maps.engine import plan_grid
from napari_histodistill.running import CancelToken
from napari_histodistill.samples import synthetic_slide
from napari_histodistill.slides import open_slide
from napari_histodistill.students import load_student
from tests.bench.figures import Figure

AFTER_S = (0.4, 0.8, 1.1, 1.5, 1.9)


def measure() -> list[Figure]:
    """Return the figures of this section."""
    student = load_student("imagenet-lite0")

    def one(mode: str, stride_um: float, after_s: float) -> float:
        token, asked = CancelToken(), 0.0

        def ask() -> None:
            nonlocal asked
            asked = time.perf_counter()
            token.cancel()

        with (
            tempfile.TemporaryDirectory() as folder,
            open_slide(synthetic_slide()) as slide,
        ):
            grid = plan_grid(slide, student, stride_um=stride_um, mode=mode)
            store = Path(folder) / "store.zarr"
            reports = embed_slide(
                slide, student, store, grid=grid, mode=mode, cancel=token
            )
            for report in reports:
                if report.cells_per_s:  # under way: the clock starts
                    threading.Timer(after_s, ask).start()
                    break
            try:
                for _ in reports:
                    pass
            except Cancelled:
                return time.perf_counter() - asked
        msg = f"the {mode} run was over before it was asked to stop"
        raise RuntimeError(msg)

    tiles = tuple(one("tiles", 32, after) for after in AFTER_S)
    tokens = tuple(one("tokens", 32, after) for after in AFTER_S)
    return [
        Figure("until a run of tiles has stopped", tiles, "s"),
        Figure("until a run of tokens has stopped", tokens, "s"),
    ]
