"""Runs an encoder with OpenVINO: on CPUs two to four times as fast as torch.

OpenVINO is an extra (``pip install "napari-histodistill[openvino]"``) and is imported
only here. The student's torch module is converted once; what comes out is kept in the
user's cache under the student's digest, compared with torch on every loading, and made
anew where it does not agree.

Each core works on tiles of its own (one *stream* per thread), so no core waits for
another, and an embedding does not depend on which tiles share its batch.
"""

from __future__ import annotations

import copy
import importlib.util
import shutil
import sys
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_histodistill.cache import cache_dir
from napari_histodistill.errors import ComputeError, DeviceError
from napari_histodistill.students.backends.early_layers import early_part
from napari_histodistill.students.backends.forward import FromBytes
from napari_histodistill.students.backends.torch import TorchBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.students.spec import StudentSpec
    from napari_histodistill.students.student import DeviceChoice

CHUNK = 2
"""Tiles per inference. Lite0 in bfloat16, tiles per second of one core: 170 with 1, 197
with 2, 198 with 4, 184 with 8; and no block leaves more than one place empty."""

LEAST_COSINE = 0.99
"""To torch in float32, of the check at loading; bfloat16 gives .999 and more."""

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_EXTRA = 'pip install "napari-histodistill[openvino]"'
_CONVERTING = threading.Lock()


