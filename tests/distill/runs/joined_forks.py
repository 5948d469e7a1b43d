"""``histodistill`` with joined processes that are forked: each need not load torch."""

from __future__ import annotations

import sys
from typing import Any

import lightning_fabric
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from napari_histodistill import cli


def fork_by(method: Any) -> Any:
    """Return what stands in for ``Fabric``, and forks where that would spawn."""

    def fabric(*, strategy: str, **options: Any) -> Fabric:
        assert strategy == "ddp_spawn"
        return Fabric(strategy=DDPStrategy(start_method=method), **options)

    return fabric


def main() -> None:
    """Run the command line in a process that was forked itself, without threads."""
    lightning_fabric.Fabric = fork_by("fork")
    sys.exit(cli.main(sys.argv[1:]))
