"""The canvas as an instrument: clicks, keys, and what is under the cursor.

napari has its own use for Space and the digits. Ours apply in pan/zoom mode only: while
the user paints or draws, the keys mean what napari says.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer

from napari_histodistill.layers.plain_names import plain_name

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.utils.events import Event

CLICK_PX = 4
"""A press that moves further than this on the canvas is a drag."""

KEYS = tuple(str(k) for k in range(1, 10))

KeyAction = Callable[["ViewerModel"], object]
"""What a key does; napari runs a generator on until the key is released."""


def is_navigating(viewer: ViewerModel) -> bool:
    """Whether the active layer is in pan/zoom, not being painted, drawn or picked."""
    active = viewer.layers.selection.active
    return active is None or str(getattr(active, "mode", "pan_zoom")) == "pan_zoom"


@dataclass(frozen=True, slots=True)
class CanvasKeys:
    """What our keys do; those that are None keep napari's meaning.

    Attributes
    ----------
    on_toggle : callable or None
        ``(index)`` for the digits, 0 for key 1.
    on_peek : callable or None
        ``(looking)`` when :attr:`peek` is pressed and released.
    on_flicker : callable or None
        ``(looking)`` when :attr:`flicker` is pressed and released.
    on_opacity : callable or None
        ``(steps)``, −1 or 1, for :attr:`fainter` and :attr:`stronger`. While labels are
        painted, napari sizes the brush with the usual two.
    others : mapping
        What other keys do, by their names, outside of painting and drawing.
    peek, fainter, stronger, flicker : str
        Names of these keys.
    """

    on_toggle: Callable[[int], None] | None = None
    on_peek: Callable[[bool], None] | None = None
    on_flicker: Callable[[bool], None] | None = None
    on_opacity: Callable[[int], None] | None = None
    others: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    peek: str = "Space"
    fainter: str = "["
    stronger: str = "]"
    flicker: str = "G"


class CanvasInput:
    """Turns what happens on the canvas into calls; :meth:`close` undoes all of it.

    Parameters
    ----------
    viewer : ViewerModel
        Whose canvas.
    on_click : callable
        ``(world position, shift)`` for a click that was not a drag.
    describe : callable
        ``(world position)`` → words for the status bar; "" leaves napari's.
    keys : CanvasKeys
        What our keys do.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        on_click: Callable[[Sequence[float], bool], None],
        describe: Callable[[Sequence[float]], str],
        keys: CanvasKeys,
    ) -> None:
        self._viewer = viewer
        self._on_click, self._describe, self._keys = on_click, describe, keys
        self._saying = False
        # Weakly: a layer that was taken away, and the slide in it, must be let go.
        self._keyed: weakref.WeakSet[Layer] = weakref.WeakSet()
        viewer.mouse_drag_callbacks.append(self._pressed)
        viewer.events.status.connect(self._status)
        self._bind(viewer)

    def adopt(self, layer: Layer) -> None:
        """Let our keys win over napari's while this layer is active.

        Without this, 1 and 2 on an Image layer would switch its mode.
        """
        if isinstance(layer, Image) and layer not in self._keyed:
            self._keyed.add(layer)
            self._bind(layer)

    def close(self) -> None:
        """Give mouse, keys and status bar back."""
        callbacks = self._viewer.mouse_drag_callbacks
        if self._pressed in callbacks:
            callbacks.remove(self._pressed)
        self._viewer.events.status.disconnect(self._status)
        self._unbind()
        self._keyed.clear()

    def take_keys(self, keys: CanvasKeys) -> None:
        """Let other keys, or the same ones, mean something else from now on."""
        self._unbind()
        self._keys = keys
        for target in (self._viewer, *self._keyed):
            self._bind(target)

    def _unbind(self) -> None:
        for target in (self._viewer, *self._keyed):
            for key in self._meanings(target):
                target.bind_key(key, None)

    def _bind(self, target: ViewerModel | Layer) -> None:
        for key, act in self._meanings(target).items():
            target.bind_key(key, act, overwrite=True)

    def _meanings(self, target: ViewerModel | Layer) -> dict[str, KeyAction]:
        """Return what keys mean over the viewer or over one of its layers."""
        found: dict[str, KeyAction] = {}
        if self._keys.on_toggle is not None:
            for k, key in enumerate(KEYS):
                found[key] = self._toggler(k, self._keys.on_toggle)
        if target is self._viewer:
            if self._keys.on_peek is not None:
                found[self._keys.peek] = self._peek
            if self._keys.on_flicker is not None:
                found[self._keys.flicker] = self._flicker
            if self._keys.on_opacity is not None:
                found[self._keys.fainter] = self._stepper(-1, self._keys.on_opacity)
                found[self._keys.stronger] = self._stepper(1, self._keys.on_opacity)
            found |= {
                key: self._navigating(act) for key, act in self._keys.others.items()
            }
        return found

    def _toggler(
        self, index: int, on_toggle: Callable[[int], None]
    ) -> Callable[[object], None]:
        def toggle(_target: object) -> None:
            if is_navigating(self._viewer):
                on_toggle(index)

        return toggle

    def _navigating(self, act: Callable[[], None]) -> Callable[[object], None]:
        def do(_target: object) -> None:
            if is_navigating(self._viewer):
                act()

        return do

    def _stepper(
        self, steps: int, on_opacity: Callable[[int], None]
    ) -> Callable[[object], None]:
        return lambda _target: on_opacity(steps)

    def _flicker(self, _viewer: ViewerModel) -> Generator[None]:
        assert self._keys.on_flicker is not None
        self._keys.on_flicker(True)
        yield
        self._keys.on_flicker(False)

    def _peek(self, viewer: ViewerModel) -> Generator[None]:
        assert self._keys.on_peek is not None
        active = viewer.layers.selection.active
        if not is_navigating(viewer) and active is not None:
            # napari's own meaning: hold to pan while painting.
            before = active.mode
            active.mode = "pan_zoom"
            yield
            active.mode = before
            return
        self._keys.on_peek(True)
        yield
        self._keys.on_peek(False)

    def _pressed(self, viewer: ViewerModel, event: Event) -> Generator[None]:
        if event.button != 1 or not is_navigating(viewer):
            return
        world, start = tuple(event.position), np.array(event.pos, float)
        shift = "Shift" in event.modifiers
        farthest = 0.0
        yield
        while event.type == "mouse_move":
            moved = np.array(event.pos, float) - start
            farthest = max(farthest, float(np.abs(moved).max()))
            yield
        if farthest <= CLICK_PX:
            self._on_click(world, shift)

    def _status(self, _event: Event) -> None:
        if self._saying:
            return
        words = self._describe(tuple(self._viewer.cursor.position))
        if words:
            self._saying = True
            try:
                self._viewer.status = plain_name(words)
            finally:
                self._saying = False
