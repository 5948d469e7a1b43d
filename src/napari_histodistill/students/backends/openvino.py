"""The OpenVINO backend: on CPUs two to four times as fast as torch.

OpenVINO is an extra (``pip install "napari-histodistill[openvino]"``) and is imported
only here. The student's torch module is converted once; the result is kept in the
user's cache under the student's digest, compared with torch at every loading, and
converted again if the two disagree.

Each core works on its own tiles (one *stream* per thread), so no core waits for
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
from napari_histodistill.errors import ComputeError, DeviceError, InputError
from napari_histodistill.students.backends.early_layers import early_part
from napari_histodistill.students.backends.forward import FromBytes
from napari_histodistill.students.backends.torch import TorchBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.students.spec import StudentSpec
    from napari_histodistill.students.student import DeviceChoice

CHUNK = 2
"""Tiles per inference. Lite0 in bfloat16 on one core, tiles per second: 170 with 1, 197
with 2, 198 with 4, 184 with 8. With 2, at most one place of a block stays empty."""

LEAST_COSINE = 0.99
"""Smallest cosine to torch in float32 that passes the check at loading; bfloat16
reaches .999 and more."""

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_EXTRA = 'pip install "napari-histodistill[openvino]"'
_CONVERTING = threading.Lock()


def is_installed() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoBackend:
    """A converted timm module that turns uint8 pixels into embeddings.

    Parameters
    ----------
    module : torch.nn.Module
        A timm backbone without classifier (``num_classes=0``), on the CPU.
    device : DeviceChoice
        The CPU, with the precision ``"float32"`` or ``"bfloat16"``.
    spec : StudentSpec
        States normalisation and sizes; its digest names the converted model in the
        cache.

    Attributes
    ----------
    module : torch.nn.Module
        The module that was converted; for exports.
    tile_px : int
        Edge of a tile.
    streams : int
        Number of calls that run at the same time: one per torch thread.

    Raises
    ------
    DeviceError
        If OpenVINO is not installed, or the precision is not one of the two.
    ComputeError
        If the encoder cannot be converted, or computes something else afterwards.
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

        A tile gives the same bytes whichever tiles are embedded with it. May be called
        from several threads.

        Raises
        ------
        ComputeError
            If OpenVINO fails; the message includes its own.
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
        """Compile a model; convert a cached one again if it disagrees with torch."""
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
        # Windows are not square here, to notice if height and width are swapped.
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
            "OpenVINO and torch compute different embeddings with this encoder; use "
            "the device cpu:torch."
        )
        raise ComputeError(msg)

    def _cached(self, *, tokens: bool) -> Path | None:
        if not self._spec.digest:
            return None
        kind = "tokens" if tokens else "tiles"
        version = _openvino().__version__.partition("-")[0]
        name = f"{self._spec.digest[:32]}-{self.tile_px}-{kind}-{version}"
        try:
            return cache_dir("openvino") / name / "model.xml"
        except InputError:
            return None  # nowhere to keep it: it is converted again next time

    def _converted(self, *, tokens: bool) -> Any:
        """Return the OpenVINO model: from the cache or from torch's module."""
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
    """A compiled model with one request per stream, each used by one thread at a time.

    In bfloat16 it is two models in a row: the early layers stay in float32.
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
            # Pinned threads would compete with those that read the slide.
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
    """Split a model where its early layers end; return both parts with precisions."""
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
    """Pad a chunk to exactly ``CHUNK`` tiles: the model is compiled for one shape."""
    if len(chunk) == CHUNK:
        return chunk
    full = np.zeros((CHUNK, tile_px, tile_px, 3), np.uint8)
    full[: len(chunk)] = chunk
    return full


def _openvino() -> Any:
    """Import OpenVINO without its telemetry.

    OpenVINO's tools report to a statistics server when they are imported and used.
    Without the telemetry package they fall back on a stub of their own; and the
    conversion below goes through the frontend, which reports nothing.
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
    # One at a time, because the warning filter applies to the whole process. torch
    # calls tracing deprecated, but torch.export fixes the size of windows; and the
    # comparison at loading finds whatever tracing gets wrong.
    with _CONVERTING, torch.inference_mode(), warnings.catch_warnings(action="ignore"):
        traced = trace(whole, example, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
        model = frontend.convert(frontend.load(decoder))
    model.reshape([1, -1, -1, 3] if tokens else list(size))
    return model


def _keep(model: Any, path: Path) -> None:
    """Write under another name and rename, so that no half-written model is found."""
    try:
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent.parent))
    except OSError:
        return  # a full disk, as below
    try:
        _openvino().save_model(model, made / path.name, compress_to_fp16=False)
        made.rename(path.parent)
    except (OSError, RuntimeError):
        # A full disk, or another process was faster: the model in memory still works.
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _words(what: str) -> Iterator[None]:
    """Turn errors of OpenVINO and torch into one sentence with their message."""
    try:
        yield
    except ComputeError:
        raise
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        msg = f"{what}: {lines[-1].strip()}"
        raise ComputeError(msg) from error
