"""Student bundles: folders of ``spec.json``, ``student.safetensors`` and model card.

Bundles come from strangers. Everything is checked before a tensor is used, nothing is
ever unpickled, and a single changed byte is refused.
"""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.errors import BundleError, InputError, refused_by_disk
from napari_histodistill.files import put_folder, recover, write_whole
from napari_histodistill.students.bundled import find_bundled
from napari_histodistill.students.head import Head
from napari_histodistill.students.model_card import write_card
from napari_histodistill.students.references.fitting import (
    TrustReference,
    tensor_shapes,
)
from napari_histodistill.students.spec_file import read_spec
from napari_histodistill.students.tensor_file import (
    NamedArrays,
    check_tensors,
    read_tensors,
    write_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from napari_histodistill.students.self_test import SelfTest
    from napari_histodistill.students.spec import StudentSpec
    from napari_histodistill.students.student import Backend, DeviceChoice, Student

SPEC_FILE = "spec.json"
TENSORS_FILE = "student.safetensors"
CARD_FILE = "README.md"
_HEAD = ("head.weight", "head.bias")
_FAMILIARITY = ("familiarity.mean", "familiarity.basis")
"""In older bundles: read, checked, and not used."""
_ENCODER = "encoder."
_OWN_FILES = frozenset(
    {SPEC_FILE, TENSORS_FILE, CARD_FILE, ".DS_Store", "Thumbs.db", "desktop.ini"}
)
"""What may lie in a bundle's folder; the last three are left there by file browsers."""


@dataclass(frozen=True)
class _Bundle:
    folder: Path
    spec: StudentSpec
    tensors: NamedArrays


def load_spec(student: str | Path) -> StudentSpec:
    """Read and check the spec of a bundled student or a bundle folder, without torch.

    Parameters
    ----------
    student : str or Path
        A bundled name (``"colon-probe"``) or a folder.

    Raises
    ------
    BundleError
        If there is no such student, or its spec is damaged, changed or of a newer
        version.
    """
    return read_spec(_inside(_folder_of(student), SPEC_FILE))


def load_student(
    student: str | Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
) -> Student:
    """Load a student so that it is ready to run.

    Parameters
    ----------
    student : str or Path
        A bundled name (``"colon-probe"``; :func:`list_students` returns all) or the
        folder of a bundle.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``. On the CPU the
        fastest backend runs it: if there is more than one, a self-test of two seconds
        finds it the first time; ``"cpu:torch"`` and ``"cpu:openvino"`` name one.
    threads : int or None
        CPU threads for torch in the whole process; None keeps their number.
    precision : {"float32", "bfloat16", "float16"} or None
        Precision to compute in; None leaves it to :func:`choose_device`. If it is given
        and no backend is, torch runs the student.

    Returns
    -------
    Student
        ``embed`` takes tiles ``(n, tile_px, tile_px, 3)`` uint8, RGB, and gives
        ``(n, embedding_dim)`` float32.

    Raises
    ------
    BundleError
        If there is no such student, or anything in its folder is not as required.
    DeviceError
        If the device does not exist on this machine.
    ComputeError
        If the encoder cannot run on the device.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_histodistill import load_student
    >>> student = load_student("colon-he", device="cpu:torch")
    >>> student.spec.tile_px, student.spec.mpp
    (224, 1.0)
    >>> tiles = np.zeros((2, 224, 224, 3), np.uint8)
    >>> student.embed(tiles).shape
    (2, 1280)
    """
    bundle = _read_bundle(_folder_of(student))

    from napari_histodistill.students.device import choose_device, split_backend
    from napari_histodistill.students.precision import emulation_note
    from napari_histodistill.students.self_test import with_fastest
    from napari_histodistill.students.student import Student

    if threads is not None:
        _set_threads(threads)
    spec = bundle.spec
    build = _builder(bundle)
    choice = choose_device(device, precision=precision)
    if choice.name == "cpu" and precision is None and not split_backend(device)[1]:
        choice = with_fastest(choice, spec, build)
    if precision is not None and (note := emulation_note(choice)):
        choice = replace(choice, reason=f"{choice.reason} {note}")
    backend = build(choice)
    return Student(
        spec,
        backend,
        head=_head_of(bundle),
        trust=_trust_of(bundle),
        digest=spec.digest,
        folder=bundle.folder,
    )


def measure_student(student: str | Path, *, device: str = "cpu") -> SelfTest:
    """Measure the CPU backends with a student, and remember the fastest.

    Raises
    ------
    HistodistillError
        As :func:`load_student`.
    """
    from napari_histodistill.students.device import choose_device
    from napari_histodistill.students.self_test import measure

    bundle = _read_bundle(_folder_of(student))
    return measure(choose_device(device), bundle.spec, _builder(bundle))


def save_student(
    folder: str | Path,
    spec: StudentSpec,
    *,
    head: Head | None = None,
    encoder_state: dict[str, torch.Tensor] | None = None,
    trust: TrustReference | None = None,
    card: str = "",
) -> Path:
    """Write a bundle, completely or not at all.

    Parameters
    ----------
    folder : str or Path
        Folder to write; it must not exist yet, unless it is a bundle, which is then
        replaced.
    spec : StudentSpec
        The student's spec; ``temperature``, ``trust``, checksums and digest are filled
        in here.
    head : Head or None
        Classifier for ``spec.classes``.
    encoder_state : dict of str to torch.Tensor or None
        State of the timm model without classifier; required for
        ``weights.source = "bundle"``.
    trust : TrustReference or None
        What slides are compared with.
    card : str
        Text of the model card; by default :func:`write_card` makes it from the spec.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If head, encoder and spec do not fit, or the place is taken or cannot be
        written to (:class:`DiskError` where the disk is full).

    Examples
    --------
    A bundled student under a name and for a resolution of one's own:

    >>> from napari_histodistill import load_student, save_student
    >>> student = load_student("colon-probe", device="cpu:torch")
    >>> spec = student.spec.model_copy(update={"name": "my-probe", "mpp": 0.9})
    >>> folder = save_student("my-probe", spec, head=student.head)
    >>> load_student(folder, device="cpu:torch").spec.mpp
    0.9
    """
    target = Path(folder)
    recover(target)
    _refuse_taken(target)
    _check_parts(spec, head, encoder_state)
    tensors = _gather(head, encoder_state, trust)
    staging = _staging(target)
    try:
        checksum = write_tensors(staging / TENSORS_FILE, tensors) if tensors else ""
        update: dict[str, object] = {
            "tensors_sha256": checksum,
            "digest": "",
            "familiarity": None,
            "trust": None if trust is None else trust.spec(),
        }
        if head is not None:
            update["temperature"] = head.temperature
        final = spec.model_copy(update=update)
        final = final.model_copy(update={"digest": final.computed_digest()})
        (staging / SPEC_FILE).write_text(_as_text(final), encoding="utf-8")
        (staging / CARD_FILE).write_text(card or write_card(final), encoding="utf-8")
        put_folder(staging, target)
    except OSError as error:
        msg = f"{target} cannot be written: {error}."
        raise refused_by_disk(msg, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def restate(folder: str | Path, spec: StudentSpec) -> None:
    """Replace a bundle's spec and card; its tensors stay unchanged.

    For facts that are measured after the training, such as how the training tiles were
    stained.

    Raises
    ------
    BundleError
        If there is no intact bundle, or the new spec is for other tensors.
    InputError
        If it cannot be written.
    """
    target = Path(folder)
    before = _read_bundle(_folder_of(target)).spec
    if spec.tensors_sha256 != before.tensors_sha256:
        msg = f"{target}: the new spec is for other tensors; use save_student."
        raise BundleError(msg)
    final = spec.model_copy(update={"digest": ""})
    final = final.model_copy(update={"digest": final.computed_digest()})
    try:
        write_whole(target / SPEC_FILE, _as_text(final))
        write_whole(target / CARD_FILE, write_card(final))
    except OSError as error:
        msg = f"{target} cannot be written: {error}."
        raise InputError(msg) from error


def _as_text(spec: StudentSpec) -> str:
    content = spec.model_dump(mode="json")
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _staging(target: Path) -> Path:
    """Make a folder beside the place that a bundle goes to, by the umask."""
    staging = target.with_name(f".{target.name}-{secrets.token_hex(6)}-new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        msg = f"{target} cannot be written: {error}."
        raise refused_by_disk(msg, error) from error
    return staging


def _refuse_taken(target: Path) -> None:
    """Refuse a place that holds anything but a student: it would be deleted."""
    if not target.exists():
        return
    if not (target / SPEC_FILE).is_file():
        msg = f"{target} exists and is not a student: choose another folder."
        raise InputError(msg)
    others = [p.name for p in target.iterdir() if p.name not in _OWN_FILES]
    if others:
        msg = (
            f"{target} holds {others[0]!r}, which is no part of a student and would be "
            "deleted: choose another folder, or move it away."
        )
        raise InputError(msg)


def _check_parts(
    spec: StudentSpec,
    head: Head | None,
    encoder_state: dict[str, torch.Tensor] | None,
) -> None:
    if (head is None) != (not spec.classes):
        msg = f"student {spec.name}: classes and head must come together."
        raise InputError(msg)
    expected = (len(spec.classes), spec.embedding_dim)
    if head is not None and head.weight.shape != expected:
        msg = f"student {spec.name}: the head is {head.weight.shape}, not {expected}."
        raise InputError(msg)
    if (encoder_state is None) != (spec.weights.source == "package"):
        msg = (
            f"student {spec.name}: encoder_state is needed if, and only if, the spec's "
            "weights.source is 'bundle'."
        )
        raise InputError(msg)


def _gather(
    head: Head | None,
    encoder_state: dict[str, torch.Tensor] | None,
    trust: TrustReference | None,
) -> NamedArrays:
    tensors = {
        _ENCODER + name: values.detach().cpu().numpy()
        for name, values in (encoder_state or {}).items()
    }
    if head is not None:
        tensors |= dict(zip(_HEAD, (head.weight, head.bias), strict=True))
    if trust is not None:
        tensors |= trust.tensors()
    return tensors


def _folder_of(student: str | Path) -> Path:
    if isinstance(student, str):
        bundled = find_bundled(student)
        if bundled is not None:
            return bundled
    folder = Path(student)
    recover(folder)
    if (folder / SPEC_FILE).is_file():
        return folder
    if folder.is_dir():
        msg = f"{folder} is not a student bundle: it has no {SPEC_FILE}."
    else:
        msg = (
            f"there is no student {str(student)!r}: give a bundled name (see "
            "`histodistill students`) or the folder of a bundle."
        )
    raise BundleError(msg)


def _read_bundle(folder: Path) -> _Bundle:
    spec = read_spec(_inside(folder, SPEC_FILE))
    path = _inside(folder, TENSORS_FILE)
    if not spec.tensors_sha256:
        parts = spec.familiarity or spec.trust
        if spec.classes or spec.weights.source == "bundle" or parts:
            msg = f"{folder / SPEC_FILE}: tensors_sha256 is missing: bundle incomplete."
            raise BundleError(msg)
        return _Bundle(folder, spec, {})
    tensors = read_tensors(path, spec.tensors_sha256)
    expected: dict[str, tuple[int, ...]] = {}
    if spec.classes:
        classes = len(spec.classes)
        expected |= {_HEAD[0]: (classes, spec.embedding_dim), _HEAD[1]: (classes,)}
    if spec.familiarity:
        shape = (spec.familiarity.components, spec.embedding_dim)
        expected |= {_FAMILIARITY[0]: shape[1:], _FAMILIARITY[1]: shape}
    if spec.trust:
        expected |= tensor_shapes(spec.trust)
    prefix = _ENCODER if spec.weights.source == "bundle" else None
    check_tensors(path, tensors, expected, free_prefix=prefix)
    return _Bundle(folder, spec, tensors)


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if path.exists() and not path.is_file():
        msg = f"{path} is not a file: get the bundle again."
        raise BundleError(msg)
    if not path.resolve().is_relative_to(folder.resolve()):
        msg = f"{path} is a link that leads out of the bundle: copy the file itself."
        raise BundleError(msg)
    return path


def _builder(bundle: _Bundle) -> Callable[[DeviceChoice], Backend]:
    """Return the function that builds this bundle's backend for a device."""
    from napari_histodistill.students.backends.build import build_backend

    encoder = {
        name.removeprefix(_ENCODER): values
        for name, values in bundle.tensors.items()
        if name.startswith(_ENCODER)
    }
    return lambda device: build_backend(bundle.spec, encoder, device)


def _head_of(bundle: _Bundle) -> Head | None:
    if not bundle.spec.classes:
        return None
    weight, bias = (bundle.tensors[name] for name in _HEAD)
    return Head(
        weight.astype("float32"), bias.astype("float32"), bundle.spec.temperature
    )


def _trust_of(bundle: _Bundle) -> TrustReference | None:
    said = bundle.spec.trust
    if said is None:
        return None
    try:
        return TrustReference.of(said, bundle.tensors)
    except ValueError as error:
        msg = f"{bundle.folder / TENSORS_FILE}: {error}: get the bundle again."
        raise BundleError(msg) from error


def _set_threads(threads: int) -> None:
    import torch

    if threads < 1:
        msg = f"threads must be at least 1, got {threads}."
        raise InputError(msg)
    torch.set_num_threads(threads)
