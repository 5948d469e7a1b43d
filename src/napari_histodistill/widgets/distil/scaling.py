"""µm per pixel of both layers, in step 1: shown with their source, and typed."""

from __future__ import annotations

from napari.layers import Layer
from qtpy.QtCore import QObject

from napari_histodistill.controllers.distil.choices.scaling import known_um, say_scales
from napari_histodistill.controllers.shared.map_choice import typed_mpp
from napari_histodistill.errors import InputError
from napari_histodistill.widgets.distil.align.alignment import Aligning
from napari_histodistill.widgets.distil.bench import DistilBench
from napari_histodistill.widgets.distil.pairing import Pairing
from napari_histodistill.widgets.distil.steps import LayersStep, PixelSizes
from napari_histodistill.widgets.shared.slide_layers import fit_view, give_mpp


class Scaling(QObject):
    """Gives a layer the µm per pixel that a person types."""

    def __init__(
        self,
        bench: DistilBench,
        step: LayersStep,
        pairing: Pairing,
        aligning: Aligning,
    ) -> None:
        super().__init__(bench)
        self._bench, self._step = bench, step
        self._pairing, self._aligning = pairing, aligning
        step.he_mpp.editingFinished.connect(self._he_typed)
        step.partner_mpp.editingFinished.connect(self._partner_typed)

    def show(self) -> None:
        """Show what is known, and where from."""
        session, step = self._bench.session, self._step
        partner = session.aligned_partner
        other = None if partner is None else partner.slide
        shown = PixelSizes(known_um(session.sparse), known_um(other))
        if not (step.he_mpp.hasFocus() or step.partner_mpp.hasFocus()):
            step.sizes.show_model(shown)
        step.he_mpp.setVisible(session.sparse is not None)
        step.partner_mpp.setVisible(other is not None)
        step.size_words.say(say_scales(session.sparse, other))

    def _he_typed(self) -> None:
        sparse = self._bench.session.sparse
        self._give(
            self._bench.sparse_layer, self._step.sizes.model.he, known_um(sparse)
        )

    def _partner_typed(self) -> None:
        partner = self._aligning.partner
        known = known_um(None if partner is None else partner.slide)
        self._give(self._aligning.layer, self._step.sizes.model.partner, known)

    def _give(self, layer: Layer | None, value: float, known: float) -> None:
        bench = self._bench
        if layer is None or not value or abs(value - known) < 5e-5:
            return  # as it was: people leave a field without having typed
        try:
            mpp = typed_mpp(value)
        except InputError as error:
            bench.said.emit(str(error))
            return
        kept = self._aligning.landmarks.pixels()
        give_mpp(bench.viewer, layer, mpp)
        self._pairing.layers_altered()
        # Landmarks stay on their tissue: they are places of the picture.
        self._aligning.keep_landmarks(kept)
        if bench.sparse_layer is not None:
            fit_view(bench.viewer, bench.sparse_layer)
