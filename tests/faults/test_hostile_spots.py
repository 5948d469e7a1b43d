"""Files of spots that lie: refused in a sentence, before they fill the memory."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="spots need the extra [spatial]")
pytest.importorskip("pandas", reason="spots need the extra [spatial]")

from napari_histodistill.distill.spots import hdf5_files, spot_process  # noqa: E402
from napari_histodistill.distill.spots.spot_files import read_spots  # noqa: E402
from napari_histodistill.errors import InputError  # noqa: E402
from napari_histodistill.running import SAFE_PATH  # noqa: E402
from tests.faults.hostile_spots import (  # noqa: E402
    GENES,
    SPOTS,
    bomb,
    encoded,
    good,
    good_matrix,
    read_capped,
    replaced,
    same_text,
)

pytestmark = pytest.mark.usefixtures("forked_reading")

SECRET = "of somebody else"


def secret(folder):
    """Write a file of this machine that a stranger would like to have."""
    path = folder / "private.bin"
    (np.arange(SPOTS * GENES) * 1000).astype("f4").tofile(path)
    with h5py.File(folder / "private.h5", "w") as file:
        file["X"] = np.arange(SPOTS * GENES).reshape(SPOTS, GENES) * 1000.0
        file["names"] = [SECRET] * GENES
    return folder


def external_link(file, place, path):
    del file[path]
    file[path] = h5py.ExternalLink(str(place / "private.h5"), "/X")


def link_to_a_pipe(file, place, _path):
    os.mkfifo(place / "pipe")
    file["uns/notes"] = h5py.ExternalLink(str(place / "pipe"), "/X")


def soft_link(file, _place, path):
    file["hidden"] = file[path][...]
    del file[path]
    file[path] = h5py.SoftLink("/hidden")


def soft_circle(file, _place, _path):
    file["uns/a"] = h5py.SoftLink("/uns/b")
    file["uns/b"] = h5py.SoftLink("/uns/a")


def external_storage(file, place, path):
    replaced(
        file,
        path,
        shape=(SPOTS, GENES),
        dtype="f4",
        external=[(str(place / "private.bin"), 0, h5py.h5f.UNLIMITED)],
    )


def virtual(file, place, path):
    layout = h5py.VirtualLayout((SPOTS, GENES), "f4")
    layout[:] = h5py.VirtualSource(place / "private.h5", "X", (SPOTS, GENES))
    del file[path]
    file.create_virtual_dataset(path, layout)


def plugin(file, _place, path):
    replaced(
        file,
        path,
        shape=(SPOTS, GENES),
        dtype="f4",
        chunks=(SPOTS, GENES),
        compression=32015,
        allow_unknown_filter=True,
    )


REACHING_OUT = {
    "an external link": (external_link, "X is a link"),
    "a link to a pipe": (link_to_a_pipe, "uns/notes is a link"),
    "a soft link": (soft_link, "X is a link"),
    "soft links in a circle": (soft_circle, "uns/[ab] is a link"),
    "external storage": (external_storage, "X is stored in another file"),
    "a virtual array": (virtual, "X is put together from other files"),
    "a filter as a plugin": (plugin, "X is compressed by a filter.*32015.*gzip"),
}


@pytest.mark.parametrize("trick", REACHING_OUT)
@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders on Windows")
def test_a_file_that_reaches_out(trick, tmp_path):
    change, words = REACHING_OUT[trick]
    with good(tmp_path / "spots.h5ad") as file:
        change(file, secret(tmp_path), "X")
    with pytest.raises(InputError, match=rf"spots.h5ad.*{words}"):
        read_spots(tmp_path / "spots.h5ad")


@pytest.mark.parametrize("trick", ["an external link", "external storage", "virtual"])
def test_a_matrix_of_space_ranger_that_reaches_out(trick, tmp_path):
    change = {"virtual": virtual}.get(trick) or REACHING_OUT[trick][0]
    folder = tmp_path / "run"
    with good_matrix(folder) as file:
        change(file, secret(tmp_path), "matrix/data")
    with pytest.raises(InputError, match=r"bc_matrix.h5 is not read"):
        read_spots(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("name", ["a.h5ad", "a.h5", "a.csv"])
@pytest.mark.parametrize("target", ["pipe", "zero", "private.bin"])
def test_a_name_that_is_no_file(name, target, tmp_path):
    secret(tmp_path)
    if target == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(
            "/dev/zero" if target == "zero" else tmp_path / target
        )
    with pytest.raises(InputError, match=rf"{name} is a link or not a plain file"):
        read_spots(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize(
    "name", ["spatial/tissue_positions_list.csv", "spatial/scalefactors_json.json"]
)
def test_links_inside_a_folder_of_space_ranger(name, tmp_path):
    folder = tmp_path / "run"
    good_matrix(folder).close()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(InputError, match="plain file"):
        read_spots(folder)
    (folder / "spatial").rename(tmp_path / "elsewhere")
    (folder / "spatial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="spatial is missing"):
        read_spots(folder / "filtered_feature_bc_matrix.h5")


def deep(file):
    at = file["uns"]
    for _ in range(500):
        at = at.create_group("a")


def crowded(file):
    one = file["uns"].create_dataset("one", data=1)
    for k in range(hdf5_files.MOST_OBJECTS):
        file["uns"][f"a{k}"] = one


def circle(file):
    """Hard links back to the beginning: harmless, since objects are visited once."""
    file["uns/up"] = file["/"]
    file["uns/spatial/V1/up"] = file["uns"]


def unread(file):
    """What AnnData would unpack to 4 GB: it is not read at all."""
    uns = file["uns"]
    big = uns.create_dataset("a", shape=(2**29,), dtype="f8", chunks=(2**20,))
    encoded(big, "array")
    uns.create_dataset("b", shape=(2**40,), dtype="u1", compression="gzip")
    file.create_dataset("obsp/c", shape=(2**20, 2**20), dtype="f8", chunks=(99, 99))
    kind = np.dtype([(f"f{k}", "f8") for k in range(500)])
    file.create_dataset("obs/compound", shape=(2**20,), dtype=kind, chunks=(9,))
    file["uns/reference"] = file["X"].ref
    file["uns"].attrs.create("text", "x" * 60_000)


def huge_matrix(file):
    replaced(file, "X", shape=(SPOTS, 2**31), dtype="f4", chunks=(1, 99))


def empty_matrix(file):
    genes = 1_000_000
    replaced(file, "X", shape=(SPOTS, genes), dtype="f4", chunks=(1, 2**16))
    names = replaced(
        file, "var/_index", shape=(genes,), dtype="S8", chunks=True, compression="gzip"
    )
    names[:] = np.arange(genes).astype("S8")


def huge_positions(file):
    replaced(file, "obsm/spatial", shape=(2**23, 2), dtype="f8", compression="gzip")


def long_names(file):
    same_text(file, "var/_index", 2**14, 2**20)


def wide_names(file):
    replaced(file, "var/_index", shape=(GENES,), dtype="S100000000", chunks=(1,))


def bomb_in_a_chunk(file):
    bomb(file, "X", (SPOTS, GENES), unpacked=2**30)


def bomb_in_a_wide_chunk(file):
    genes = 2**20
    bomb(file, "X", (SPOTS, genes), unpacked=2**31)
    names = replaced(
        file,
        "var/_index",
        shape=(genes,),
        dtype="S8",
        chunks=(genes,),
        compression="gzip",
    )
    names[:] = np.arange(genes).astype("S8")


def sparse(file, **parts):
    del file["X"]
    at = file.create_group("X")
    encoded(at, "csr_matrix", "0.1.0")
    at.attrs["shape"] = parts.pop("shape", (SPOTS, GENES))
    whole = {
        "data": np.ones(SPOTS, "f4"),
        "indices": np.arange(SPOTS) % GENES,
        "indptr": np.arange(SPOTS + 1),
    }
    for name, values in (whole | parts).items():
        at[name] = values


LIES = {
    "groups 500 deep": (deep, "more objects"),
    "50,000 names of one object": (crowded, "more objects"),
    "a circle of hard links": (circle, ""),
    "gigabytes in uns, obs, obsp": (unread, ""),
    "a matrix of 2^35 values": (huge_matrix, "X is 20 × 2147483648, but"),
    "a matrix of which nothing is stored": (empty_matrix, "far more than"),
    "positions of which nothing is stored": (huge_positions, "far more than"),
    "16,384 names that are one long text": (long_names, "more text than"),
    "names of 100 MB": (wide_names, "far more than"),
    "a chunk longer than its content": (bomb_in_a_chunk, "longer than its content"),
    "a chunk that unpacks too far": (bomb_in_a_wide_chunk, "unpacks to more"),
    "a column outside": (
        lambda f: sparse(f, indices=np.full(SPOTS, 2**40)),
        "values outside its 20 × 6 places",
    ),
    "a column below 0": (lambda f: sparse(f, indices=-np.arange(SPOTS)), "outside"),
    "rows that go back": (
        lambda f: sparse(f, indptr=[0, *range(SPOTS - 1, -1, -1)]),
        "outside",
    ),
    "rows beyond the end": (
        lambda f: sparse(f, indptr=np.arange(SPOTS + 1) * 10**9),
        "outside",
    ),
    "another shape": (lambda f: sparse(f, shape=(2**40, 2**40)), "X is 1099511627776"),
    "a shape of a million sides": (
        lambda f: sparse(f, shape=np.ones(7000, int)),
        "X is empty",
    ),
    "values that are references": (
        lambda f: replaced(f, "obsm/spatial", data=np.full((SPOTS, 2), f["X"].ref)),
        "positions are",
    ),
    "an index elsewhere": (
        lambda f: f["var"].attrs.create("_index", "../uns/spatial"),
        "",
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Read all lies in one process with little memory."""
    folder = tmp_path_factory.mktemp("lies")
    paths = []
    for k, (change, _) in enumerate(LIES.values()):
        paths.append(folder / f"{k}.h5ad")
        with good(paths[-1]) as file:
            change(file)
        assert paths[-1].stat().st_size < 2**25
    return dict(zip(LIES, read_capped(paths), strict=True))


