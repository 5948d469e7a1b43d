"""Checkpoints: whole or not at all, and every damage is named."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from napari_histodistill.distill.runs.checkpoints import (
    Mark,
    read_checkpoint,
    write_checkpoint,
)
from napari_histodistill.errors import ComputeError, InputError

MARK = Mark(step=7, recipe="ab", pairs="cd", best_step=5, best_score=0.25)


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3, 2), value), "count": torch.tensor(4)}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "checkpoints" / "last.safetensors"
    write_checkpoint(path, tensors(1.5), MARK)
    found, mark = read_checkpoint(path)
    assert mark == MARK
    assert found.keys() == {"weight", "count"}
    assert torch.equal(found["weight"], tensors(1.5)["weight"])
    assert found["count"].dtype == torch.int64
    assert [f.name for f in path.parent.iterdir()] == ["last.safetensors"]


def test_transposed_tensors_come_back_as_they_were(tmp_path):
    path = tmp_path / "last.safetensors"
    matrix = torch.arange(6.0).reshape(2, 3).T
    write_checkpoint(path, {"m": matrix}, MARK)
    assert torch.equal(read_checkpoint(path)[0]["m"], matrix)


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch, where):
    path = tmp_path / "last.safetensors"
    write_checkpoint(path, tensors(1.0), MARK)
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(ComputeError, match="free space and continue the run"):
        write_checkpoint(path, tensors(2.0), MARK)
    assert path.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("keep", [0, 9, 200])
def test_a_cut_file_is_named(tmp_path, keep):
    path = tmp_path / "last.safetensors"
    write_checkpoint(path, tensors(1.0), MARK)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"last\.safetensors cannot be read"):
        read_checkpoint(path)


def test_other_tensors_are_no_checkpoint(tmp_path):
    path = tmp_path / "last.safetensors"
    save_file(tensors(1.0), path)
    with pytest.raises(InputError, match="is damaged"):
        read_checkpoint(path)
