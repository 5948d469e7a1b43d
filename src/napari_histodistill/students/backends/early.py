"""bfloat16 where it does no harm: the first layers stay in float32.

bfloat16 keeps eight bits. Rounding the picture itself and the large, fine feature maps
near it is what moves an embedding; further on, sums over many channels average the
rounding out. `colon-he` against float32, smallest cosine over real and painted H&E
tiles: everything in bfloat16 .910, the first convolution alone .902, everything but
the layers down to a quarter of the picture's edge .9994.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

EARLY = 4
"""Layers whose feature map's edge is at least the picture's, divided by this."""


class EarlyInFloat32(TorchFunctionMode):
    """Inside autocast: convolutions of early layers run in float32.

    Parameters
    ----------
    kind : str
        Of device, as torch's autocast calls it.
    height : int
        Of the picture that goes into the network, in pixels.
    """

    def __init__(self, kind: str, height: int) -> None:
        super().__init__()
        self._kind, self._height = kind, height

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call ``func``, an early convolution without autocast."""
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
    """Return the output of OpenVINO's model at which its early layers end, or None.

    That is the last place where a single feature map carries all there is (between two
    blocks, never inside one) and is no smaller than a quarter of the picture. None
    where no convolution comes before it.

    Parameters
    ----------
    model : openvino.Model
        With fixed height and width.
    """
    height = model.input(0).partial_shape[1].get_length()
    waiting: dict[Any, int] = {}
    last, convolved, found = None, False, None
    for node in model.get_ordered_ops():
        sources = [value.get_source_output() for value in node.inputs()]
        mine = [_key(source) for source in sources if _key(source) in waiting]
        if node.get_type_name() != "Parameter" and not mine:
            continue  # a constant, or made of constants
        for key in mine:
            waiting[key] -= 1
            if not waiting[key]:
                del waiting[key]
        convolved = convolved or "Convolution" in node.get_type_name()
        for output in node.outputs():
            if uses := len(output.get_target_inputs()):
                waiting[_key(output)] = uses
                last = output
        if len(waiting) == 1 and last is not None and _key(last) in waiting:
            shape = last.get_partial_shape()
            fine = len(shape) == 4 and EARLY * _edge(shape) >= height
            found = last if fine and convolved else found
    return found


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _edge(shape: Any) -> int:
    """Return a feature map's height ``(n, c, h, w)``; 0 where it is not fixed."""
    return int(shape[2].get_length()) if shape[2].is_static else 0
