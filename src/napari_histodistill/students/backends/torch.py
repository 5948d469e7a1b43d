"""The torch backend, for any timm backbone.

Shortage of memory is handled here and nowhere else: a batch that does not fit is halved
and tried again, and the smaller size is kept. Errors of torch leave this module as
errors of ours, because a GUI's worker would swallow a ``RuntimeError``.
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy.typing as npt

    from napari_histodistill.slides.tissue.stain import StainMap
    from napari_histodistill.students.spec import PerChannel
    from napari_histodistill.students.student import DeviceChoice

BATCH_PIXELS = {
    # 8 tiles of 224 px: on two CPU cores, batches of 8 are 1.6 × faster than of 16 and
    # 2.4 × faster than of 32, because the activations of 8 tiles stay in the cache.
    "cpu": 8 * 224 * 224,
    "mps": 64 * 224 * 224,
    "cuda": 256 * 224 * 224,
}
"""Pixels per forward pass at the start of a run, by kind of device."""

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_MEMORY_WORDS = (
    "out of memory",  # CUDA and MPS
    "DefaultCPUAllocator",  # the CPU
    "can't allocate memory",
)


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
        The module on its device, frozen, in evaluation mode.
    streams : int
        Number of calls that run at the same time: two on a CUDA card, so that copies
        and computing overlap; one elsewhere, where a call already takes all threads.
    batch_pixels : int
        Pixels per forward pass; halved whenever the device runs out of memory.
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
        self.batch_pixels = BATCH_PIXELS[self._kind]
        self._dtype = _DTYPES[device.precision]
        self._lanes = Lanes(device.name) if self._kind == "cuda" else None
        self.streams = STREAMS if self._lanes is not None else 1
        try:
            self.module = module.eval().requires_grad_(requires_grad=False)
            self.module.to(device.name, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._scale, self._offset = scale_and_offset(mean, std, device.name)
        except RuntimeError as error:
            raise _converted(error, device) from error

    def seen_through(self, stains: StainMap) -> TorchBackend:
        """Return the same backend with a stain map applied to every pixel first."""
        other = copy.copy(self)
        where: dict[str, Any] = {"device": self.device.name, "dtype": torch.float32}
        parts = (stains.glass, stains.matrix, stains.new_glass)
        other._stains = tuple(torch.tensor(part, **where) for part in parts)
        return other

    def embed(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return ``(n, dim)`` float32, pooled, for tiles ``(n, tile, tile, 3)``.

        On a CPU, the same tiles give the same bytes whatever was embedded before, as
        long as the number of threads stays the same.

        Raises
        ------
        DeviceMemoryError
            If not even one tile fits.
        ComputeError
            If torch fails in another way; the message includes torch's own.
        """
        return self._in_batches(tiles, self._pooled)

    def tokens(self, windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return ``(n, h / stride, w / stride, dim)`` for windows ``(n, h, w, 3)``.

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
        return self._in_batches(windows, self._token_map)

    def take_note(self) -> str:
        """Return a note, once, if memory ran short: what was done about it."""
        note, self._note = self._note, ""
        return note

    def _in_batches(
        self,
        pixels: npt.NDArray[np.uint8],
        forward: Callable[[torch.Tensor], torch.Tensor],
    ) -> npt.NDArray[np.float32]:
        parts: list[npt.NDArray[np.float32]] = []
        start = 0
        while start < max(1, len(pixels)):
            count = max(1, self.batch_pixels // max(1, pixels[0:1, ..., 0].size))
            batch = pixels[start : start + count]
            try:
                parts.append(self._run(batch, forward))
            except RuntimeError as error:
                if not _is_memory(error):
                    raise _converted(error, self.device) from error
                if len(batch) <= 1:
                    raise _converted(error, self.device) from error
                self._halve(batch)
                continue
            start += count
        return np.concatenate(parts)

    def _run(
        self,
        batch: npt.NDArray[np.uint8],
        forward: Callable[[torch.Tensor], torch.Tensor],
    ) -> npt.NDArray[np.float32]:
        # torch warns about read-only memory, such as that of a Pillow image.
        batch = np.require(batch, requirements=["C", "W"])
        with torch.inference_mode(), self._autocast(), self._early(batch.shape[1]):
            if self._lanes is not None:
                return self._lanes.run(
                    batch, forward, lambda raw: forward(self._normalised(raw))
                )
            raw = torch.from_numpy(batch).to(self.device.name)
            out = forward(self._normalised(raw))
        return cast("npt.NDArray[np.float32]", out.float().cpu().numpy())

    def _normalised(self, raw: torch.Tensor) -> torch.Tensor:
        """Normalise on the device, so that bytes are copied there, not floats."""
        # (n, h, w, c) seen as (n, c, h, w) *is* the channels-last layout: no copy.
        pixels = raw.float() if self._stains is None else _stained(raw, *self._stains)
        return pixels.permute(0, 3, 1, 2) * self._scale - self._offset

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype is torch.float32:
            return nullcontext()
        # No cache of casts: nothing is used twice within a pass, and a recorded CUDA
        # graph must not point at a cast that the cache has dropped.
        return torch.autocast(self._kind, dtype=self._dtype, cache_enabled=False)

    def _early(self, height: int) -> AbstractContextManager[object]:
        if self._dtype is not torch.bfloat16:
            return nullcontext()
        return EarlyInFloat32(self._kind, self._input_px or height)

    def _pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        return pooled(self.module, pixels, self._input_px)

    def _token_map(self, pixels: torch.Tensor) -> torch.Tensor:
        return token_map(self.module, pixels)

    def _halve(self, batch: npt.NDArray[np.uint8]) -> None:
        """Halve the batch from now on, and free unused memory for it."""
        count = len(batch) // 2
        self.batch_pixels = count * batch[0, ..., 0].size
        plural = "" if count == 1 else "s"
        self._note = (
            f"{self.device.label} ran out of memory; the run goes on with {count} "
            f"tile{plural} at a time"
        )
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


def _is_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _MEMORY_WORDS)


def _converted(error: RuntimeError, device: DeviceChoice) -> ComputeError:
    words = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if _is_memory(error):
        msg = (
            f"{device.label} ran out of memory with the smallest batch: close other "
            f"programs that use it, or choose the device 'cpu'. (torch: {words})"
        )
        return DeviceMemoryError(msg)
    msg = f"The student failed on {device.label}: {words}"
    return ComputeError(msg)
