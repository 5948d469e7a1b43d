"""A student for other programs: the layout of WSInfer, which QuPath runs too.

``torchscript_model.pt`` takes normalised RGB tiles of the size that the student was
taught (``tile_px``), enlarges them itself where the encoder needs them larger
(``input_px``), and gives logits already divided by the student's temperature, since
WSInfer and QuPath apply softmax themselves.
``config.json`` follows version 1.0 of the WSInfer model zoo's schema.
"""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ComputeError, InputError
from napari_histodistill.export.safe_writing import new_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import torch

    from napari_histodistill.students.spec import PerChannel
    from napari_histodistill.students.student import Student

_MODEL, _CONFIG = "torchscript_model.pt", "config.json"
CHECKED_IN = "float32"
"""Precision in which an export is compared: the one in which others run it."""

_TOLERANCE = 1e-3
_CHECKED_TILES = 9


def export_wsinfer(
    student: Student,
    folder: Path | str,
    *,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write a student in the layout of WSInfer and check that it computes the same.

    Parameters
    ----------
    student : Student
        With classes, running on torch.
    folder : path
        Made; an earlier export there is replaced. QuPath names the model after it.
    tell : callable, optional
        Called with a line for the user: how closely the model agrees, and in which
        precision both were compared.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the student has no classes or does not run on torch, or the folder holds
        something else.
    ComputeError
        If the exported model gives other probabilities than the student.

    Examples
    --------
    >>> from napari_histodistill import export_wsinfer, load_student
    >>> student = load_student("colon-probe", device="cpu:torch")
    >>> folder = export_wsinfer(student, "colon-probe-wsinfer")
    >>> sorted(file.name for file in folder.iterdir())
    ['config.json', 'torchscript_model.pt']
    """
    module = _torch_module(student)
    # A copy: moving the student's own module would take it from its device.
    encoder = _on_cpu(module)
    traced = _trace(student, encoder)
    off = _verify(student, encoder, traced)
    if tell is not None:
        tell(_agreement(student, off))
    with new_folder(Path(folder), _is_ours) as made:
        _save(traced, made / _MODEL)
        text = json.dumps(_config(student), indent=2)
        (made / _CONFIG).write_text(text + "\n", "utf-8")
    return Path(folder)


def _torch_module(student: Student) -> Any:
    if student.head is None:
        msg = (
            f"student {student.name} has no classes, and WSInfer runs classifiers "
            "only; choose one with classes."
        )
        raise InputError(msg)
    module = getattr(student.backend, "module", None)
    if module is None:
        msg = f"student {student.name} does not run on torch: nothing to export."
        raise InputError(msg)
    return module


def _on_cpu(module: Any) -> Any:
    import torch

    moved = copy.deepcopy(module).to("cpu", torch.float32)
    return moved.to(memory_format=torch.contiguous_format).eval()


def _trace(student: Student, encoder: Any) -> Any:
    import torch

    from napari_histodistill.students.backends.forward import pooled

    head = student.head
    assert head is not None  # _torch_module has refused it
    classes, dim = head.weight.shape
    spec, input_px = student.spec, student.spec.input_px

    class Classifier(torch.nn.Module):
        """The encoder as the student runs it, and the head behind it."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.linear = torch.nn.Linear(dim, classes)

        def forward(self, pixels: torch.Tensor) -> Any:
            return self.linear(pooled(self.encoder, pixels, input_px))

    model = Classifier()
    # The temperature goes into the weights: one operation less, the same logits.
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(head.weight / head.temperature))
        model.linear.bias.copy_(torch.from_numpy(head.bias / head.temperature))
    px = spec.tile_px
    try:
        # torch's warnings about tracing are silenced: _verify checks what they fear.
        with torch.inference_mode(), warnings.catch_warnings(action="ignore"):
            trace: Any = torch.jit.trace
            return trace(model.eval(), torch.zeros(2, 3, px, px), check_trace=False)
    except RuntimeError as error:
        msg = f"student {student.name} cannot be exported: {error}"
        raise ComputeError(msg) from error


