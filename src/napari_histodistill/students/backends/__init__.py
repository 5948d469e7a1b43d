"""Encoders on torch (others may join).

What imports timm lies below this folder (or is ``distill/training/networks.py``, which
does the same), so this is the place to keep triton out of a process in which it would
crash: a student may be loaded from napari's console as well as by the panel.
"""

from napari_histodistill.students.llvm_clash import keep_triton_out

keep_triton_out()
