"""Backends that run an encoder: torch and OpenVINO.

All code that imports timm is in this folder (or in ``distill/training/networks.py``,
which does the same), so this is the place to keep triton out of a process that it would
crash: a student may be loaded from napari's console as well as by the panel.
"""

from napari_histodistill.students.llvm_clash import keep_triton_out

keep_triton_out()
