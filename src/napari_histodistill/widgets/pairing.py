"""Choosing layers and laying out pairs: steps 1 and 3 of *Distil a student*."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil_pairs import MEANINGS, Partner, Planned
from napari_histodistill.controllers.job import Job, JobState
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.distil_bench import SAME, DistilBench
from napari_histodistill.widgets.distil_layers import (
    describe,
    partner_layers,
    partner_of,
    slide_behind,
    sparse_layers,
)
from napari_histodistill.widgets.distil_panel import LayersStep, PairsStep
from napari_histodistill.widgets.parts import explain

LAYING_OUT = "Laying out pairs"


class Pairing(QObject):
    """Keeps the layer lists, the session's partners and the pairs in step."""

    def __init__(
        self, bench: DistilBench, layers: LayersStep, pairs: PairsStep
    ) -> None:
        super().__init__(bench)
        self.bench, self.layers, self.pairs = bench, layers, pairs
        self._sparse: list[Any] = []
        self._offered: list[Any] = []
        layers.sparse.activated.connect(self.choose_sparse)
        layers.partners.itemChanged.connect(lambda _item: self._ticks_changed())
        pairs.preview.clicked.connect(self.preview)
        events = bench.viewer.layers.events
        self._sources = (events.inserted, events.removed, events.reordered)
        for event in self._sources:
            event.connect(self.layers_changed)

    def close(self) -> None:
        """Let go of the viewer."""
        for event in self._sources:
            event.disconnect(self.layers_changed)

    def layers_changed(self, _event: Any = None) -> None:
        """Follow the viewer's layer list."""
        bench = self.bench
        sparse = sparse_layers(bench.viewer)
        offered = partner_layers(bench.viewer, bench.sparse_layer)
        if _same(sparse, self._sparse) and _same(offered, self._offered):
            return
        self._sparse = sparse
        if not any(x is bench.sparse_layer for x in sparse):
            bench.sparse_layer = sparse[0] if sparse else None
        self._choose()

    def choose_sparse(self, index: int) -> None:
        """Take another layer as the H&E."""
        there = 0 <= index < len(self._sparse)
        self.bench.sparse_layer = self._sparse[index] if there else None
        self._choose()

    def tick(self, *layers: Any) -> None:
        """Take these layers as partners; :data:`SAME` is the H&E layer itself."""
        self.bench.partner_layers = list(layers)
        self._choose()

    def preview(self) -> None:
        """Lay out the pairs and read some to look at."""
        bench, step = self.bench, self.pairs
        mpp, px = step.mpp.value(), step.px.value()
        if not bench.attempt(lambda: bench.session.sample(mpp, px)):
            return
        if bench.session.why_no_pairs:
            bench.said.emit(bench.session.why_no_pairs)
            return
        bench.pump.start(
            bench.session.plan_work(),
            name=LAYING_OUT,
            on_reports=self._planned,
            on_end=self._ended,
        )
        bench.changed.emit()

    def show(self) -> None:
        """Draw both steps."""
        bench, session, layers = self.bench, self.bench.session, self.layers
        place = next(
            (k for k, x in enumerate(self._sparse) if x is bench.sparse_layer), -1
        )
        layers.show_sparse([x.name for x in self._sparse], place)
        offered = [*self._offered, SAME]
        layers.show_partners(
            [SAME if x is SAME else describe(x) for x in offered],
            [any(x is y for y in bench.partner_layers) for x in offered],
        )
        kinds = dict.fromkeys(p.kind for p in session.partners)
        layers.mean(" ".join(MEANINGS[kind] for kind in kinds))
        layers.say(session.why_no_pairs or session.say_layers())
        busy = bench.pump.is_active(LAYING_OUT)
        self.pairs.say("Laying out pairs…" if busy else session.say_pairs())
        twins = session.planned.twins if session.planned else ()
        self.pairs.gallery.show_twins(twins)
        why = session.why_no_pairs
        explain(self.pairs.preview, "Lay out the pairs and look at some.", why)

    def _choose(self) -> None:
        bench = self.bench
        self._offered = partner_layers(bench.viewer, bench.sparse_layer)
        known = {p.name: p for p in bench.session.partners}
        sparse = (
            None if bench.sparse_layer is None else slide_behind(bench.sparse_layer)
        )
        kept, partners, trouble = [], [], ""
        for layer in bench.partner_layers:
            if sparse is None:
                break
            if layer is SAME:
                kept.append(layer)
                partners.append(Partner("same", "same"))
            elif any(layer is x for x in self._offered):
                try:
                    partners.append(partner_of(layer, bench.sparse_layer, sparse))
                    kept.append(layer)
                except HistodistillError as error:
                    trouble = str(error)
        bench.partner_layers = kept
        bench.session.choose(sparse, partners)
        for k, partner in enumerate(partners):
            before = known.get(partner.name)
            if before is not None and before.registration is not None:
                # Not where the layer lies now: that is what the registration made.
                kept_as_was = replace(before, slide=partner.slide, spots=partner.spots)
                bench.session.put_partner(k, kept_as_was)
        bench.said.emit(trouble)
        bench.changed.emit()

    def _ticks_changed(self) -> None:
        offered = [*self._offered, SAME]
        ticks = self.layers.ticked()
        self.tick(*(x for x, on in zip(offered, ticks, strict=True) if on))

    def _planned(self, reports: list[Planned]) -> None:
        self.bench.session.planned = reports[-1]
        self.bench.said.emit("")

    def _ended(self, job: Job[Any]) -> None:
        if job.state is JobState.FAILED:
            self.bench.said.emit(job.error)
        self.bench.changed.emit()


def _same(first: list[Any], second: list[Any]) -> bool:
    return [id(x) for x in first] == [id(x) for x in second]
