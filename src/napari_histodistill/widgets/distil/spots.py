"""Spots from a file, in step 1: read aside, asked about, laid on the H&E."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.shared.job import Job, JobState
from napari_histodistill.distill.layers.spot_files import ENDINGS, read_spots
from napari_histodistill.distill.layers.spot_tables import (
    LengthUnit,
    SpotTable,
    check_overlap,
    place_spots,
)
from napari_histodistill.layers.spot_layer import spot_layer
from napari_histodistill.running import CancelToken
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.layers import own_to_world
from napari_histodistill.widgets.distil.pairing import Pairing
from napari_histodistill.widgets.distil.steps import LayersStep
from napari_histodistill.widgets.shared.controls import explain

FILES = f"Spots ({' '.join('*' + ending for ending in ENDINGS)})"
TIP = (
    "Spatial transcriptomics from a file: AnnData (.h5ad), or a table with a row for "
    "every spot, columns for its position and one for each gene."
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
            chosen, _ = QFileDialog.getOpenFileName(
                self._step, "Spots from a file", "", FILES
            )
            path = Path(chosen) if chosen else None
        if path is None:
            return
        source = path
        self.drop()

        def work(_cancel: CancelToken) -> Iterator[SpotTable]:
            yield read_spots(source)

        self._bench.said.emit(f"Reading {source.name}…")
        self._bench.pump.start(
            work, key=DistilJob.READING_SPOTS, on_reports=self._read, on_end=self._ended
        )

    def answer(self, unit: LengthUnit, um_per_px: float | None) -> None:
        """Take what a person says of the positions; None is the H&E's own pixels."""
        table, sparse = self._table, self._bench.session.sparse
        if table is None or sparse is None:
            return
        if unit == "px" and um_per_px is None and sparse.usable_mpp is not None:
            um_per_px = sparse.usable_mpp.mean
        self._add(table, unit, um_per_px)

    def drop(self) -> None:
        """Forget a file that was read."""
        self._table = None
        self._step.unit.hide()

    def show(self) -> None:
        """Draw the button."""
        sparse = self._bench.session.sparse
        why = ""
        if sparse is None:
            why = "Open the H&E first: spots are laid on it."
        elif sparse.usable_mpp is None:
            why = "The H&E does not say how many µm a pixel spans."
        explain(self._step.spots, TIP, why)

    def _read(self, reports: list[SpotTable]) -> None:
        table = reports[-1]
        self._bench.said.emit("")
        if table.unit == "µm" or (table.unit == "px" and table.um_per_px is not None):
            self._add(table, None, None)
            return
        self._table = table
        sparse = self._bench.session.sparse
        mpp = None if sparse is None or sparse.usable_mpp is None else sparse.usable_mpp
        self._step.unit.ask(
            f"{table.name}: {len(table.positions):,} spots, {len(table.genes):,} genes."
            " What are their positions?",
            he_um_per_px=None if mpp is None else mpp.mean,
            pixels=table.unit == "px",
        )

    def _add(
        self, table: SpotTable, unit: LengthUnit | None, um_per_px: float | None
    ) -> None:
        bench = self._bench

        def add() -> None:
            sparse, layer = bench.session.sparse, bench.sparse_layer
            assert sparse is not None
            spots = place_spots(table, unit, um_per_px)
            mpp = sparse.require_mpp()
            size_um = sparse.shape[0] * mpp.y, sparse.shape[1] * mpp.x
            check_overlap(spots, size_um, sparse.name)
            factor = 1.0
            if (unit or table.unit) == "px":
                factor = um_per_px or table.um_per_px or 1.0
            made = spot_layer(
                spots,
                size_um=None if table.spot_size is None else table.spot_size * factor,
                affine=own_to_world(layer, sparse.usable_mpp),
            )
            points = bench.viewer.add_layer(Layer.create(*made))
            self.drop()
            self._pairing.tick(*bench.partner_layers, points)
            bench.said.emit(" ".join(table.notes))

        bench.attempt(add)

    def _ended(self, job: Job[Any]) -> None:
        if job.state is JobState.FAILED:
            self._bench.said.emit(job.error)
