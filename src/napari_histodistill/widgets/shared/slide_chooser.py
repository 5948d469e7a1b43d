"""Choosing a slide: among the viewer's layers, from a file, with its µm per pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer

from napari_histodistill.addresses import shown
from napari_histodistill.controllers.shared.job import Job, JobKey, SlideJob
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.controllers.shared.map_work import (
    SlideOpened,
    TissueFound,
    open_work,
    tissue_work,
)
from napari_histodistill.controllers.shared.slide_session import why_stay
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.reader import FILE_ENDINGS
from napari_histodistill.layers.slide_layer import slide_of
from napari_histodistill.slides import Slide, open_slide
from napari_histodistill.widgets.shared.bench import Bench, OverlaysT, SessionT
from napari_histodistill.widgets.shared.dock import is_in_front
from napari_histodistill.widgets.shared.forms import ask, ask_file, asked
from napari_histodistill.widgets.shared.layer_watch import LayerWatch
from napari_histodistill.widgets.shared.slide_layers import (
    add_slide,
    adopt_work,
    arranged_once,
    fit_view,
    layer_mpp,
    layer_of_image,
    pictures_over,
    show_only,
    slide_layers,
)
from napari_histodistill.widgets.shared.slide_section import SlideSection

FILE_PATTERNS = " ".join(f"*{ending}" for ending in FILE_ENDINGS)


@dataclass(frozen=True, slots=True)
class KnownLength:
    """Length of the line that was drawn."""

    length_um: float = asked(
        "As the scale bar says.", 100.0, label="How long is the line?",
        decimals=1, minimum=0.1, maximum=1e6, suffix=" µm",
    )  # fmt: skip


class SlideChoosing(QObject, Generic[SessionT, OverlaysT]):
    """Keeps the slide combo, the viewer's layers and the session in step.

    What follows from another slide is up to who derives from it: :meth:`slide_put` and
    :meth:`show`.

    Parameters
    ----------
    bench : Bench
        Viewer, session, jobs.
    panel : SlideSection
        With the slide, its µm per pixel and its region.

    Attributes
    ----------
    jobs : tuple of JobKey
        What has no meaning once another slide is chosen.
    """

    jobs: tuple[JobKey, ...] = ()

    def __init__(self, bench: Bench[SessionT, OverlaysT], panel: SlideSection) -> None:
        super().__init__(bench)
        self.bench: Bench[SessionT, OverlaysT] = bench
        self.panel: SlideSection = panel
        self._layers: list[Image] = []
        self._adopted: WeakKeyDictionary[Layer, tuple[object, Slide]] = (
            WeakKeyDictionary()
        )
        self._ruler: Layer | None = None
        panel.slide_chosen.connect(self._slide_picked)
        panel.open_slide.connect(self.ask_slide)
        panel.images.chosen.connect(self.choose_image)
        panel.mpp.given.connect(lambda value: self.give_mpp(value))
        panel.rgb.said.connect(self.call_rgb)
        panel.mpp.refused.connect(bench.said)
        panel.mpp.measure.connect(self.measure)
        self._watch = LayerWatch(bench.viewer, self)
        self._watch.listed.connect(self.layers_changed)
        self._watch.altered.connect(self.layer_altered)
        self._gone = QTimer(self)
        self._gone.setSingleShot(True)
        self._gone.timeout.connect(self._leave)

    def slide_put(self) -> None:
        """Go on from a slide that has just been put on the bench."""

    def show(self) -> None:
        """Draw the panel."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the viewer."""
        self._watch.close()
        self._gone.stop()

    def layer_altered(self) -> None:
        """Follow a layer that was given other pixels, colours or µm per pixel."""
        layer, session = self.bench.slide_layer, self.bench.session
        if layer is None or session.slide is None:
            return
        if self._slide_behind(layer) is not session.slide:
            self.choose_layer(layer)
        elif session.region is RegionChoice.SHAPE:
            self.bench.changed.emit()  # the shape may be another one now

    def layers_changed(self) -> None:
        """Follow the viewer's layer list."""
        layers = slide_layers(self.bench.viewer)
        if [id(x) for x in layers] == [id(x) for x in self._layers]:
            return
        added = [x for x in layers if all(x is not y for y in self._layers)]
        current = self.bench.slide_layer
        if any(all(x is not y for y in layers) for x in self._layers):
            # napari may be about to remove overlays too, and trips if they are gone.
            self._gone.start()
            if current is not None and all(x is not current for x in layers):
                return
        self._layers = layers
        why_stay = self._why_stay(added[-1]) if added else ""
        if why_stay:
            self.show()
            self.bench.said.emit(f"{added[-1].name} is in the list; {why_stay}")
        elif added:
            self.choose_layer(self._first_of(added))
        else:
            self.show()

    def _first_of(self, added: list[Image]) -> Image:
        """Return which of these is looked at: of several, the one that is selected."""
        active = self.bench.viewer.layers.selection.active
        return next((x for x in added if x is active), added[-1])

    def choose_layer(self, layer: Image | None) -> None:
        """Explore the slide of a layer; one that is explored already stays as it is."""
        if layer is not None and self._is_chosen(layer):
            self.show()
            return
        self._leave_jobs(layer)
        if layer is None:
            self.bench.put_slide(None, None)
            return
        with arranged_once(self.bench.viewer):
            if self.is_in_front():
                self._show_alone(layer)
            slide = self._slide_behind(layer)
            if slide is not None:
                self._put(layer, slide)
                return
            self.bench.put_slide(layer, None)
        pixels = layer.data
        self.bench.pump.start(
            adopt_work(layer),
            key=SlideJob.READING,
            on_reports=lambda reports: self._read(layer, pixels, reports[-1].slide),
            on_end=self.bench.report_end,
        )

    def open_path(self, path: Path, *, image: int | None = None) -> None:
        """Open a slide file, or an image in it, in a job; add it to the viewer."""

        def add(reports: list[SlideOpened]) -> None:
            for report in reports:
                # Asked for here, so meant to be looked at.
                self.choose_layer(add_slide(self.bench.viewer, report.slide))

        self.bench.said.emit(f"Opening {Path(shown(path)).name}…")
        self.bench.pump.start(
            open_work(partial(open_slide, image=image), path),
            key=SlideJob.OPENING,
            on_reports=add,
            on_end=partial(self._opened, path),
        )

    def choose_image(self, index: int) -> None:
        """Look at another image of the slide's file, with a layer of its own."""
        slide, viewer = self.bench.session.slide, self.bench.viewer
        if slide is None or slide.home is None or index == slide.info.image:
            return
        there = layer_of_image(viewer, slide.home, index)
        if there is None:
            self.open_path(slide.home, image=index)
            return
        self.choose_layer(there)

    def ask_slide(self) -> None:
        """Let the person pick a file."""
        files = f"Slides ({FILE_PATTERNS});;All files (*)"
        path = ask_file("Open slide", self.panel, files)
        if path is not None:
            self.open_path(path)

    def give_mpp(self, value: float, source: str = "typed by the user") -> None:
        """Take the µm per pixel from the person."""
        try:
            self.bench.put_mpp(value, source, ends=self.jobs)
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        layer, slide = self.bench.slide_layer, self.bench.session.slide
        if layer is not None and slide is not None and layer in self._adopted:
            self._adopted[layer] = layer.data, slide
        self.bench.said.emit("")
        self._find_tissue()

    def call_rgb(self) -> None:
        """Take the person's word that the three channels are red, green and blue."""
        try:
            self.bench.put_rgb()
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        self.bench.said.emit("")
        self._find_tissue()

    def measure(self) -> None:
        """Let the person draw a line and say how long it is."""
        viewer, layer = self.bench.viewer, self.bench.slide_layer
        if layer is None:
            return
        if self._ruler is None or self._ruler not in viewer.layers:
            self._ruler = viewer.add_shapes(
                name="Known length", edge_color="#f0e442", edge_width=4,
                scale=layer.scale[-2:], translate=layer.translate[-2:],
                units=layer.units[-2:],
            )  # fmt: skip
            self._ruler.mode = "add_line"
            self.bench.said.emit(
                "Draw a line along something of known length, then press Measure again."
            )
            return
        if not len(self._ruler.data):
            self.bench.said.emit("Draw a line first, then press Measure again.")
            return
        line = np.asarray(self._ruler.data[-1], float)
        pixels = float(np.linalg.norm(line[-1] - line[0]))
        known = ask(KnownLength(), "Known length", self.panel)
        if known is not None and pixels > 0:
            viewer.layers.remove(self._ruler)
            self.give_mpp(known.length_um / pixels, "typed: measured by the user")

    def _slide_picked(self, index: int) -> None:
        if 0 <= index < len(self._layers):
            self.choose_layer(self._layers[index])

    def knows_tissue(self) -> bool:
        """Whether the tissue of the slide that was just put there is known."""
        return False

    def is_in_front(self) -> bool:
        """Whether the panel is seen, so that it may say what the canvas shows."""
        return is_in_front(self.panel)

    def _leave_jobs(self, _other: Image | None) -> None:
        """End what has no meaning once another slide is chosen."""
        self.bench.pump.abandon(*self.jobs)
        self.bench.session.run_ended()

    def _show_alone(self, layer: Image) -> None:
        """Show a slide and none of the others, and have the canvas fit it."""
        show_only(self.bench.viewer, layer)
        self.bench.viewer.layers.selection.active = layer
        fit_view(self.bench.viewer, layer)

    def _leave(self) -> None:
        """Go on from a layer that is no longer in the viewer."""
        self._layers = slide_layers(self.bench.viewer)
        current = self.bench.slide_layer
        if current is None or all(x is not current for x in self._layers):
            self.choose_layer(self._next_layer())
        else:
            self.show()

    def _next_layer(self) -> Image | None:
        """Return what is looked at once the chosen layer is gone."""
        return self._layers[-1] if self._layers else None

    def _why_stay(self, _added: Image) -> str:
        """Return why a layer that was just added is not looked at now; "" if it is."""
        layer, overlays = self.bench.slide_layer, self.bench.overlays
        if layer is None:
            return ""
        has_drawn = overlays is not None and bool(overlays.hand_made())
        running = self.bench.session.running
        return why_stay(layer.name, running=running, has_drawn=has_drawn)

    def _is_chosen(self, layer: Image) -> bool:
        """Whether a layer is on the bench, just as it is now."""
        if layer is not self.bench.slide_layer:
            return False
        slide = self.bench.session.slide
        if slide is None:
            return self.bench.pump.is_active(SlideJob.READING)
        return self._slide_behind(layer) is slide

    def _slide_behind(self, layer: Image) -> Slide | None:
        """Return the slide behind a layer; None if its pixels must be read for that."""
        slide = slide_of(layer.metadata)
        if slide is not None:
            return slide
        pixels, slide = self._adopted.get(layer, (None, None))
        says = layer_mpp(layer)
        if slide is None or pixels is not layer.data:
            return None
        return slide if says is None or says.agrees_with(slide.mpp) else None

    def _read(self, layer: Image, pixels: object, slide: Slide) -> None:
        self._adopted[layer] = pixels, slide
        if self._slide_behind(layer) is slide:
            self._put(layer, slide)
        else:  # altered while it was read
            self.choose_layer(layer)

    def _put(self, layer: Image, slide: Slide) -> None:
        self.bench.put_slide(layer, slide)
        # Without its µm per pixel a slide is drawn in some size: no bar measures that.
        known = slide.usable_mpp is not None
        self.bench.viewer.canvas.overlays.scale_bar.visible = known
        if not self.knows_tissue():
            self._find_tissue()
        self.slide_put()
        over = pictures_over(self.bench.viewer, layer)
        if over and self.is_in_front():
            self.bench.said.emit(
                f"{over[-1].name} lies over it: hide it in the list of layers."
            )

    def _find_tissue(self) -> None:
        slide = self.bench.session.slide
        if slide is not None and slide.info.is_rgb:
            self.bench.pump.start(
                tissue_work(slide),
                key=SlideJob.FINDING_TISSUE,
                on_reports=self._tissue_found,
                on_end=self.bench.report_end,
            )

    def _tissue_found(self, reports: list[TissueFound]) -> None:
        self.bench.session.take_tissue(reports[-1].tissue)

    def _opened(self, _path: Path, job: Job[object]) -> None:
        self.bench.said.emit(job.error)
        self.bench.changed.emit()
