"""The process of a training that a window starts, with FOLDER DEVICE THREADS.

It takes the run's lock first and imports the rest afterwards, which takes seconds: from
its first moment on, every window sees that the run is being worked on, and what is
asked of it meanwhile counts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from napari_histodistill.distill.runs.folder import LOCK
from napari_histodistill.errors import HistodistillError
from napari_histodistill.lock import WriterLock


def main() -> None:
    """Train the run that the arguments name; its folder says how it goes."""
    folder, device, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    try:
        lock = WriterLock(folder / LOCK, wait_s=1)

        from napari_histodistill.distill.runs.run import train

        for _report in train(folder, device=device, threads=threads, lock=lock):
            pass
    except HistodistillError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
