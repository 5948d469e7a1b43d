"""Spots from a file, in step 1: read in a job, asked about, laid on the H&E."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from napari.layers import Layer
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.spots import (
    answers_for,
    place_on,
    why_no_spots,
)
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.spots.spot_files import ENDINGS, ZARR_FILES, read_spots
from napari_histodistill.distill.spots.spot_tables import SpotTable
from napari_histodistill.distill.spots.spot_wish import SeveralLibrariesError
from napari_histodistill.layers.spot_layer import spot_layer
from napari_histodistill.running import CancelToken
from napari_histodistill.widgets.distil.asking.library_question import (
    LibraryNames,
    SpotsWanted,
)
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.layers import own_to_world
from napari_histodistill.widgets.distil.pairing import Pairing
from napari_histodistill.widgets.distil.steps import LayersStep
from napari_histodistill.widgets.distil.unit_question import SpotUnits
from napari_histodistill.widgets.shared.controls import explain
from napari_histodistill.widgets.shared.forms import ask_file

FILES = f"Spots ({' '.join('*' + ending for ending in (*ENDINGS, *ZARR_FILES))})"
TIP = (
    "Spatial transcriptomics from a file: AnnData (.h5ad; of a Zarr folder, also "
    "SpatialData's, its zarr.json or .zattrs), Space Ranger's matrix "
    "(filtered_feature_bc_matrix.h5 beside its folder spatial), Xenium's "
    "(cell_feature_matrix.h5 beside cells.csv.gz), or a table with a row for every "
    "spot, columns for its position and one for each gene."
)


class SpotFiles(QObject):
    """Keeps a file that was read until it is known what its positions mean."""

    def __init__(self, bench: DistilBench, step: LayersStep, pairing: Pairing) -> None:
        super().__init__(bench)
        self._bench, self._step, self._pairing = bench, step, pairing
        self._table: SpotTable | None = None
        self._path: Path | None = None
        self._wanted = SpotsWanted()
        self._names: tuple[str, ...] = ()
        self._layer: Layer | None = None
        step.library.answered.connect(self.answer_library)
        step.library.dropped.connect(self.drop)
        step.spots.clicked.connect(lambda: self.choose())
        step.unit.answered.connect(self.answer)
        step.unit.dropped.connect(self.drop)

    def choose(self, path: Path | None = None) -> None:
        """Read a file; asks which where none is given."""
        if path is None:
            path = ask_file("Spots from a file", self._step, FILES)
        if path is None:
            return
        self.drop()
        self._path, self._names, self._layer = path, (), None
        self._start(path, SpotsWanted())

    def answer_library(self, wanted: SpotsWanted) -> None:
        """Read what a person wants of the file."""
        if self._path is not None:
            path = self._path
            self._bench.attempt(lambda: self._start(path, wanted))

    def _start(self, path: Path, wanted: SpotsWanted) -> None:
        how = wanted.options()
        self._wanted = wanted

        def work(cancel: CancelToken) -> Iterator[SpotTable | LibraryNames]:
            try:
                yield read_spots(path, cancel=cancel, **how)
            except SeveralLibrariesError as error:
                yield LibraryNames(str(error), error.names)

        self._bench.said.emit(f"Reading {path.name}…")
        self._bench.pump.start(
            work, key=DistilJob.READING_SPOTS, on_reports=self._read, on_end=self._ended
        )

    def answer(self, units: SpotUnits) -> None:
        """Lay the file's spots as a person says that its positions are meant."""
        if self._table is not None:
            self._add(self._table, units)

    def drop(self) -> None:
        """Forget a file that was read."""
        self._table = self._path = None
        self._step.unit.hide()
        self._step.library.hide()

    def show(self) -> None:
        """Draw the button."""
        explain(self._step.spots, TIP, why_no_spots(self._bench.session.sparse))
        taught = any(x is self._layer for x in self._bench.partner_layers)
        asking = self._step.library
        if self._layer is None or self._path is None:
            return
        if not taught:
            asking.hide()
        elif not asking.isVisibleTo(self._step):
            asking.offer(self._wanted, self._names)

    def _read(self, reports: list[SpotTable | LibraryNames]) -> None:
        table, sparse = reports[-1], self._bench.session.sparse
        self._bench.said.emit("")
        if isinstance(table, LibraryNames):
            self._names = table.names
            self._step.library.ask(table.words, table.names)
            return
        self._step.library.hide()
        answers = answers_for(table, sparse)
        if not answers:
            self._add(table, SpotUnits())
            return
        self._table = table
        mpp = None if sparse is None else sparse.usable_mpp
        self._step.unit.ask(
            f"{table.name}: {len(table.positions):,} spots, {len(table.genes):,} genes."
            " What are their positions?",
            answers,
            None if mpp is None else mpp.mean,
        )

    def _add(self, table: SpotTable, units: SpotUnits) -> None:
        bench, sparse = self._bench, self._bench.session.sparse
        if sparse is None:
            return

        def add() -> None:
            placed = place_on(sparse, table, units.positions, units.um_per_px)
            made = spot_layer(
                placed.spots,
                size_um=placed.size_um,
                affine=own_to_world(bench.sparse_layer, sparse.usable_mpp),
            )
            others = [x for x in bench.partner_layers if x is not self._layer]
            if self._layer in bench.viewer.layers:  # read again, otherwise
                bench.viewer.layers.remove(self._layer)
            self._layer = bench.viewer.add_layer(Layer.create(*made))
            self._table = None
            self._step.unit.hide()
            self._pairing.tick(*others, self._layer)
            bench.said.emit(" ".join(table.notes))

        bench.attempt(add)

    def _ended(self, job: Job[SpotTable | LibraryNames]) -> None:
        if job.state is JobState.FAILED:
            self._bench.said.emit(job.error)
