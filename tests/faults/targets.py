"""What is fed to a parser, and what counts as a finding.

A target takes bytes, writes them to a file and does what a person would do with it.
Anything but a good end or an error of our own tree is a finding; so are more than
512 MB of new memory and more than five seconds.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import HistodistillError
from tests.faults import folder_targets as inside
from tests.faults import folders, mutating, seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_GROWTH_MB = 512
MAX_SECONDS = 5.0
MAX_WAIT_S = 90
"""However busy the machine, nothing takes that long unless it waits for ever."""


@dataclass(frozen=True)
class Target:
    """One parser: where its seeds come from, how they are spoilt, what is called."""

    name: str
    suffixes: tuple[str, ...]
    seeds: Callable[[], list[bytes]]
    mutate: mutating.Mutator
    use: Callable[[Path], object]
    file_name: str = "input"


@dataclass(frozen=True)
class Outcome:
    """What one input did.

    Attributes
    ----------
    kind : str
        ``"good"``, ``"refused"``, or the kind of finding.
    detail : str
        The error's words, megabytes or seconds.
    """

    kind: str
    detail: str = ""

    @property
    def is_finding(self) -> bool:
        return self.kind not in {"good", "refused"}


def use_slide(path: Path) -> None:
    """Open a slide and read corners, the coarsest level, and the label."""
    from napari_histodistill.geometry import Region
    from napari_histodistill.slides import open_slide

    with open_slide(path) as slide:
        height, width = slide.shape
        repr(slide)
        last = len(slide.level_infos) - 1
        slide.world(last)
        for level, y, x in ((0, 0, 0), (0, height - 64, width - 64), (last, 0, 0)):
            with contextlib.suppress(HistodistillError):
                slide.read(Region(y=y, x=x, height=64, width=64), level=level)
        for name in slide.associated_images[:3]:
            with contextlib.suppress(HistodistillError):
                slide.read_associated(name)


def use_spec(path: Path) -> None:
    """Read a student's spec."""
    from napari_histodistill.students.bundle import load_spec

    load_spec(path.parent)


def use_recipe(path: Path) -> None:
    """Read a recipe."""
    from napari_histodistill.distill.reading import read_recipe

    read_recipe(path)


def use_manifest(path: Path) -> None:
    """Read a tile folder and its first picture."""
    from napari_histodistill.distill.pairs.tilefolder import read_tile_folder

    if not (path.parent / "0.png").exists():
        from PIL import Image

        for name in ("0.png", "1.png"):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path.parent / name)
    found = read_tile_folder(path.parent)
    found.folds()
    found.case_ids()
    found.read(found.tiles[0], 8)


def _folder(
    name: str,
    make: Callable[[], list[bytes]],
    use: Callable[[Path], object],
    called: str,
) -> Target:
    """Return a target that is a folder, packed."""
    unpack = partial(inside.in_a_folder, use, name=called)
    return Target(name, (".tar",), make, folders.mutate_folder, unpack)


TARGETS = {
    target.name: target
    for target in (
        _folder("run", inside.run_seeds, inside.use_run, "run"),
        _folder("store", inside.store_seeds, inside.use_store, "store.zarr"),
        _folder("pairs", inside.pairs_seeds, inside.use_pairs, "pairs.zarr"),
        _folder("zarr", inside.zarr_seeds, inside.use_zarr, "slide.zarr"),
        _folder("bundle", inside.bundle_seeds, inside.use_bundle, "student"),
        Target(
            "dicom",
            (".dcm",),
            inside.dicom_seeds,
            folders.mutate_dicom,
            inside.use_dicom,
        ),
        Target(
            "h5ad",
            (".h5ad",),
            inside.h5ad_seeds,
            folders.mutate_hdf5,
            inside.use_h5ad,
        ),
        Target(
            "tiff",
            (".tif", ".tif", ".svs", ".ndpi", ".qptiff", ".ome.tif"),
            seeds.tiff_seeds,
            mutating.mutate_tiff,
            use_slide,
        ),
        Target(
            "spec",
            (".json",),
            seeds.spec_seeds,
            mutating.mutate_text,
            use_spec,
            "spec",
        ),
        Target(
            "recipe",
            (".toml",),
            seeds.recipe_seeds,
            mutating.mutate_text,
            use_recipe,
        ),
        Target(
            "manifest",
            (".csv",),
            seeds.manifest_seeds,
            mutating.mutate_text,
            use_manifest,
            "manifest",
        ),
    )
}


def try_input(target: Target, content: bytes, folder: Path, suffix: str) -> Outcome:
    """Feed one input to a target and judge what happened."""
    path = folder / f"{target.file_name}{suffix}"
    path.write_bytes(content)
    before, began = _forget_peak(), time.process_time()
    try:
        with _not_longer_than(MAX_WAIT_S):
            outcome = _used(target, path)
    except _WaitedError:
        return Outcome("hang", f"over {MAX_WAIT_S} s")
    seconds, grown = time.process_time() - began, _peak_mb() - before
    if outcome.is_finding:
        return outcome
    if grown > MAX_GROWTH_MB:
        return Outcome("memory", f"{grown:.0f} MB; {outcome.detail}")
    if seconds > MAX_SECONDS:
        return Outcome("slow", f"{seconds:.1f} s; {outcome.detail}")
    return outcome


class _WaitedError(BaseException):
    """Raised in the middle of a wait; nothing that is tested catches it."""


@contextlib.contextmanager
def _not_longer_than(seconds: int) -> Iterator[None]:
    """End what waits for a pipe that nobody writes to."""

    def end(_signal: int, _frame: object) -> None:
        raise _WaitedError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _used(target: Target, path: Path) -> Outcome:
    try:
        target.use(path)
    except HistodistillError as error:
        message = str(error)
        # The sentence is shown on one line of a terminal or a dialogue.
        if len(message) > 1500:
            return Outcome("long message", f"{len(message)} characters: {message[:80]}")
        return Outcome("refused", message)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        import traceback

        last = traceback.extract_tb(error.__traceback__)
        ours = [f for f in last if "napari_histodistill" in f.filename]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
        words = " ".join(str(error).split())[:100]
        return Outcome(type(error).__name__, f"in {where}: {words}")
    return Outcome("good")


def suffix_of(target: Target, number: int) -> str:
    """Return the ending that the input of this number is given."""
    return target.suffixes[number % len(target.suffixes)]


def read_seeds(target: Target, extra: Sequence[Path] = ()) -> list[bytes]:
    """Return a target's seeds and the content of further files."""
    return [*target.seeds(), *(path.read_bytes() for path in extra)]


def _forget_peak() -> float:
    """Start counting the process's peak of memory anew; return what it has now, MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_mb()


def _peak_mb() -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
