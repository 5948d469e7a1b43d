"""Building a backend that is ready to run from a spec and its weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch

from napari_histodistill.errors import BundleError
from napari_histodistill.students.backends.heap import keep_freed_memory
from napari_histodistill.students.backends.package_weights import load_package_weights
from napari_histodistill.students.backends.torch import TorchBackend

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_histodistill.students.spec import StudentSpec
    from napari_histodistill.students.student import Backend, DeviceChoice


# Errors that networks raise for options that are unknown or impossible.
_MISFITS = (
    TypeError, ValueError, AssertionError, RuntimeError, LookupError, AttributeError,
    ArithmeticError, MemoryError,
)  # fmt: skip


def build_backend(
    spec: StudentSpec,
    encoder: Mapping[str, npt.NDArray[Any]],
    device: DeviceChoice,
) -> Backend:
    """Build the encoder, load its weights, and try it once.

    Parameters
    ----------
    spec : StudentSpec
        States the backbone and where its weights are.
    encoder : mapping of str to ndarray
        The bundle's own weights; empty if they are in a package.
    device : DeviceChoice
        The device and the library to run it with.

    Raises
    ------
    BundleError
        If the backbone is unknown, the weights do not fit it, or its embeddings or
        tokens have another size than the spec says.
    ComputeError
        If it cannot run on the device.
    DeviceError
        If the backend is not installed.
    """
    if spec.weights.source == "package":
        state = load_package_weights(spec.weights.package, spec.weights.sha256)
    else:
        state = {name: torch.from_numpy(values) for name, values in encoder.items()}
        _check_shapes(spec, state)
    module = build_module(spec)
    _load_strictly(module, state, spec)
    if device.backend == "torch" and device.name == "cpu":
        keep_freed_memory()
    on_torch = TorchBackend(
        module,
        replace(device, backend="torch"),
        mean=spec.mean,
        std=spec.std,
        input_px=spec.input_px,
    )
    _try_once(on_torch, spec)
    if device.backend == "torch":
        return on_torch
    from napari_histodistill.students.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(module, device, spec)


def build_module(spec: StudentSpec) -> torch.nn.Module:
    """Return the timm module for a spec, without classifier, with random weights.

    Raises
    ------
    BundleError
        If the installed timm has no such backbone.
    """
    # Checked before create_model, which would take "hf-hub:…" as an order to download.
    if not timm.is_model(spec.backbone):
        msg = (
            f"spec.json: backbone {spec.backbone!r} is not a model of the installed "
            f"timm {timm.__version__}: update timm."
        )
        raise BundleError(msg)
    try:
        module: torch.nn.Module = timm.create_model(
            spec.backbone,
            pretrained=False,
            num_classes=0,
            **(spec.backbone_options or {}),
        )
    except _MISFITS as error:
        msg = f"spec.json: backbone_options do not fit {spec.backbone} ({error})."
        raise BundleError(msg) from error
    return module


def _check_shapes(spec: StudentSpec, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights of another network before memory is allocated for the network.

    A bundle may name a network of 28 GB while its weights have one kilobyte.
    """
    with torch.device("meta"):
        wanted = build_module(spec).state_dict()
    for name in sorted(set(state) - set(wanted)):
        msg = (
            f"student {spec.name}: the weights do not fit the backbone "
            f"{spec.backbone}, which has no {name}."
        )
        raise BundleError(msg)
    for name, tensor in wanted.items():
        found = state.get(name)
        # torch accepts a list of one number for a number, and saved files contain such.
        alone = found is not None and found.numel() == 1 and tensor.ndim == 0
        if found is None or not (alone or found.shape == tensor.shape):
            shape = "missing" if found is None else str(tuple(found.shape))
            msg = (
                f"student {spec.name}: the weights do not fit the backbone "
                f"{spec.backbone}: {name} is {shape}, not {tuple(tensor.shape)}."
            )
            raise BundleError(msg)


def _load_strictly(
    module: torch.nn.Module, state: dict[str, torch.Tensor], spec: StudentSpec
) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        detail = " ".join(lines[1:2] or lines[:1])[:300]
        msg = (
            f"student {spec.name}: the weights do not fit the backbone "
            f"{spec.backbone}: {detail}"
        )
        raise BundleError(msg) from error


def _try_once(backend: TorchBackend, spec: StudentSpec) -> None:
    """Refuse a spec that states other sizes than the encoder returns."""
    blank = np.full((1, spec.tile_px, spec.tile_px, 3), 128, np.uint8)
    shape = backend.embed(blank).shape
    if shape != (1, spec.embedding_dim):
        msg = (
            f"spec.json: embedding_dim is {spec.embedding_dim}, but {spec.backbone} "
            f"gives {shape[1:]}."
        )
        raise BundleError(msg)
    stride = spec.token_stride_px
    if stride is None:
        return
    side = 2 * stride
    shape = backend.tokens(np.full((1, side, side, 3), 128, np.uint8)).shape
    if shape != (1, 2, 2, spec.embedding_dim):
        msg = (
            f"spec.json: token_stride_px is {stride}, but {spec.backbone} turns "
            f"{side} px into tokens {shape[1:]}."
        )
        raise BundleError(msg)
