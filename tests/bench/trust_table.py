"""The tables of `trust.py`, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def as_markdown(result: dict[str, Any], chosen: str) -> str:
    """Return the tables."""
    kinds = result["kinds"]
    organs = [n for n, kind in kinds.items() if kind == "organ"]
    rest = [n for n, kind in kinds.items() if kind not in ("organ", "own")]
    out = []
    for title, names in (("organs", organs), ("other", rest)):
        rows = [
            [m, *(f"{areas[n]:.3f}" for n in names)]
            for m, areas in result["auc"].items()
        ]
        for method, spread in result["auc_95"].items():
            low = [f"{spread[n][0]:.3f}-{spread[n][1]:.3f}" for n in names]
            rows.append([f"95 %: {method}", *low])
        out.append(_table(f"Area under the curve: {title}", ["distance", *names], rows))
    rows = [
        [m, *(f"{z[n]:.1f}" for n in (*organs, *rest))]
        for m, z in result["beyond_tau"].items()
    ]
    head = ["distance", *organs, *rest]
    out.append(_table("Median beyond the cases' middle, τ", head, rows))
    for method, sizes in result["verdicts"].items():
        names = list(next(iter(sizes.values())))
        rows = [
            [name, kinds.get(name, "own")]
            + [
                f"{100 * by[name][0]:.0f} / {100 * by[name][1]:.0f}"
                for by in sizes.values()
            ]
            for name in names
        ]
        head = ["mosaics of", "kind", *(f"{n} squares" for n in sizes)]
        out.append(_table(f"Called unlike / like, %: {method}", head, rows))
    head = list(next(iter(result["few"].values())))
    rows = [
        [n, *(f"{100 * a:.0f} / {100 * b:.0f}" for a, b in by.values())]
        for n, by in result["few"].items()
    ]
    title = f"Few cases trained on, unlike / like, %, 50 squares: {chosen}"
    out.append(_table(title, ["trained on", *head], rows))
    rows = [
        [
            name,
            kinds.get(name, "own"),
            *(f"{100 * said[c]:.0f}" for c in ("unlike", "like", "squares unlike")),
            ", ".join(f"{cause} {100 * v:.0f}" for cause, v in said["odd"].items()),
        ]
        for name, said in result["program"].items()
    ]
    head = ["mosaics of", "kind", "unlike", "like", "squares unlike", "what is odd"]
    out.append(_table("What the program says of 50 squares, %", head, rows))
    causes = list(next(iter(result["odd"].values())))
    rows = [[n, *(f"{odd[c]:.3f}" for c in causes)] for n, odd in result["odd"].items()]
    out.append(_table("What is odd, shares of a whole set", ["set", *causes], rows))
    columns = list(result["tokens"]["own"])
    rows = [[n, *(f"{v[c]:.3f}" for c in columns)] for n, v in result["tokens"].items()]
    out.append(_table("Tokens, by tiles' statistics", ["set", *columns], rows))
    columns = list(next(iter(result["spread"].values())))
    rows = [[n, *(f"{v[c]:.3f}" for c in columns)] for n, v in result["spread"].items()]
    title = "Area under the curve where a quarter of the squares is judged"
    out.append(_table(title, ["set", *columns], rows))
    out += [f"{k}: {v}\n" for k, v in result.items() if k.startswith("seconds")]
    return "\n".join(out)


def _table(title: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [f"**{title}**\n", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"
