"""The same thing a thousand times: threads, file handles and memory stay flat."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

WARM_UP = 20
"""Rounds after which caches and pools are what they will be."""


@dataclass(frozen=True)
class Held:
    """What a process holds on to.

    Attributes
    ----------
    threads, handles : int
        How many.
    memory_mb : float
        Resident.
    """

    threads: int
    handles: int
    memory_mb: float


@dataclass(frozen=True)
class Growth:
    """How often something was done, and what was held after warming up and at the end.

    Attributes
    ----------
    rounds : int
        How often.
    before, after : Held
        After the warm-up, and at the end.
    """

    rounds: int
    before: Held
    after: Held

    @property
    def grown_mb(self) -> float:
        """Memory that came on top, MB."""
        return self.after.memory_mb - self.before.memory_mb


def held() -> Held:
    """Return what this process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        threads=threading.active_count(),
        handles=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        memory_mb=round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
    )


def open_and_close(folder: Path, rounds: int) -> Growth:
    """Open slides (a good TIFF, a bad one, a plain image), read, close."""
    import contextlib

    import numpy as np
    from PIL import Image

    from napari_histodistill.errors import SlideError
    from napari_histodistill.geometry import Region
    from napari_histodistill.slides import open_slide
    from tests.faults.hostile_tiffs import hostile_tiffs
    from tests.faults.workplace import write_slide

    folder.mkdir(parents=True, exist_ok=True)
    good = write_slide(folder / "good.ome.tif", cells=(30, 40))
    bad = folder / "bad.tif"
    bad.write_bytes(hostile_tiffs()["JPEG of 65,535 px"])
    plain = folder / "plain.png"
    Image.fromarray(np.full((300, 300, 3), 200, np.uint8)).save(plain)

    def once() -> None:
        for path in (good, bad, plain):
            with contextlib.suppress(SlideError), open_slide(path) as slide:
                slide.read(Region(y=0, x=0, height=256, width=256))
                slide.levels[-1][:64, :64].compute(scheduler="synchronous")

    return _again_and_again(once, rounds)


def embed_again_and_again(folder: Path, rounds: int) -> Growth:
    """Run the engine over a slide: to the end, closed midway, and refused, in turns."""
    import itertools

    from napari_histodistill.errors import StoreError
    from napari_histodistill.maps import EmbeddingStore, embed_slide
    from napari_histodistill.slides import open_slide
    from tests.fakes import colour_student
    from tests.faults.workplace import write_slide

    folder.mkdir(parents=True, exist_ok=True)
    path = write_slide(folder / "run.ome.tif", cells=(8, 10))
    student = colour_student()
    number = itertools.count()

    def once() -> None:
        store = folder / "run.zarr"
        shutil.rmtree(store, ignore_errors=True)
        with open_slide(path) as slide:
            reports = embed_slide(slide, student, store, tissue=None)
            how = next(number) % 3
            if how == 1:
                for report in reports:
                    if report.block is not None:
                        break
                reports.close()
                return
            list(reports)
            if how == 2:
                with EmbeddingStore.open(store, writable=True):
                    try:
                        list(embed_slide(slide, student, store, tissue=None))
                    except StoreError:
                        return
                    raise AssertionError

    return _again_and_again(once, rounds)


def _again_and_again(once: object, rounds: int) -> Growth:
    assert callable(once)
    for _ in range(min(WARM_UP, rounds)):
        once()
    before = held()
    for _ in range(rounds):
        once()
    return Growth(rounds, before, held())
