"""The loop: spoil an input, feed it, write down what is not as it should be.

Runs in a process of its own with capped memory, because a decoder written in C may take
the process with it; what was being tried lies in a file, so nothing is lost. With
atheris installed, inputs that reach new lines of Python are kept and spoilt further.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import resource
import sys
import time
import warnings
from pathlib import Path

LIMIT_BYTES = 6 * 2**30
REPORT_EVERY = 50


def main() -> None:
    """Fuzz one target for some CPU seconds; see ``campaign.py``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("folder", type=Path, help="findings and figures go here")
    parser.add_argument("--cpu-seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--extra", type=Path, nargs="*", default=())
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    warnings.simplefilter("ignore")
    logging.disable()
    if options.atheris:
        import atheris

        with atheris.instrument_imports(
            include=["napari_histodistill", "tifffile"], enable_loader_override=False
        ):
            _load()
    loop = Loop(options)
    loop.run_atheris() if options.atheris else loop.run()


def _load() -> None:
    import tifffile  # noqa: F401

    import napari_histodistill.students.bundle  # noqa: F401


class Loop:
    """One fuzzing process.

    Parameters
    ----------
    options : argparse.Namespace
        As :func:`main` reads them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from tests.faults.targets import TARGETS, read_seeds

        self.target = TARGETS[options.target]
        self.folder: Path = options.folder
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.seeds = read_seeds(self.target, options.extra)
        self.rng = random.Random(options.seed)
        self.seed, self.limit_s = options.seed, options.cpu_seconds
        self.tried, self.refused, self.findings = 0, 0, 0
        self.known: set[str] = set()
        self.began = time.monotonic()

    def run(self) -> None:
        """Spoil seeds until the time is up."""
        while self.used_s() < self.limit_s:
            content = self.target.mutate(
                self.rng, self.rng.choice(self.seeds), self.seeds
            )
            self.feed(content)
        self.report()

    def run_atheris(self) -> None:
        """Let libFuzzer keep what reaches new lines; the spoiling stays ours."""
        import atheris

        corpus = self.folder / "corpus"
        corpus.mkdir(exist_ok=True)
        for k, content in enumerate(self.seeds):
            (corpus / f"seed{k}").write_bytes(content)

        def spoil(content: bytes, size: int, seed: int) -> bytes:
            rng = random.Random(seed)
            if rng.random() < 0.1:
                content = rng.choice(self.seeds)
            return self.target.mutate(rng, content, self.seeds)[:size]

        def feed(content: bytes) -> None:
            self.feed(content)
            if self.used_s() > self.limit_s:
                self.report()
                os._exit(0)

        largest = max(map(len, self.seeds)) + 65536
        arguments = [
            sys.argv[0], str(corpus), f"-max_len={largest}", f"-seed={self.seed + 1}",
            "-timeout=60", "-rss_limit_mb=0", "-len_control=0", "-print_pcs=0",
            "-detect_leaks=0", f"-artifact_prefix={self.folder}/",
        ]  # fmt: skip
        atheris.Setup(arguments, feed, custom_mutator=spoil)
        atheris.Fuzz()

    def feed(self, content: bytes) -> None:
        """Try one input and write down a finding."""
        from tests.faults.targets import suffix_of, try_input

        suffix = suffix_of(self.target, self.tried)
        outcome = try_input(self.target, content, self.scratch, suffix)
        self.tried += 1
        self.refused += outcome.kind == "refused"
        if outcome.is_finding:
            self.findings += 1
            short = "".join(c for c in outcome.detail if not c.isdigit())
            name = f"{outcome.kind} {short[:60]}"
            if name not in self.known:
                self.known.add(name)
                stem = f"{self.seed}-{len(self.known)}-{outcome.kind}{suffix}"
                (self.folder / stem.replace(" ", "-")).write_bytes(content)
                entry = {"kind": outcome.kind, "detail": outcome.detail, "file": stem}
                with (self.folder / "findings.jsonl").open("a") as file:
                    file.write(json.dumps(entry) + "\n")
        if self.tried % REPORT_EVERY == 0:
            self.report()

    def used_s(self) -> float:
        """CPU seconds of this process, and of those that it waited for, so far."""
        own, forked = map(
            resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return own.ru_utime + own.ru_stime + forked.ru_utime + forked.ru_stime

    def report(self) -> None:
        """Write the figures of this process."""
        figures = {
            "target": self.target.name,
            "seed": self.seed,
            "executions": self.tried,
            "refused": self.refused,
            "findings": self.findings,
            "distinct": len(self.known),
            "cpu_s": round(self.used_s(), 1),
            "wall_s": round(time.monotonic() - self.began, 1),
        }
        beside = self.folder / f"figures-{self.seed}.json"
        with contextlib.suppress(OSError):
            # Whole or not at all: the process may be killed at any moment.
            aside = beside.with_suffix(".part")
            aside.write_text(json.dumps(figures))
            aside.replace(beside)


if __name__ == "__main__":
    main()