def is_installed() -> bool:
    """Whether the extra is there; imports nothing."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoBackend:
    """A timm module, converted, that turns uint8 pixels into embeddings.

    Parameters
    ----------
    module : torch.nn.Module
        A timm backbone without classifier (``num_classes=0``), on the CPU.
    device : DeviceChoice
        The CPU, and in which precision: ``"float32"`` or ``"bfloat16"``.
    spec : StudentSpec
        Normalisation and sizes; its digest names the converted model in the cache.

    Attributes
    ----------
    module : torch.nn.Module
        What was converted; for exports.
    tile_px : int
        Edge of a tile.
    streams : int
        How many calls run side by side: one per thread that torch was given.

    Raises
    ------
    DeviceError
        If OpenVINO is not installed, or the precision is not one of the two.
    ComputeError
        If the encoder cannot be converted, or then computes something else.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        device: DeviceChoice,
        spec: StudentSpec,
    ) -> None:
        if not is_installed():
            msg = f"OpenVINO is not installed: {_EXTRA}, or use the device cpu:torch."
            raise DeviceError(msg)
        if device.precision not in _HINTS:
            msg = f"OpenVINO computes in {' or '.join(_HINTS)}, not {device.precision}."
            raise DeviceError(msg)
        self.device, self.module = device, module.eval()
        self.streams = torch.get_num_threads()
        self._spec, self.tile_px = spec, spec.tile_px
        self._pool = ThreadPoolExecutor(self.streams, thread_name_prefix="openvino")
        self._lock = threading.Lock()
        self._token_model: _Model | None = None
        self._tile_model = self._checked(tokens=False)

    def embed(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return ``(n, dim)`` float32, pooled, for tiles ``(n, tile, tile, 3)``.

        The same tile gives the same bytes in whatever company; may be called from
        several threads.

        Raises
        ------
        ComputeError
            If OpenVINO fails; the message carries its words.
        """
        starts = range(0, max(1, len(tiles)), CHUNK)
        chunks = (_filled(tiles[k : k + CHUNK], self.tile_px) for k in starts)
        done = list(self._pool.map(self._tile_model.run, chunks))
        return np.concatenate(done)[: len(tiles)]

    def tokens(self, windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return ``(n, h / stride, w / stride, dim)`` for windows ``(n, h, w, 3)``.

        Raises
        ------
        ComputeError
            If OpenVINO fails, or the module has no feature map.
        """
        with self._lock:
            if self._token_model is None:
                self._token_model = self._checked(tokens=True)
        single = (windows[k : k + 1] for k in range(len(windows)))
        return np.concatenate(list(self._pool.map(self._token_model.run, single)))

    def _checked(self, *, tokens: bool) -> _Model:
        """Compile; what was kept and does not compute what torch does is made anew."""
        kept = self._cached(tokens=tokens)
        if kept is not None and kept.is_file():
            try:
                return self._agreeing(tokens=tokens)
            except ComputeError:
                shutil.rmtree(kept.parent, ignore_errors=True)
        return self._agreeing(tokens=tokens)

    def _agreeing(self, *, tokens: bool) -> _Model:
        model = _Model(self._converted(tokens=tokens), self)
        exact = TorchBackend(
            copy.deepcopy(self.module),
            replace(self.device, precision="float32", backend="torch"),
            mean=self._spec.mean,
            std=self._spec.std,
            input_px=self._spec.input_px,
        )
        px = self.tile_px
        # Not square: height and width must not be mistaken for each other.
        size = (1, px, 2 * px, 3) if tokens else (CHUNK, px, px, 3)
        noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        ours = model.run(noise)
        torchs = (exact.tokens if tokens else exact.embed)(noise)
        if ours.shape == torchs.shape:
            lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(torchs, axis=-1)
            cosine = float(((ours * torchs).sum(axis=-1) / lengths).min())
            if cosine >= LEAST_COSINE:
                return model
        msg = (
            "OpenVINO computes something else than torch for this encoder; use the "
            "device cpu:torch."
        )
        raise ComputeError(msg)

    def _cached(self, *, tokens: bool) -> Path | None:
        if not self._spec.digest:
            return None
        kind = "tokens" if tokens else "tiles"
        version = _openvino().__version__.partition("-")[0]
        name = f"{self._spec.digest[:32]}-{self.tile_px}-{kind}-{version}"
        return cache_dir("openvino") / name / "model.xml"

    def _converted(self, *, tokens: bool) -> Any:
        """Return OpenVINO's model, from the cache or from torch's module."""
        path = self._cached(tokens=tokens)
        with _words("the encoder cannot be converted"):
            if path is not None and path.is_file():
                return _openvino().Core().read_model(path)
            whole = FromBytes(
                copy.deepcopy(self.module).to(memory_format=torch.contiguous_format),
                self._spec.mean,
                self._spec.std,
                input_px=self._spec.input_px,
                tokens=tokens,
            ).eval()
            model = _convert(whole, self.tile_px, tokens=tokens)
        if path is not None:
            _keep(model, path)
        return model


class _Model:
    """A compiled model and one request per stream, lent to one thread at a time.

    In bfloat16 it is two models, one after the other: the early layers in float32.
    """

    def __init__(self, model: Any, backend: OpenVinoBackend) -> None:
        self._where = backend.device.label
        precision = backend.device.precision
        with _words(f"OpenVINO failed on {self._where}"):
            parts = [(model, precision)]
            if precision == "bfloat16":
                parts = _in_two(model, backend.tile_px)
            compiled = [self._compile(part, name, backend) for part, name in parts]
            self._idle: SimpleQueue[list[Any]] = SimpleQueue()
            for _ in range(backend.streams):
                self._idle.put([part.create_infer_request() for part in compiled])

    @staticmethod
    def _compile(part: Any, precision: str, backend: OpenVinoBackend) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": backend.streams,
            "INFERENCE_NUM_THREADS": backend.streams,
            # Threads bound to cores would fight with those that read the slide.
            "ENABLE_CPU_PINNING": False,
        }
        return _openvino().Core().compile_model(part, "CPU", settings)

    def run(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        requests = self._idle.get()
        try:
            with _words(f"OpenVINO failed on {self._where}"):
                requests[0].infer({0: pixels})
                for before, request in pairwise(requests):
                    request.set_input_tensor(before.get_output_tensor(0))
                    request.infer()
                return np.array(requests[-1].get_output_tensor(0).data, np.float32)
        finally:
            self._idle.put(requests)


def _in_two(model: Any, tile_px: int) -> list[tuple[Any, str]]:
    """Cut a model where its early layers end; these are to run in float32."""
    openvino = _openvino()
    [inlet] = model.inputs
    wanted = inlet.partial_shape
    model.reshape([2, tile_px, tile_px, 3])
    seam = early_part(model)
    model.reshape(wanted)
    if seam is None:
        return [(model, "bfloat16")]
    shape = seam.get_partial_shape()
    carried = openvino.opset13.parameter(shape, openvino.Type.f32)
    for use in seam.get_target_inputs():
        use.replace_source_output(carried.output(0))
    early = openvino.Model([seam], [inlet.get_node()], "early")
    late = openvino.Model(model.get_results(), [carried], "late")
    return [(early, "float32"), (late, "bfloat16")]


def _filled(chunk: npt.NDArray[np.uint8], tile_px: int) -> npt.NDArray[np.uint8]:
    """Return exactly ``CHUNK`` tiles: one shape, compiled once."""
    if len(chunk) == CHUNK:
        return chunk
    full = np.zeros((CHUNK, tile_px, tile_px, 3), np.uint8)
    full[: len(chunk)] = chunk
    return full


def _openvino() -> Any:
    """Import OpenVINO without its telemetry.

    OpenVINO's tools report to a statistics server when they are imported and used. With
    no package of that name they fall back on a stub of their own; and the conversion
    below goes through the frontend, which reports nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _convert(whole: torch.nn.Module, tile_px: int, *, tokens: bool) -> Any:
    openvino = _openvino()
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    size = (1, 2 * tile_px, 2 * tile_px, 3) if tokens else (CHUNK, tile_px, tile_px, 3)
    example = torch.zeros(size, dtype=torch.uint8)
    frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
    trace: Any = torch.jit.trace
    # One at a time: the filter of warnings is the whole process's. torch calls tracing
    # old, but torch.export fixes the sizes of windows; and whatever tracing gets wrong,
    # the comparison at loading finds.
    with _CONVERTING, torch.inference_mode(), warnings.catch_warnings(action="ignore"):
        traced = trace(whole, example, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
        model = frontend.convert(frontend.load(decoder))
    model.reshape([1, -1, -1, 3] if tokens else list(size))
    return model


def _keep(model: Any, path: Path) -> None:
    """Write beside and rename: a half-written model never carries the name."""
    made = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent.parent))
    try:
        _openvino().save_model(model, made / path.name, compress_to_fp16=False)
        made.rename(path.parent)
    except (OSError, RuntimeError):
        # A full disk, or another process was faster: the model in memory is good.
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _words(what: str) -> Iterator[None]:
    """Turn what OpenVINO and torch raise into one sentence with their words."""
    try:
        yield
    except ComputeError:
        raise
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        msg = f"{what}: {lines[-1].strip()}"
        raise ComputeError(msg) from error
