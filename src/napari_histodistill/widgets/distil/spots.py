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
from napari_histodistill.distill.spots.spot_files import ENDINGS, read_spots
from napari_histodistill.distill.spots.spot_tables import SpotTable
from napari_histodistill.layers.spot_layer import spot_layer
from napari_histodistill.running import CancelToken
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.layers import own_to_world
from napari_histodistill.widgets.distil.pairing import Pairing
from napari_histodistill.widgets.distil.steps import LayersStep
from napari_histodistill.widgets.distil.unit_question import SpotUnits
from napari_histodistill.widgets.shared.controls import explain
from napari_histodistill.widgets.shared.forms import ask_file

FILES = f"Spots ({' '.join('*' + ending for ending in ENDINGS)})"
TIP = (
    "Spatial transcriptomics from a file: AnnData (.h5ad), Space Ranger's matrix "
    "(filtered_feature_bc_matrix.h5 beside its folder spatial), or a table with a row "
    "for every spot, columns for its position and one for each gene."
)


class SpotFiles(QObject):
    """Keeps a file that was read until it is known what its positions mean."""

    def __init__(self, bench: DistilBench, step: LayersStep, pairing: Pairing) -> None:
        super().__init__(bench)
        self._bench, self._step, self._pairing = bench, step, pairing
        self._table: SpotTable | None = None
        step.spots.clicked.connect(lambda: self.choose())
        step.unit.answered.connect(self.answer)
        step.unit.dropped.connect(self.drop)

    def choose(self, path: Path | None = None) -> None:
        """Read a file; asks which where none is given."""
        if path is None:
            path = ask_file("Spots from a file", self._step, FILES)
        if path is None:
            return
        source = path
        self.drop()

        def work(cancel: CancelToken) -> Iterator[SpotTable]:
            yield read_spots(source, cancel=cancel)

        self._bench.said.emit(f"Reading {source.name}…")
        self._bench.pump.start(
            work, key=DistilJob.READING_SPOTS, on_reports=self._read, on_end=self._ended
        )

    def answer(self, units: SpotUnits) -> None:
        """Lay the file's spots as a person says that its positions are meant."""
        if self._table is not None:
            self._add(self._table, units)

    def drop(self) -> None:
        """Forget a file that was read."""
        self._table = None
        self._step.unit.hide()

    def show(self) -> None:
        """Draw the button."""
        explain(self._step.spots, TIP, why_no_spots(self._bench.session.sparse))

    def _read(self, reports: list[SpotTable]) -> None:
        table, sparse = reports[-1], self._bench.session.sparse
        self._bench.said.emit("")
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
            points = bench.viewer.add_layer(Layer.create(*made))
            self.drop()
            self._pairing.tick(*bench.partner_layers, points)
            bench.said.emit(" ".join(table.notes))

        bench.attempt(add)

    def _ended(self, job: Job[SpotTable]) -> None:
        if job.state is JobState.FAILED:
            self._bench.said.emit(job.error)
