"""Whether a napari window can open here, and what to do if not."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass

from napari_histodistill.errors import InputError

# Libraries that PyQt6's wheel loads but does not contain → their Debian packages.
DEBIAN = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-shape.so.0": "libxcb-shape0",
}
BINDINGS = ("PyQt6", "PySide6", "PyQt5")


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayState:
    """All that a window needs, as it is on this machine.

    Attributes
    ----------
    napari : bool
        Whether napari is installed.
    binding : str
        The Qt binding that is installed; empty for none.
    screen : str
        The display a window would open on; empty for none.
    missing_packages : tuple of str
        Debian packages whose libraries cannot be loaded.
    offscreen : bool
        Whether Qt is set to draw without a screen, where napari has no OpenGL.
    """

    napari: bool
    binding: str
    screen: str
    missing_packages: tuple[str, ...]
    offscreen: bool

    @property
    def problem(self) -> str:
        """One sentence with the way out; empty where a window can open."""
        if not self.napari:
            return (
                "napari is not installed: run `pip install 'napari-histodistill[all]'`."
            )
        if not self.binding:
            return (
                "a Qt binding is not installed: run `pip install "
                "'napari-histodistill[qt]'` (PyQt6, GPL-3.0) or "
                "`'napari-histodistill[pyside6]'` (LGPL-3.0)."
            )
        if self.missing_packages:
            return f"Qt lacks system libraries: run `{self.apt_line}`."
        if self.offscreen:
            return (
                "QT_QPA_PLATFORM is set to a platform without OpenGL, where napari "
                "cannot draw: unset it (xvfb-run gives a virtual screen)."
            )
        if not self.screen:
            how = "" if shutil.which("xvfb-run") else " (apt-get install xvfb xauth)"
            return (
                "there is no screen (DISPLAY and WAYLAND_DISPLAY are unset): run it "
                f"on a desktop, or on a virtual screen with `xvfb-run -a …`{how}."
            )
        return ""

    @property
    def apt_line(self) -> str:
        """The line that installs missing libraries on Debian and Ubuntu, or ""."""
        if not self.missing_packages:
            return ""
        packages = " ".join(self.missing_packages)
        return f"apt-get install -y --no-install-recommends {packages}"


def display_state() -> DisplayState:
    """Return what is installed, without starting Qt."""
    linux = sys.platform.startswith("linux")
    screen = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY") or ""
    wanted = os.environ.get("QT_QPA_PLATFORM", "")
    missing = (package for lib, package in DEBIAN.items() if not _loads(lib))
    return DisplayState(
        napari=importlib.util.find_spec("napari") is not None,
        binding=next((b for b in BINDINGS if importlib.util.find_spec(b)), ""),
        screen=screen if linux else "the desktop",
        missing_packages=tuple(missing) if linux else (),
        offscreen=wanted.split(":")[0] in {"offscreen", "minimal"},
    )


def require_display() -> None:
    """Refuse where no window can open.

    Raises
    ------
    InputError
        With the line to run.
    """
    problem = display_state().problem
    if problem:
        msg = f"The window cannot open: {problem}"
        raise InputError(msg)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
