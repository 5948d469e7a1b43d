"""Choosing layers and laying out pairs: steps 1 and 3 of *Distil a student*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from napari.layers import Image, Layer
from qtpy.QtCore import QObject, Signal

from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.distil.pairs import Planned
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.controllers.shared.image_choice import images_offered
from napari_histodistill.controllers.shared.job import Job, JobState, SlideJob
from napari_histodistill.controllers.shared.map_work import SlideOpened, open_work
from napari_histodistill.distill.pairs.pool import free_name
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.slide_layer import slide_of
from napari_histodistill.slides import Slide, open_slide
from napari_histodistill.widgets.distil.bench import SAME, DistilBench, PartnerLayer
from napari_histodistill.widgets.distil.layers import (
    SlidesBehind,
    describe,
    key_of,
    partner_layers,
    partner_of,
    show_same,
    sparse_layers,
)
from napari_histodistill.widgets.distil.steps import LayersStep, PairsStep
from napari_histodistill.widgets.shared.controls import explain
from napari_histodistill.widgets.shared.layer_watch import LayerWatch
from napari_histodistill.widgets.shared.slide_layers import (
    add_slide,
    layer_of_image,
    show_one_image,
)


@dataclass(frozen=True, slots=True)
class ChosenLayers:
    """The chosen layers, read as they are now.

    Attributes
    ----------
    sparse : Slide or None
        The H&E.
    layers : tuple of Layer or SameLayer
        The partners' layers; those that cannot be partners are left out.
    partners : tuple of Partner
        One for each.
    trouble : str
        Why one was left out; empty if none was.
    """

    sparse: Slide | None
    layers: tuple[PartnerLayer, ...]
    partners: tuple[Partner, ...]
    trouble: str


class Pairing(QObject):
    """Keeps the layer lists, the session's partners and the pairs in step.

    Attributes
    ----------
    pointed : Signal(object)
        Key of the layer that is highlighted among the partners.
    laying_out : Signal
        Pairs are about to be laid out, of the layers as they now are.
    """

    pointed = Signal(object)
    laying_out = Signal()

    def __init__(
        self, bench: DistilBench, layers: LayersStep, pairs: PairsStep
    ) -> None:
        super().__init__(bench)
        self.bench, self.layers, self.pairs = bench, layers, pairs
        self._sparse: list[Image] = []
        self._offered: list[Layer] = []
        layers.sparse.activated.connect(self.choose_sparse)
        layers.images.chosen.connect(self.choose_image)
        layers.partners.itemChanged.connect(lambda _item: self._ticks_changed())
        layers.partners.currentRowChanged.connect(self._point)
        pairs.preview.clicked.connect(self.preview)
        pairs.keep.clicked.connect(self.keep)
        pairs.forget.clicked.connect(self.forget_kept)
        pairs.held_out.activated.connect(self.hold_out)
        self._slides = SlidesBehind()
        self._watch = LayerWatch(bench.viewer, self)
        self._watch.listed.connect(self.layers_changed)
        self._watch.altered.connect(self.layers_altered)

    def close(self) -> None:
        """Let go of the viewer."""
        self._watch.close()

    def layers_changed(self) -> None:
        """Follow the viewer's layer list."""
        bench = self.bench
        sparse = sparse_layers(bench.viewer)
        offered = partner_layers(bench.viewer, bench.sparse_layer)
        if _are_same(sparse, self._sparse) and _are_same(offered, self._offered):
            return
        self._sparse = sparse
        if not any(x is bench.sparse_layer for x in sparse):
            bench.sparse_layer = sparse[0] if sparse else None
        self._choose()

    def layers_altered(self) -> None:
        """Follow layers that were moved, scaled or given other colours since."""
        session = self.bench.session
        seen = self._read_layers()
        if session.is_as_chosen(seen.sparse, seen.partners):
            return
        had_pairs = session.planned is not None
        self._take(seen)
        if had_pairs and not seen.trouble:
            self.bench.said.emit("The layers were changed: preview the pairs again.")

    def choose_sparse(self, index: int) -> None:
        """Take another layer as the H&E."""
        there = 0 <= index < len(self._sparse)
        self.bench.sparse_layer = self._sparse[index] if there else None
        self._choose()

    def choose_image(self, index: int) -> None:
        """Take another image of the H&E's file as the H&E, with a layer of its own."""
        bench, layer = self.bench, self.bench.sparse_layer
        slide = None if layer is None else slide_of(layer.metadata)
        if slide is None or slide.home is None or index == slide.info.image:
            return
        path = slide.home
        there = layer_of_image(bench.viewer, path, index)
        if there is not None:
            self._take_image(there)
            return

        def add(reports: list[SlideOpened]) -> None:
            for report in reports:
                self._take_image(add_slide(bench.viewer, report.slide))

        bench.said.emit(f"Opening {path.name}…")
        bench.pump.start(
            open_work(partial(open_slide, image=index), path),
            key=SlideJob.OPENING,
            on_reports=add,
            on_end=self._opened,
        )

    def _take_image(self, layer: Image) -> None:
        show_one_image(self.bench.viewer, layer)
        self.layers_changed()
        if layer in self._sparse:
            self.choose_sparse(self._sparse.index(layer))
        else:
            self.bench.said.emit(f"{layer.name} is in the list; it is not colour.")
            self._choose()

    def _opened(self, job: Job[object]) -> None:
        self.bench.said.emit(job.error)
        self.bench.changed.emit()

    def tick(self, *layers: PartnerLayer) -> None:
        """Take these layers as partners; :data:`SAME` is the H&E layer itself."""
        self.bench.partner_layers = list(layers)
        self._choose()

    def preview(self) -> None:
        """Lay out the pairs and read some to look at."""
        bench, step = self.bench, self.pairs
        size = step.tiles.model
        if not bench.attempt(lambda: bench.session.sample(size.um_per_px, size.px)):
            return
        if bench.session.why_no_pairs:
            bench.said.emit(bench.session.why_no_pairs)
            return
        self.laying_out.emit()
        bench.pump.start(
            bench.session.plan_work(),
            key=DistilJob.LAYING_OUT,
            on_reports=self._planned,
            on_end=self._ended,
        )
        bench.changed.emit()

    def keep(self) -> None:
        """Keep the pairs at hand and make room for another section's."""
        self.bench.session.keep()
        self.tick()  # the next section has a partner of its own

    def forget_kept(self) -> None:
        """Forget the sections that were kept."""
        self.bench.session.forget_kept()
        self.bench.changed.emit()

    def hold_out(self, index: int) -> None:
        """Hold out what was chosen."""
        self.bench.session.hold_out(index - 1 if index else None)
        self.bench.changed.emit()

    def show(self) -> None:
        """Draw both steps."""
        bench, session, layers = self.bench, self.bench.session, self.layers
        place = next(
            (k for k, x in enumerate(self._sparse) if x is bench.sparse_layer), -1
        )
        layers.show_sparse([x.name for x in self._sparse], place)
        sparse = self.bench.sparse_layer
        slide = None if sparse is None else slide_of(sparse.metadata)
        layers.images.show_offer(images_offered(slide))
        offered: list[PartnerLayer] = [*self._offered, SAME]
        titles: list[str] = []
        for x in offered:
            titles.append(SAME.value if x is SAME else free_name(describe(x), titles))
        layers.show_partners(
            titles, [any(x is y for y in bench.partner_layers) for x in offered]
        )
        layers.meaning.say(session.say_meaning())
        layers.say(session.why_no_pairs or session.say_layers())
        busy = bench.pump.is_active(DistilJob.LAYING_OUT)
        self.pairs.say("Laying out pairs…" if busy else session.say_pairs())
        twins = session.planned.twins if session.planned else ()
        self.pairs.gallery.show_twins(twins)
        why = session.why_no_pairs
        explain(self.pairs.preview, "Lay out the pairs and look at some.", why)
        self.pairs.show_kept(bool(session.kept), session.why_no_keep)
        self.pairs.offer_held_out(session.section_names, session.held_out)

    def _choose(self) -> None:
        bench = self.bench
        self._offered = partner_layers(bench.viewer, bench.sparse_layer)
        self._take(self._read_layers())

    def _read_layers(self) -> ChosenLayers:
        """Return the chosen layers as they are now."""
        layer = self.bench.sparse_layer
        if layer is None:
            return ChosenLayers(None, (), (), "")
        sparse = self._slides.of(layer)
        kept: list[PartnerLayer] = []
        partners: list[Partner] = []
        trouble = ""
        for chosen in self.bench.partner_layers:
            if chosen is SAME:
                kept.append(chosen)
                partners.append(Partner("same", PartnerKind.SAME))
                continue
            # Of a slide's channels, the lowest in the list stands for all.
            other = next((x for x in self._offered if show_same(x, chosen)), None)
            if other is None:
                continue
            try:
                partner = partner_of(other, layer, sparse, self._slides)
            except HistodistillError as error:
                trouble = str(error)
                continue
            names = [p.name for p in partners]
            partners.append(replace(partner, name=free_name(partner.name, names)))
            kept.append(other)
        return ChosenLayers(sparse, tuple(kept), tuple(partners), trouble)

    def _take(self, seen: ChosenLayers) -> None:
        """Give what was seen to the session."""
        bench = self.bench
        bench.pump.abandon(DistilJob.LAYING_OUT)
        bench.partner_layers = list(seen.layers)
        layer = bench.sparse_layer
        on = None if layer is None else key_of(layer)
        bench.session.choose(seen.sparse, seen.partners, on)
        bench.said.emit(seen.trouble)
        bench.changed.emit()

    def _ticks_changed(self) -> None:
        offered = [*self._offered, SAME]
        ticks = self.layers.ticked()
        self.tick(*(x for x, on in zip(offered, ticks, strict=True) if on))

    def _point(self, place: int) -> None:
        if 0 <= place < len(self._offered):
            self.pointed.emit(key_of(self._offered[place]).layer)

    def _planned(self, reports: list[Planned]) -> None:
        used = self.bench.session.take_pairs(reports[-1])
        self.bench.said.emit("" if used else "The layers were changed: preview again.")

    def _ended(self, job: Job[Planned]) -> None:
        if job.state is JobState.FAILED:
            self.bench.said.emit(job.error)
        self.bench.changed.emit()


def _are_same(first: Sequence[Layer], second: Sequence[Layer]) -> bool:
    return [id(x) for x in first] == [id(x) for x in second]
