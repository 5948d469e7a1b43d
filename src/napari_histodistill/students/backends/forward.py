"""The computation of a student as torch operations, shared by all backends.

torch runs these functions directly; OpenVINO converts a module that calls them. So both
compute the same by construction, and the tests compare the results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from napari_histodistill.errors import ComputeError

if TYPE_CHECKING:
    from napari_histodistill.students.spec import PerChannel


def pooled(
    module: torch.nn.Module, pixels: torch.Tensor, input_px: int | None
) -> torch.Tensor:
    """Return ``(n, dim)``: one embedding per normalised tile ``(n, 3, h, w)``.

    Parameters
    ----------
    module : torch.nn.Module
        A timm backbone without classifier.
    pixels : torch.Tensor
        Normalised pixels.
    input_px : int or None
        Edge to which tiles are first enlarged (bilinear); None keeps their size.
    """
    if input_px is not None:
        pixels = torch.nn.functional.interpolate(
            pixels, size=(input_px,) * 2, mode="bilinear", align_corners=False
        )
    timm_module = cast("Any", module)
    embeddings: torch.Tensor = timm_module.forward_head(
        timm_module.forward_features(pixels), pre_logits=True
    )
    return embeddings


def token_map(module: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Return ``(n, h / stride, w / stride, dim)`` for normalised windows.

    Raises
    ------
    ComputeError
        If the module has no feature map.
    """
    timm_module = cast("Any", module)
    features: torch.Tensor = timm_module.forward_features(pixels)
    if features.ndim != 4:
        msg = f"this backbone returns {tuple(features.shape)}, not a feature map"
        raise ComputeError(msg)
    n, channels, h, w = features.shape
    single = features.permute(0, 2, 3, 1).reshape(n * h * w, channels, 1, 1)
    tokens: torch.Tensor = timm_module.forward_head(single, pre_logits=True)
    return tokens.reshape(n, h, w, -1)


def scale_and_offset(
    mean: PerChannel, std: PerChannel, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and offset: normalised pixels are ``pixels · scale − offset``."""
    spread = torch.tensor(std, dtype=torch.float32, device=device)
    middle = torch.tensor(mean, dtype=torch.float32, device=device)
    return (1 / (255 * spread)).view(1, 3, 1, 1), (middle / spread).view(1, 3, 1, 1)


class FromBytes(torch.nn.Module):
    """A student from uint8 pixels ``(n, h, w, 3)`` to embeddings, for conversion.

    Parameters
    ----------
    module : torch.nn.Module
        A timm backbone without classifier.
    mean, std : tuple of float
        Per channel, for pixels scaled to 0..1.
    input_px : int or None
        As in :func:`pooled`.
    tokens : bool
        Whether to return a map of tokens instead of one embedding per tile.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        mean: PerChannel,
        std: PerChannel,
        *,
        input_px: int | None,
        tokens: bool,
    ) -> None:
        super().__init__()
        self.encoder, self._input_px, self._tokens = module, input_px, tokens
        scale, offset = scale_and_offset(mean, std)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return ``(n, dim)``, or tokens ``(n, h / stride, w / stride, dim)``."""
        scale, offset = cast("Any", self.scale), cast("Any", self.offset)
        normalised = pixels.permute(0, 3, 1, 2).float() * scale - offset
        if self._tokens:
            return token_map(self.encoder, normalised)
        return pooled(self.encoder, normalised, self._input_px)
