"""Two LLVMs in one process crash it; the guard lets in only one."""

from __future__ import annotations

import importlib
import sys

import pytest

from napari_histodistill.students import llvm_clash
from napari_histodistill.students.llvm_clash import keep_triton_out, mesa_uses_llvm

WITH_MESA = (
    "7f1 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libLLVM-15.so.1\n"
    "7f2 r-xp 0 08:01 2 /usr/lib/x86_64-linux-gnu/dri/swrast_dri.so\n"
)
WITHOUT = "7f2 r-xp 0 08:01 2 /usr/lib/x86_64-linux-gnu/libGLX_nvidia.so\n"


@pytest.fixture
def no_triton_yet(monkeypatch):
    """Forget triton for the duration of a test, even if it was imported before."""
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "triton")


@pytest.mark.parametrize(("maps", "expected"), [(WITH_MESA, True), (WITHOUT, False)])
def test_mesas_llvm_is_seen_in_what_is_loaded(tmp_path, maps, expected):
    path = tmp_path / "maps"
    path.write_text(maps, encoding="utf-8")
    assert mesa_uses_llvm(path) is expected


def test_odd_file_names_in_memory_do_no_harm(tmp_path):
    path = tmp_path / "maps"
    path.write_bytes(b"\xff\xfe/data/not utf-8\n" + WITH_MESA.encode())
    assert mesa_uses_llvm(path) is True


def test_elsewhere_than_on_linux_nothing_is_seen(tmp_path):
    assert mesa_uses_llvm(tmp_path / "none") is False


@pytest.mark.usefixtures("no_triton_yet")
def test_triton_is_refused_where_mesa_has_loaded_its_llvm(monkeypatch):
    monkeypatch.setattr(llvm_clash, "mesa_uses_llvm", lambda: True)
    assert keep_triton_out() is True
    with pytest.raises(ImportError):
        importlib.import_module("triton")
    assert keep_triton_out() is True, "asked again"


@pytest.mark.usefixtures("no_triton_yet")
def test_triton_is_left_alone_everywhere_else(monkeypatch):
    monkeypatch.setattr(llvm_clash, "mesa_uses_llvm", lambda: False)
    assert keep_triton_out() is False
    assert "triton" not in sys.modules


def test_a_triton_that_is_already_there_stays(monkeypatch):
    there = type(sys)("triton")
    monkeypatch.setitem(sys.modules, "triton", there)
    monkeypatch.setattr(llvm_clash, "mesa_uses_llvm", lambda: True)
    assert keep_triton_out() is False
    assert sys.modules["triton"] is there