@pytest.mark.parametrize("lie", LIES)
def test_an_h5ad_that_lies(lie, outcomes):
    words, found = LIES[lie][1], outcomes[lie]
    if not words:
        assert found == {"kind": "read", "said": "", "spots": SPOTS, "genes": GENES}
        return
    assert found["kind"] == "InputError", found
    assert words in found["said"]
    assert ".h5ad" in found["said"]
    assert "\n" not in found["said"]


def packed(text: bytes, times: int) -> bytes:
    block = gzip.compress(text * (2**20 // len(text)))
    return block * times


def test_tables_that_unpack_without_end(tmp_path):
    contents = {
        "zeros.csv.gz": packed(b"\0", 900),
        "rows.csv.gz": gzip.compress(b"x,y,G\n") + packed(b"1,2,3\n", 900),
        "holes.csv": b"",
        "one_line.csv": b"x,y," + b"G," * 2**20,
        "quote.csv": b'x,y,G\n1,2,"' + b"3\n" * 2**20,
        "cut.csv.gz": gzip.compress(b"x,y,G\n1,2,3\n" * 99)[:-9],
        "damaged.csv.gz": b"\x1f\x8b" + bytes(range(99)),
    }
    paths = [tmp_path / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    os.truncate(tmp_path / "holes.csv", 2**40)
    for path, found in zip(paths, read_capped(paths, memory_mb=2500), strict=True):
        assert found["kind"] == "InputError", (path, found)
        assert path.name in found["said"]
        assert "\n" not in found["said"]
        assert "Error" not in found["said"]


@pytest.mark.parametrize(
    "content", ["[" * 10**5, "7", '{"microns_per_pixel": NaN}', "{", "\xff", "null"]
)
def test_scale_factors_that_lie(content, tmp_path):
    good_matrix(tmp_path / "run").close()
    path = tmp_path / "run" / "spatial" / "scalefactors_json.json"
    path.write_text(content, "latin-1")
    try:
        table = read_spots(tmp_path / "run")
    except InputError as error:
        assert "scalefactors_json.json cannot be read" in str(error)  # noqa: PT017
    else:
        assert table.um_per_px is None


def damaged(folder, count):
    """Write copies of a good file in which some bytes are changed at random."""
    rng = np.random.default_rng(7)
    good(folder / "good.h5ad").close()
    content = (folder / "good.h5ad").read_bytes()
    for k in range(count):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 12)):
            changed[place] = rng.integers(256)
        if k % 10 == 0:
            changed = changed[: rng.integers(len(content))]
        (folder / f"{k}.h5ad").write_bytes(changed)


def test_damage_never_escapes_as_another_error(tmp_path, monkeypatch):
    """Some of these make the HDF5 library go round in circles for ever."""
    monkeypatch.setattr(spot_process, "LEAST_S", 8)
    damaged(tmp_path, 150)
    for k in (*range(0, 40, 5), 44):
        try:
            read_spots(tmp_path / f"{k}.h5ad")
        except InputError as error:
            assert str(error).startswith(f"{k}.h5ad")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.skipif(sys.platform != "linux", reason="capped on Linux only")
def test_a_text_that_claims_gigabytes_takes_none(tmp_path):
    """One byte more in a pointer, and the library takes what it says."""
    path = tmp_path / "spots.h5ad"
    with good(path) as file:
        place = file["var/_index"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place + 3] = 0x7F
    path.write_bytes(content)
    # Its own peak: what `wait4` says counts the one of this process, too.
    code = (
        "import sys\nfrom pathlib import Path\n"
        f"from {spot_process.__name__} import main\nmain(sys.argv[1:])\n"
        "print(Path('/proc/self/status').read_text())"
    )
    command = (sys.executable, "-c", code, "h5ad", path, "{}", tmp_path)
    said = subprocess.check_output(command, env=os.environ | SAFE_PATH, text=True)
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB", said, re.M)
    assert int(peak) < 2**20, "KiB"
    with pytest.raises(InputError, match=r"spots\.h5ad"):
        read_spots(path)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import time; time.sleep(60)", "did not end within 5 s"),
        ("import os; os.abort()", "ended early"),
        ("raise SystemError('no')", "ended early .SystemError: no"),
    ],
)
def test_a_library_that_hangs_or_crashes(code, words, tmp_path, monkeypatch):
    monkeypatch.setattr(spot_process, "LEAST_S", 5)
    monkeypatch.setattr(
        spot_process, "python_command", lambda *_: [sys.executable, "-c", code]
    )
    good(tmp_path / "a.h5ad").close()
    with pytest.raises(InputError, match=rf"a.h5ad cannot be read.*{words}"):
        read_spots(tmp_path / "a.h5ad")
