"""``python -m napari_histodistill.cli``."""

import sys

from napari_histodistill.cli import main

if __name__ == "__main__":
    sys.exit(main())