def _agreement(student: Student, off: float) -> str:
    words = (
        f"{student.name}: compared with the student in {CHECKED_IN}, the exported "
        f"model's probabilities differ by at most {off:.1e}"
    )
    here = student.device.precision
    if here == CHECKED_IN:
        return f"{words}."
    return (
        f"{words}; maps made on this machine are computed in {here} and differ more "
        '(load_student(…, precision="float32") computes as the export does).'
    )


def _verify(student: Student, encoder: Any, traced: Any) -> float:
    """Compare with the student in full precision, whatever it runs in here.

    Returns the largest difference of a probability.
    """
    import torch

    from napari_histodistill.students.backends.torch import TorchBackend
    from napari_histodistill.students.student import DeviceChoice

    spec = student.spec
    device = DeviceChoice("cpu", "CPU", "checking an export", CHECKED_IN)
    exact = TorchBackend(
        copy.deepcopy(encoder),
        device,
        mean=spec.mean,
        std=spec.std,
        input_px=spec.input_px,
    )
    # Not the number of tiles that was traced, so that a frozen batch size shows.
    tiles = _tiles(spec.tile_px)
    ours = student.classify(exact.embed(tiles))
    try:
        with torch.inference_mode():
            off = max(
                float(np.abs(torch.softmax(traced(batch), dim=1).numpy() - ours).max())
                for batch in _as_others_feed(tiles, spec.mean, spec.std)
            )
    except RuntimeError as error:
        msg = f"student {student.name}: the exported model does not run: {error}"
        raise ComputeError(msg) from error
    if not off <= _TOLERANCE:
        msg = (
            f"student {student.name}: the exported model differs from the student by "
            f"{off:.2g} in probability, both in {CHECKED_IN} (at most {_TOLERANCE} is "
            "accepted)."
        )
        raise ComputeError(msg)
    return off


def _tiles(px: int) -> npt.NDArray[np.uint8]:
    """Return tiles ``(n, px, px, 3)`` to compare by: real tissue, noise, and glass.

    Tissue, because what goes wrong with an encoder's input shows on edges and texture,
    and noise hardly changes a mean; it is scikit-image's piece of colon.
    """
    from PIL import Image
    from skimage.data import immunohistochemistry

    picture = Image.fromarray(immunohistochemistry())
    corners = np.linspace(0, min(picture.size) - 256, 3).astype(int).tolist()
    tissue = [
        np.asarray(picture.resize((px, px), box=(x, y, x + 256, y + 256)))
        for y in corners
        for x in corners
    ][:_CHECKED_TILES]
    noise = np.random.default_rng(0).integers(0, 256, (2, px, px, 3), dtype=np.uint8)
    glass = np.full((1, px, px, 3), 243, np.uint8)
    return np.concatenate([np.stack(tissue), noise, glass])


def _as_others_feed(
    tiles: npt.NDArray[np.uint8], mean: PerChannel, std: PerChannel
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tiles as WSInfer makes its batches, and as QuPath does.

    WSInfer turns bytes into floats from 0 to 1 and normalises those (torchvision's
    ``ToTensor`` and ``Normalize``); QuPath multiplies and shifts the bytes at once.
    """
    import torch

    raw = torch.from_numpy(tiles.transpose(0, 3, 1, 2).copy())
    middle, spread = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    as_floats = (raw.float() / 255 - middle) / spread
    as_bytes = raw.float() * (1 / (255 * spread)) - middle / spread
    return as_floats.contiguous(), as_bytes.contiguous()


def _save(traced: Any, path: Path) -> None:
    try:
        traced.save(str(path))
    except RuntimeError as error:  # what torch makes of a full disk
        msg = f"{path.parent}: cannot be written ({error})."
        raise InputError(msg) from error


def _config(student: Student) -> dict[str, Any]:
    spec = student.spec
    normalize = {"mean": list(spec.mean), "std": list(spec.std)}
    return {
        "spec_version": "1.0",
        "type": "model",
        "name": spec.name,
        "architecture": spec.backbone,
        "num_classes": len(spec.classes),
        "patch_size_pixels": spec.tile_px,
        "spacing_um_px": spec.mpp,
        "class_names": list(spec.class_names),
        "transform": [
            {"name": "Resize", "arguments": {"size": spec.tile_px}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": normalize},
        ],
    }


def _is_ours(folder: Path) -> bool:
    return {entry.name for entry in folder.iterdir()} == {_MODEL, _CONFIG}
