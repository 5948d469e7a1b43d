"""The torch backend, for any timm backbone.

Shortage of memory is handled here and nowhere else: a batch that does not fit is halved
and tried again, and the smaller size is kept for a while. Errors of torch leave this
module as errors of ours, because a GUI's worker would swallow a ``RuntimeError``.

On a CUDA card, ``float16`` means a copy of the module in float16 (see ``half.py``); in
all other cases, a lower precision is torch's autocast.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from napari_histodistill.errors import ComputeError, DeviceMemoryError
from napari_histodistill.students.backends.cuda import STREAMS, Lanes
from napari_histodistill.students.backends.early_layers import EarlyInFloat32
from napari_histodistill.students.backends.forward import (
    pooled,
    scale_and_offset,
    token_map,
)
from napari_histodistill.students.backends.half import halved
from napari_histodistill.students.backends.resampling import LaidTiles, lay_window
from napari_histodistill.students.backends.shortage import Room, is_memory
from napari_histodistill.students.device import cuda_has_tf32

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.resample import LevelWindow
    from napari_histodistill.slides.tissue.stain import StainMap
    from napari_histodistill.students.backends.resampling import LaidWindow
    from napari_histodistill.students.spec import PerChannel
    from napari_histodistill.students.student import DeviceChoice

    EncoderPass = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
    EncoderPixels = npt.NDArray[np.uint8] | LaidTiles

BATCH_PIXELS = {
    # 8 tiles of 224 px: on two CPU cores, batches of 8 are 1.6 × faster than of 16 and
    # 2.4 × faster than of 32, because the activations of 8 tiles stay in the cache.
    "cpu": 8 * 224 * 224,
    "mps": 64 * 224 * 224,
    "cuda": 256 * 224 * 224,
}
"""Pixels that go into the encoder per forward pass, at most, by kind of device."""

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class TorchBackend:
    """A timm module that turns uint8 pixels into embeddings.

    Parameters
    ----------
    module : torch.nn.Module
        A timm backbone without classifier (``num_classes=0``).
    device : DeviceChoice
        The device, and the precision to compute in.
    mean, std : tuple of float
        Per channel, for pixels scaled to 0..1.
    input_px : int or None
        Edge to which tiles are enlarged for the encoder (bilinear); None keeps their
        size.

    Attributes
    ----------
    module : torch.nn.Module
        The module on its device, frozen, in evaluation mode, in float32.
    arithmetic : str
        What a pass really computes in, where the precision alone does not tell; empty
        where it does.
    streams : int
        Number of calls that run at the same time: two on a CUDA card, so that copies
        and computing overlap; one elsewhere, where a call already takes all threads.
    resamples : bool
        Whether windows of a slide are to be resampled by :meth:`lay`: on an
        accelerator. A CPU does that sooner with Pillow.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        device: DeviceChoice,
        *,
        mean: PerChannel,
        std: PerChannel,
        input_px: int | None = None,
    ) -> None:
        self.device = device
        self._note = ""
        self._input_px = input_px
        self._stains: tuple[torch.Tensor, ...] | None = None
        self._kind = device.name.partition(":")[0]
        self._room = Room(BATCH_PIXELS[self._kind])
        self._dtype = _DTYPES[device.precision]
        self.arithmetic = ""
        try:
            self._lanes = Lanes(device.name) if self._kind == "cuda" else None
            self.module = module.eval().requires_grad_(requires_grad=False)
            self.module.to(device.name, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._scale, self._offset = scale_and_offset(mean, std, device.name)
            self._fast = self.module
            if self._lanes is not None:
                self._prepare(self._lanes)
        except RuntimeError as error:
            raise _converted(error, device) from error
        self.streams = STREAMS if self._lanes is not None else 1
        self.resamples = self._kind != "cpu"

    def _prepare(self, lanes: Lanes) -> None:
        """Lay out what the card computes with, and name its arithmetic."""
        rest = "TF32" if cuda_has_tf32(self.device.name) else "float32"
        if self._dtype is torch.float16:
            self._fast, is_folded = halved(self.module, self._input_px)
            folding = ", batch norm folded" if is_folded else ""
            self.arithmetic = (
                f"float16 weights{folding} ({rest} where numbers are too large)"
            )
        elif self._dtype is torch.bfloat16:
            self.arithmetic = f"bfloat16 (early layers {rest})"
        else:
            self.arithmetic = "float32" if rest == "float32" else "float32 by TF32"
        lanes.settle()

    @property
    def batch_pixels(self) -> int:
        """Pixels per forward pass; halved for a while where memory runs out."""
        return self._room.pixels

    @batch_pixels.setter
    def batch_pixels(self, pixels: int) -> None:
        self._room = Room(pixels)

    def seen_through(self, stains: StainMap) -> TorchBackend:
        """Return the same backend with a stain map applied to every pixel first."""
        other = copy.copy(self)
        where: dict[str, Any] = {"device": self.device.name, "dtype": torch.float32}
        parts = (stains.glass, stains.matrix, stains.new_glass)
        try:
            other._stains = tuple(torch.tensor(part, **where) for part in parts)
            if self._lanes is not None:
                self._lanes.settle()
        except RuntimeError as error:
            raise _converted(error, self.device) from error
        return other

    def lay(self, window: LevelWindow) -> LaidWindow:
        """Resample a window on the device, for tiles of it to be embedded.

        Raises
        ------
        DeviceMemoryError
            If it does not fit, even after unused memory was freed.
        ComputeError
            If torch fails in another way; the message includes torch's own.
        """
        try:
            return self._laid(window)
        except RuntimeError as error:
            if not is_memory(error):
                raise _converted(error, self.device) from error
        # Not before the error is gone: its traceback holds what was laid.
        self._free()
        try:
            return self._laid(window)
        except RuntimeError as error:
            raise _converted(error, self.device) from error

    def embed(self, tiles: EncoderPixels) -> npt.NDArray[np.float32]:
        """Return ``(n, dim)`` float32, pooled, for tiles ``(n, tile, tile, 3)``.

        Tiles may be an array, or lie in a window from :meth:`lay`.

        On a CPU, the same tiles give the same bytes whatever was embedded before, as
        long as the number of threads stays the same.

        Raises
        ------
        DeviceMemoryError
            If not even one tile fits.
        ComputeError
            If torch fails in another way; the message includes torch's own.
        """
        return self._in_batches(tiles, self._pooled, self._input_px)

    def tokens(self, windows: EncoderPixels) -> npt.NDArray[np.float32]:
        """Return ``(n, h / stride, w / stride, dim)`` for windows ``(n, h, w, 3)``.

        They may be an array, or lie in a window from :meth:`lay`.

        A token goes through the same timm head as the pooled features do. If that only
        pools (EfficientNet, ResNet), the mean of a tile's tokens is therefore the
        tile's embedding, apart from what the receptive field sees beyond the tile.

        Raises
        ------
        DeviceMemoryError
            If not even one window fits.
        ComputeError
            If torch fails in another way, or the module has no feature map.
        """
        return self._in_batches(windows, token_map)

    def take_note(self) -> str:
        """Return a note, once: memory ran short, or numbers were too large."""
        note, self._note = self._note, ""
        of_lanes = self._lanes.take_note() if self._lanes is not None else ""
        return "; ".join(filter(None, (note, of_lanes)))

    def _in_batches(
        self,
        pixels: EncoderPixels,
        forward: EncoderPass,
        input_px: int | None = None,
    ) -> npt.NDArray[np.float32]:
        parts: list[npt.NDArray[np.float32]] = []
        each = input_px**2 if input_px else pixels.shape[1] * pixels.shape[2]
        start = 0
        while start < max(1, len(pixels)):
            count = max(1, self._room.pixels // each)
            batch = pixels[start : start + count]
            try:
                parts.append(self._run(batch, forward))
            except RuntimeError as error:
                if len(batch) <= 1 or not is_memory(error):
                    raise _converted(error, self.device) from error
            else:
                self._room.went_well()
                start += count
                continue
            # Not before the error is gone: its traceback holds the pass's numbers.
            self._halve(len(batch) // 2, each)
        return np.concatenate(parts)

    def _laid(self, window: LevelWindow) -> LaidWindow:
        with torch.inference_mode():
            if self._lanes is not None:
                return self._lanes.lay(window)
            return lay_window(window, self._uploaded, self._uploaded)

    def _uploaded(self, pixels: npt.NDArray[Any]) -> torch.Tensor:
        # torch warns about read-only memory, such as that of a Pillow image.
        writable = np.require(pixels, requirements=["C", "W"])
        return torch.from_numpy(writable).to(self.device.name)

    def _run(
        self, batch: EncoderPixels, forward: EncoderPass
    ) -> npt.NDArray[np.float32]:
        with torch.inference_mode(), self._autocast(), self._early(batch.shape[1]):
            found = self._computed(batch, forward, self._fast)
            if self._fast is self.module:
                return found
            lost = ~np.isfinite(found).all(axis=tuple(range(1, found.ndim)))
            if lost.any():
                found[lost] = self._computed(batch[lost], forward, self.module)
                self._note = (
                    "some numbers were too large for float16; those tiles were "
                    "computed in float32, which is slower"
                )
        return found

    def _computed(
        self,
        batch: EncoderPixels,
        forward: EncoderPass,
        module: torch.nn.Module,
    ) -> npt.NDArray[np.float32]:
        def computed(raw: torch.Tensor) -> torch.Tensor:
            return forward(module, self._normalised(raw).to(dtype))

        dtype = torch.float32 if module is self.module else torch.float16
        if self._lanes is not None:
            # Named, not held: the graphs of a backend must not keep it alive. What is
            # seldom computed is not recorded.
            what = forward.__name__ if module is self._fast else None
            return self._lanes.run(batch, self, what, computed)
        if isinstance(batch, LaidTiles):
            raw = batch.cut(torch.from_numpy(batch.places).to(self.device.name))
        else:
            raw = self._uploaded(batch)
        out = computed(raw)
        return cast("npt.NDArray[np.float32]", out.float().cpu().numpy())

    def _normalised(self, raw: torch.Tensor) -> torch.Tensor:
        """Normalise on the device, so that bytes are copied there, not floats."""
        # (n, h, w, c) seen as (n, c, h, w) *is* the channels-last layout: no copy.
        pixels = raw.float() if self._stains is None else _stained(raw, *self._stains)
        return pixels.permute(0, 3, 1, 2) * self._scale - self._offset

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype is torch.float32 or self._fast is not self.module:
            return nullcontext()
        # No cache of casts: nothing is used twice within a pass, and a recorded CUDA
        # graph must not point at a cast that the cache has dropped.
        return torch.autocast(self._kind, dtype=self._dtype, cache_enabled=False)

    def _early(self, height: int) -> AbstractContextManager[object]:
        if self._dtype is not torch.bfloat16:
            return nullcontext()
        return EarlyInFloat32(self._kind, self._input_px or height)

    def _pooled(self, module: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        return pooled(module, pixels, self._input_px)

    def _halve(self, count: int, each: int) -> None:
        """Halve the batch, and free unused memory for it."""
        self._room.shrink(count * each)
        plural = "" if count == 1 else "s"
        self._note = (
            f"{self.device.label} ran out of memory; the run goes on with {count} "
            f"tile{plural} at a time for now"
        )
        self._free()

    def _free(self) -> None:
        """Give unused memory back to the device."""
        if self._lanes is not None:
            self._lanes.release()
        elif self._kind == "mps":
            torch.mps.empty_cache()


def _stained(
    raw: torch.Tensor, glass: torch.Tensor, matrix: torch.Tensor, to_glass: torch.Tensor
) -> torch.Tensor:
    """Return the result of :meth:`StainMap.apply`, on the device and not rounded."""
    with torch.autocast(raw.device.type, enabled=False):
        density = -torch.log(raw.clamp(min=1).float() / glass)
        return (torch.exp(-(density @ matrix)) * to_glass).clamp(0, 255)


def _converted(error: RuntimeError, device: DeviceChoice) -> ComputeError:
    words = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if is_memory(error):
        msg = (
            f"{device.label} ran out of memory with the smallest batch: close other "
            f"programs that use it, or choose the device 'cpu'. (torch: {words})"
        )
        return DeviceMemoryError(msg)
    msg = f"The student failed on {device.label}: {words}"
    return ComputeError(msg)
