"""Files of spots that a stranger may send, and a reader whose memory is capped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

SPOTS, GENES = 20, 6
MEMORY_MB = 900
ROOT = Path(__file__).parents[2]


def good(path: Path) -> h5py.File:
    """Write a small AnnData file, and leave it open for a change."""
    file = h5py.File(path, "w")
    rng = np.random.default_rng(0)
    file["X"] = rng.poisson(5.0, (SPOTS, GENES)).astype("f4")
    for frame, count in (("obs", SPOTS), ("var", GENES)):
        file[f"{frame}/_index"] = [f"{frame}{k}" for k in range(count)]
        encoded(file[f"{frame}/_index"], "string-array")
        encoded(file[frame], "dataframe")
        file[frame].attrs["_index"] = "_index"
        file[frame].attrs["column-order"] = np.array([], "f8")
    file["obsm/spatial"] = np.arange(SPOTS * 2.0).reshape(SPOTS, 2)
    file["uns/spatial/V1/scalefactors/spot_diameter_fullres"] = 8.0
    for name in ("X", "obsm/spatial"):
        encoded(file[name], "array")
    for name in ("obsm", "uns", "uns/spatial", "uns/spatial/V1"):
        encoded(file[name], "dict", "0.1.0")
    encoded(file["uns/spatial/V1/scalefactors"], "dict", "0.1.0")
    encoded(file["uns/spatial/V1/scalefactors/spot_diameter_fullres"], "numeric-scalar")
    encoded(file, "anndata", "0.1.0")
    return file


def encoded(node: Any, kind: str, version: str = "0.2.0") -> None:
    """Say of an object what it is, as AnnData does."""
    node.attrs["encoding-type"], node.attrs["encoding-version"] = kind, version


def good_matrix(folder: Path) -> h5py.File:
    """Write a small folder of Space Ranger, and leave its matrix open for a change."""
    (folder / "spatial").mkdir(parents=True)
    lines = [f"BC{k}-1,1,0,0,{k * 10},{k * 7}" for k in range(SPOTS)]
    text = "\n".join(lines) + "\n"
    (folder / "spatial" / "tissue_positions_list.csv").write_text(text)
    file = h5py.File(folder / "filtered_feature_bc_matrix.h5", "w")
    at = file.create_group("matrix")
    at["barcodes"] = np.array([f"BC{k}-1" for k in range(SPOTS)], "S")
    at["features/name"] = np.array([f"G{k}" for k in range(GENES)], "S")
    counts = np.random.default_rng(0).poisson(5.0, (SPOTS, GENES)) + 1
    at["data"] = counts.ravel()
    at["indices"] = np.tile(np.arange(GENES), SPOTS)
    at["indptr"] = np.arange(SPOTS + 1) * GENES
    at["shape"] = [GENES, SPOTS]
    return file


def replaced(file: h5py.File, path: str, **kwargs: Any) -> h5py.Dataset:
    """Put another array in place of one."""
    said = dict(file[path].attrs)
    del file[path]
    made = file.create_dataset(path, **kwargs)
    made.attrs.update(said)
    return made


def same_text(file: h5py.File, path: str, count: int, length: int) -> None:
    """Write texts that all lie at one place: a pointer each, of one long text."""
    kind = h5py.string_dtype()
    found = replaced(
        file, path, shape=(count,), dtype=kind, chunks=(count,), compression="gzip"
    )
    one = file.create_dataset("one", shape=(1,), dtype=kind, chunks=(1,))
    one[0] = "x" * length
    file.flush()
    _, pointer = one.id.read_direct_chunk((0,))
    found.id.write_direct_chunk((0,), zlib.compress(bytes(pointer) * count))


def bomb(file: h5py.File, path: str, shape: tuple[int, int], *, unpacked: int) -> None:
    """Write one chunk that unpacks to more than its shape says."""
    found = replaced(
        file, path, shape=shape, dtype="f4", chunks=shape, compression="gzip"
    )
    found.id.write_direct_chunk((0, 0), packed_zeros(unpacked >> 20))


def packed_zeros(count: int) -> bytes:
    """Return mebibytes of zeros as zlib packs them, of which it packs but two."""
    packer, zeros = zlib.compressobj(9), bytes(2**20)
    first, other = (
        packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    end = packer.flush()[:-4]
    checksum = (count * 2**20 % 65521 << 16) + 1
    return first + other * (count - 1) + end + checksum.to_bytes(4, "big")


def read_capped(
    paths: Sequence[Path], *, memory_mb: int = MEMORY_MB, timeout: float = 120
) -> list[dict[str, Any]]:
    """Read files one after another in one process with capped memory.

    Returns
    -------
    list of dict
        For each: ``kind`` (of the error, or "read"), ``said``, ``genes``, ``spots``.
    """
    job = {"paths": [str(p) for p in paths], "memory_mb": memory_mb}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.hostile_spots"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(paths), (
        f"it ended with {done.returncode} in {paths[len(results)]}: "
        f"{done.stderr[-2000:]}"
    )
    return results


def main() -> None:
    """Read what stdin names; a line of JSON for each."""
    import pandas  # noqa: F401

    from napari_histodistill.distill.spots.h5ad_files import read_h5ad
    from napari_histodistill.distill.spots.spot_files import read_spots
    from napari_histodistill.distill.spots.spot_tables import check_spots

    job = json.load(sys.stdin)
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + job["memory_mb"] * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in job["paths"]:
        result: dict[str, Any] = {"kind": "read", "said": ""}
        try:
            # Here, and not in the process of its own that read_spots starts: the limits
            # themselves are tested.
            is_h5ad = path.endswith(".h5ad")
            table = check_spots(read_h5ad(Path(path))) if is_h5ad else read_spots(path)
            result |= {"spots": len(table.positions), "genes": len(table.genes)}
        except Exception as error:  # noqa: BLE001
            result |= {"kind": type(error).__name__, "said": str(error)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
