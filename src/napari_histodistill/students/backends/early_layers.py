"""bfloat16 only where it does no harm: the early layers stay in float32.

bfloat16 keeps eight bits. Embeddings change most if the image and the large, fine
feature maps of the early layers are rounded; in later layers, sums over many channels
average the rounding out. Smallest cosine to float32, `colon-he` on 80 painted tiles:
everything in bfloat16 .893, the first convolution alone .902, everything but the early
layers down to a quarter of the image's edge .9991, to an eighth .9993, to a sixteenth
.9996; at 146, 139 and 129 tiles per second where float32 reaches 104 (OpenVINO, one
core).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator

EARLY = 16
"""Early layers have feature maps whose edge is at least the image's divided by this."""


class EarlyInFloat32(TorchFunctionMode):
    """A context inside autocast in which convolutions of early layers run in float32.

    Parameters
    ----------
    kind : str
        Kind of device, as torch's autocast calls it.
    height : int
        Height in pixels of the image that goes into the network.
    """

    def __init__(self, kind: str, height: int) -> None:
        super().__init__()
        self._kind, self._height = kind, height

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call ``func``; if it is an early convolution, without autocast."""
        kwargs = kwargs or {}
        if func is not torch.conv2d or not self._is_early(*args[:4], **kwargs):
            return func(*args, **kwargs)
        with torch.autocast(self._kind, enabled=False):
            return func(args[0].float(), *args[1:], **kwargs)

    def _is_early(
        self,
        pixels: torch.Tensor,
        _weight: torch.Tensor,
        _bias: torch.Tensor | None = None,
        stride: int | tuple[int, int] = 1,
        **_rest: object,
    ) -> bool:
        step = stride if isinstance(stride, int) else stride[0]
        return EARLY * (pixels.shape[-2] // step) >= self._height


def early_part(model: Any) -> Any:
    """Return the output of an OpenVINO model at which its early layers end, or None.

    It is the smallest of the feature maps that are still fine and on which alone
    everything after them depends: between two stages, so that little data is handed
    over. None if no convolution comes before such an output.

    Parameters
    ----------
    model : openvino.Model
        A model with fixed height and width.
    """
    height = model.input(0).partial_shape[1].get_length()
    convolved, found, smallest = False, None, float("inf")
    for node, carrier in _carriers(model):
        convolved = convolved or "Convolution" in node.get_type_name()
        if carrier is None or not convolved:
            continue
        size = _size(carrier.get_partial_shape(), height)
        if size <= smallest and size < float("inf"):
            found, smallest = carrier, size
    return found


def _carriers(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each node that depends on the image, in order, and its carrier.

    The carrier is the only output on which everything after the node depends; None
    while there are several.
    """
    waiting: dict[Any, tuple[Any, int]] = {}  # outputs, and how many uses remain
    for node in model.get_ordered_ops():
        sources = [_key(value.get_source_output()) for value in node.inputs()]
        mine = [key for key in sources if key in waiting]
        if node.get_type_name() != "Parameter" and not mine:
            continue  # a constant, or computed from constants
        for key in mine:
            output, uses = waiting.pop(key)
            if uses > 1:
                waiting[key] = output, uses - 1
        for output in node.outputs():
            if uses := len(output.get_target_inputs()):
                waiting[_key(output)] = output, uses
        alone = [output for output, _ in waiting.values()]
        yield node, alone[0] if len(alone) == 1 else None


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _size(shape: Any, height: int) -> float:
    """Return the size of a feature map ``(n, c, h, w)``; infinite if it is not fine."""
    if len(shape) != 4 or shape.is_dynamic:
        return float("inf")
    _, channels, h, w = (int(length) for length in shape.to_shape())
    return channels * h * w if EARLY * h >= height else float("inf")
