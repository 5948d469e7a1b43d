"""The long runs behind RELIABILITY.md, each by one command.

``python -m tests.faults.campaign kills --times 50``
``python -m tests.faults.campaign fuzz --minutes 30``
``python -m tests.faults.campaign cycles --slides 1000 --runs 100``
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path


def main() -> None:
    """Run one campaign and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder",
        type=Path,
        help="default: a temporary one, kept if there are findings",
    )
    commands = parser.add_subparsers(dest="campaign", required=True)
    kills = commands.add_parser("kills")
    kills.add_argument("--times", type=int, default=50)
    kills.add_argument("--seed", type=int, default=0)
    kills.add_argument(
        "--forked", action="store_true", help="load torch once, not for every process"
    )
    fuzz = commands.add_parser("fuzz")
    fuzz.add_argument("--minutes", type=float, default=30, help="of CPU, in all")
    fuzz.add_argument("--seed", type=int, default=0)
    fuzz.add_argument("--atheris", action="store_true")
    fuzz.add_argument("--target", action="append", help="see targets.py")
    fuzz.add_argument("--extra", type=Path, nargs="*", default=(), help="more seeds")
    cycles = commands.add_parser("cycles")
    cycles.add_argument("--slides", type=int, default=1000)
    cycles.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    run = {"kills": _kills, "fuzz": _fuzz, "cycles": _cycles}[options.campaign]
    print(json.dumps(run(folder, options), indent=2, ensure_ascii=False))
    findings = list(folder.rglob("findings.jsonl"))
    if findings:
        print(f"What was found lies in {folder}.")
    elif not options.folder:
        shutil.rmtree(folder)


def _kills(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    from tests.faults.killing import COMMANDS, Killer
    from tests.faults.workplace import make_workplace, start
    from tests.forked import start_forked

    starter = start_forked if options.forked else start
    place = make_workplace(folder / "place")
    killer = Killer(place, folder, seed=options.seed, starter=starter)
    found, kills = [], 0
    while kills < options.times:
        command = COMMANDS[len(found) % len(COMMANDS)]
        # Every third victim is killed again while it resumes.
        times = min(2 if len(found) % 3 == 2 else 1, options.times - kills)
        found.append(killer.kill(command, times=times))
        kills += times
        print(json.dumps(asdict(found[-1])), flush=True)
    return {
        "kills": kills,
        "resumed": len(found),
        "equal": sum(k.equal for k in found),
        "readable": sum(k.readable for k in found),
        "leftovers": sum(k.leftovers for k in found),
        "moments": dict(Counter(m for k in found for m in k.moments)),
        "by command": {
            name: sum(len(k.seconds) for k in found if k.command == name)
            for name in COMMANDS
        },
        "problems": [k.problem for k in found if k.problem],
    }


def _fuzz(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    from tests.faults.watching import fuzz

    # Two thirds of the time for what is read most and decoded in C.
    shares = {
        "tiff": 0.67, "spec": 0.15, "recipe": 0.1, "manifest": 0.08, "dicom": 0.3,
        "h5ad": 0.2, "run": 0.2, "store": 0.1, "pairs": 0.1, "zarr": 0.1, "bundle": 0.1,
    }  # fmt: skip
    wanted = {k: v for k, v in shares.items() if k in (options.target or shares)}
    whole = sum(wanted.values())
    results = {}
    for name, share in wanted.items():
        figures = fuzz(
            name,
            folder / name,
            cpu_seconds=60 * options.minutes * share / whole,
            seed=options.seed,
            atheris=options.atheris,
            extra=tuple(options.extra) if name == "tiff" else (),
        )
        results[name] = asdict(figures)
    return results


def _cycles(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    from tests.faults.cycling import embed_again_and_again, open_and_close

    return {
        "slides": asdict(open_and_close(folder, options.slides)),
        "runs": asdict(embed_again_and_again(folder, options.runs)),
    }


if __name__ == "__main__":
    main()
