"""What is done with a folder that was spoilt, and the good folders to begin with."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import HistodistillError, InputError
from tests.faults import raw_dicom
from tests.faults.folders import KEPT, PRECIOUS, made, unpacked

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path


def all_of(*steps: Callable[[], object]) -> None:
    """Do each step, whatever the others do; raise the first refusal at the end."""
    refusals = []
    for step in steps:
        try:
            step()
        except HistodistillError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def in_a_folder(use: Callable[[Path], object], path: Path, name: str) -> None:
    """Unpack a folder, use it, and see that nothing beside it was written to."""
    folder = unpacked(path.read_bytes(), path.parent / "folder" / name)
    kept = folder.parent / PRECIOUS
    try:
        use(folder)
    finally:
        if kept.read_bytes() != KEPT or not kept.is_file():
            msg = "a file beside the folder was changed"
            raise AssertionError(msg)


def use_run(folder: Path) -> None:
    """Look at a run, and read what going on with it needs."""
    from napari_histodistill.distill.runs.checkpoints import read_checkpoint
    from napari_histodistill.distill.runs.events import (
        TrainingReport,
        append_event,
        read_events,
    )
    from napari_histodistill.distill.runs.folder import check_run, read_run, run_data
    from napari_histodistill.distill.runs.preview import asked_every, newest_preview
    from napari_histodistill.distill.runs.process import look_at

    def go_on() -> None:
        check_run(folder)
        for name in ("last", "best"):
            if (folder / "checkpoints" / name).exists():
                read_checkpoint(folder / "checkpoints" / name)

    all_of(
        partial(read_run, folder),
        partial(run_data, folder),
        partial(read_events, folder),
        partial(look_at, folder),
        partial(asked_every, folder),
        partial(newest_preview, folder),
        go_on,
        partial(append_event, folder, TrainingReport("step", 1, 2)),
    )


def use_store(folder: Path) -> None:
    """Read a store of embeddings."""
    from napari_histodistill.maps.store import EmbeddingStore

    with EmbeddingStore.open(folder) as store:
        repr(store)
        store.status.sum()
        store.read()


def use_pairs(folder: Path) -> None:
    """Read stored pairs and their first picture."""
    from napari_histodistill.distill.pairs.store import read_pairs

    repr(read_pairs(folder))


def use_zarr(folder: Path) -> None:
    """Open an OME-Zarr as a slide and as a map."""
    from napari_histodistill.layers.saved_map import saved_map
    from tests.faults.targets import use_slide

    all_of(partial(saved_map, folder), partial(use_slide, folder))


def use_bundle(folder: Path) -> None:
    """Load a student."""
    from napari_histodistill.students import load_student

    load_student(folder, device="cpu:torch")


def use_dicom(path: Path) -> None:
    """Open a DICOM file alone, and as the neighbour of a good one."""
    from tests.faults.targets import use_slide

    alone, beside = (path.parent / name for name in ("alone", "beside"))
    for folder in (alone, beside):
        folder.mkdir(exist_ok=True)
        (folder / "spoilt.dcm").write_bytes(path.read_bytes())
    (beside / "good.dcm").write_bytes(raw_dicom.dicom())
    use_slide(beside / "good.dcm")
    use_slide(alone / "spoilt.dcm")


READING_S = 5
"""CPU seconds that spots may take here; in the window it is two minutes."""


def use_h5ad(path: Path) -> None:
    """Read spots in a process that is bounded as that of the window, but forked."""
    context = multiprocessing.get_context("fork")
    answers, questions = context.Pipe(duplex=False)
    process = context.Process(target=_read_spots, args=(path, questions))
    process.start()
    questions.close()
    try:
        said = answers.recv()
    except EOFError:  # it crashed, or was given up
        said = None
    finally:
        answers.close()
        process.join()
    if said is None:
        msg = f"reading it ended early (status {process.exitcode})"
        raise InputError(msg)
    if isinstance(said, BaseException):
        raise said


def _read_spots(path: Path, answers: Connection) -> None:
    from napari_histodistill.distill.spots.h5ad_files import read_h5ad
    from napari_histodistill.distill.spots.spot_process import bound_memory
    from napari_histodistill.distill.spots.spot_tables import check_spots

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (READING_S, READING_S))
    bound_memory(path.stat().st_size)
    try:
        check_spots(read_h5ad(path))
    except MemoryError:
        answers.send(InputError("it needs more memory than there is"))
    except HistodistillError as error:
        answers.send(error)
    except Exception as error:  # noqa: BLE001 - a finding
        answers.send(AssertionError(f"{type(error).__name__}: {error}"))
    else:
        answers.send("read")


@cache
def run_seeds() -> list[bytes]:
    """Return a run that was finished, and one that was only begun."""
    from napari_histodistill.distill.runs.folder import start_run
    from napari_histodistill.distill.runs.run import train
    from tests.distill.small_runs import small_config, write_textures

    def begun(folder: Path) -> Path:
        tiles = write_textures(folder.parent / "tiles")
        return start_run(small_config(schedule={"steps": 2}), folder, tiles)

    def finished(folder: Path) -> None:
        list(train(begun(folder), device="cpu"))

    return [made(finished), made(begun)]


@cache
def store_seeds() -> list[bytes]:
    """Return a store of embeddings."""
    from tests.maps.helpers import filled_store

    return [made(lambda folder: filled_store(folder, np.random.default_rng(0)))]


@cache
def pairs_seeds() -> list[bytes]:
    """Return stored pairs."""
    from tests.faults.test_hostile_pairs import write

    return [made(write)]


@cache
def zarr_seeds() -> list[bytes]:
    """Return OME-Zarr slides of both formats."""
    from zarr.storage import LocalStore

    from tests.slides.factory import picture
    from tests.slides.formats.test_omezarr import write

    def slide(folder: Path, zarr_format: int) -> None:
        levels = [picture(100, 150), picture(50, 75)]
        store = LocalStore(folder)
        write(store, [a.transpose(2, 0, 1) for a in levels], zarr_format=zarr_format)

    return [made(partial(slide, zarr_format=k)) for k in (2, 3)]


@cache
def bundle_seeds() -> list[bytes]:
    """Return a student with two classes."""
    from tests.faults.workplace import write_bundle

    return [made(write_bundle)]


@cache
def dicom_seeds() -> list[bytes]:
    """Return slides with and without types, in frames, and with nested sequences."""
    from tests.faults.test_hostile_dicom import jpeg, jpeg_slide

    nested = raw_dicom.nested(4, 0x00081140)
    ends = raw_dicom.element(0xFFFEE00D, "SQ", implicit=True)
    ends += raw_dicom.element(0xFFFEE0DD, "SQ", implicit=True)
    return [
        raw_dicom.dicom(),
        raw_dicom.dicom(syntax=raw_dicom.IMPLICIT),
        raw_dicom.dicom(before=nested + ends * 4),
        jpeg_slide(jpeg()),
        jpeg_slide(jpeg(), table=bytes(8)),
    ]


@cache
def h5ad_seeds() -> list[bytes]:
    """Return small AnnData files, of the oldest layout of HDF5 and of the newest."""
    import io

    import h5py

    from tests.faults.hostile_spots import good

    seeds = []
    for layout in ("earliest", "latest"):
        out = io.BytesIO()
        with h5py.File(out, "w", libver=layout) as file:
            scratch = made(lambda folder: _spots(folder, good))
            _copy(scratch, file)
        seeds.append(out.getvalue())
    return seeds


def _spots(folder: Path, good: Callable[[Path], object]) -> None:
    folder.mkdir()
    good(folder / "spots.h5ad").close()  # type: ignore[attr-defined]


def _copy(tar: bytes, target: object) -> None:
    import io
    import tarfile

    import h5py

    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        content = found.extractfile("spots.h5ad").read()  # type: ignore[union-attr]
    with h5py.File(io.BytesIO(content)) as source:
        target.attrs.update(source.attrs)  # type: ignore[attr-defined]
        for name in source:
            source.copy(name, target)
