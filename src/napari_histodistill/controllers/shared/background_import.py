"""Import torch in a thread without freezing the window.

Three things freeze it while a thread imports. Loading torch's shared libraries holds
the interpreter's lock for a quarter of a second: loading them first through
``dlopen``, which ``ctypes`` calls without the lock, costs the window nothing. A full
garbage collection over the hundred thousands of objects of a fresh torch takes as long:
it is put off until the import is over. And triton must stay out where Mesa draws (see
:mod:`~napari_histodistill.students.llvm_clash`). Measured: from stalls of 240 ms to
35 ms.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.students.llvm_clash import keep_triton_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.students.student import Student

_LIBRARIES = (
    # (file, whether its symbols are for everybody, as torch itself loads it)
    ("libtorch_global_deps.so", True),
    ("libc10.so", False),
    ("libtorch_cpu.so", False),
    ("libtorch_python.so", False),
)


def load_student_in_background(name: str | Path, *, device: str = "auto") -> Student:
    """Load a student in a thread of a process that has a window.

    Raises
    ------
    BundleError, DeviceError
        As :func:`~napari_histodistill.students.load_student`.
    """
    from napari_histodistill.students import load_student

    import_torch_in_background()
    return load_student(name, device=device)


def import_torch_in_background() -> None:
    """Import torch and what students need beside it; call it in a thread."""
    if "timm" in sys.modules:
        return
    keep_triton_out()
    load_libraries()
    with collection_put_off():
        import timm  # noqa: F401 - brings torch and torchvision along


def import_work(*modules: str) -> Work:
    """Return work that imports modules that will soon be waited for.

    napari imports pandas with the first Labels layer, which would freeze the window;
    zarr is needed for the first store, when the user has just pressed Run.
    """

    def work(cancel: CancelToken) -> Iterator[str]:
        for module in modules:
            cancel.check()
            with collection_put_off():
                importlib.import_module(module)
            yield module

    return work


def load_libraries() -> int:
    """Load torch's shared libraries without the interpreter's lock (Linux).

    Returns
    -------
    int
        How many were loaded. None is not a failure: the import loads what is missing.
    """
    spec = importlib.util.find_spec("torch")
    if sys.platform != "linux" or spec is None or spec.origin is None:
        return 0
    folder = Path(spec.origin).parent / "lib"
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    loaded = 0
    for name, shared in _LIBRARIES:
        flags = os.RTLD_NOW | (os.RTLD_GLOBAL if shared else os.RTLD_LOCAL)
        if dlopen(os.fsencode(folder / name), flags):
            loaded += 1
    return loaded


@contextmanager
def collection_put_off() -> Iterator[None]:
    """Keep the garbage collector from running meanwhile."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
