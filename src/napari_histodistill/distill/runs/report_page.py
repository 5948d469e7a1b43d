"""One page on a training run: plain HTML, images inside, nothing to fetch.

A pure function of plain values. Layer names, titles and settings come from people and
files: every one of them is escaped.
"""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;
color:#222;background:#fff}
h1{font-size:1.5em;margin-bottom:.1em;overflow-wrap:anywhere}
h2{font-size:1.1em;margin:1.8em 0 .4em;border-bottom:1px solid #ccc}
table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:2px 14px
2px 0;overflow-wrap:anywhere}th{font-weight:600;color:#555;white-space:nowrap}
pre{background:#f4f4f4;padding:.7em;white-space:pre-wrap;overflow-wrap:anywhere}
figure{display:inline-block;margin:0 10px 12px 0;vertical-align:top}
figure img{display:block;margin-bottom:3px;width:120px;height:120px;
image-rendering:pixelated}
figcaption{font-size:12px;color:#555;max-width:120px}img.wide{max-width:100%}
.warning{border-left:5px solid #d55e00;padding:.3em .8em;background:#fdf1ea}
.quiet{color:#666}td.number{text-align:right}
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing runs and nothing is fetched, should an escape ever be forgotten."""

Fact = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ReportTwin:
    """One pair as images on the page.

    Attributes
    ----------
    pictures : tuple of bytes
        PNG: the sparse tile, then every partner that is an image.
    caption : str
        Part and region or case that the pair is from.
    """

    pictures: tuple[bytes, ...]
    caption: str


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """The facts on the page.

    Attributes
    ----------
    title, summary : str
        Name of the training, and how it ended, in a sentence.
    warnings : tuple of str
        Facts that a reader must know before any figure.
    measured, course, data, split : tuple of (str, str)
        Rows: figures on held-out pairs; duration and place; training data; how they
        were split.
    settings : tuple of (str, tuple of (str, str))
        Rows of every table of the recipe.
    curves : bytes
        PNG; empty where there are none.
    twins : tuple of ReportTwin
        A few pairs.
    where, command, recipe : str
        Command and recipe that repeat the training, and where it is run.
    """

    title: str
    summary: str
    warnings: tuple[str, ...] = ()
    measured: tuple[Fact, ...] = ()
    course: tuple[Fact, ...] = ()
    data: tuple[Fact, ...] = ()
    split: tuple[Fact, ...] = ()
    settings: tuple[tuple[str, tuple[Fact, ...]], ...] = ()
    curves: bytes = b""
    twins: tuple[ReportTwin, ...] = ()
    where: str = ""
    command: str = ""
    recipe: str = ""


def report_html(facts: ReportFacts) -> str:
    """Return the page."""
    title = html.escape(facts.title)
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{html.escape(facts.summary)}</p>",
        *(f'<p class="warning">▲ {html.escape(w)}</p>' for w in facts.warnings),
        _part("Measured on held-out pairs", _table(facts.measured)),
        _part("Curves", _picture(facts.curves, "Curves of the training", "wide")),
        _part("How it went", _table(facts.course)),
        _part("What it learned from", _table(facts.data)),
        _part("How the pairs were split", _table(facts.split)),
        _part("Some of the pairs", "".join(map(_twin, facts.twins))),
        _part(
            "Settings",
            "".join(_settings(name, rows) for name, rows in facts.settings),
        ),
        _part("Repeat this training", _command(facts.where, facts.command)),
        _part("Recipe", f"<details><summary>All of it, as TOML</summary>"
              f"{_code(facts.recipe)}</details>" if facts.recipe else ""),
        '<p class="quiet">Research use only: not a medical device, not for diagnosis. '
        "Figures hold for tissue like this one, cut, stained and scanned like this "
        "one.</p>",
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _part(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{body}" if body else ""


def _table(rows: Iterable[Fact]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>\n"
        for key, value in rows
    )
    return f"<table>{cells}</table>" if cells else ""


def _settings(name: str, rows: Sequence[Fact]) -> str:
    body = _table(rows)
    return f"<details><summary>{html.escape(name)}</summary>{body}</details>\n" * bool(
        body
    )


def _twin(twin: ReportTwin) -> str:
    pictures = "".join(_picture(p, "One of the pairs", "") for p in twin.pictures)
    caption = html.escape(twin.caption)
    return f"<figure>{pictures}<figcaption>{caption}</figcaption></figure>\n"


def _picture(png: bytes, words: str, style: str) -> str:
    if not png:
        return ""
    inside = base64.b64encode(png).decode("ascii")
    return (
        f'<img class="{style}" alt="{html.escape(words)}" '
        f'src="data:image/png;base64,{inside}">'
    )


def _command(where: str, command: str) -> str:
    said = f"<p>{html.escape(where)}</p>\n" if where and command else ""
    return said + _code(command)


def _code(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>" if text else ""
