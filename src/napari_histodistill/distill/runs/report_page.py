"""One page on a training run: plain HTML, images inside, nothing to fetch.

A pure function of plain values. Layer names, titles and settings come from people and
files: every one of them is escaped.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.distill.pages import Fact as Fact
from napari_histodistill.distill.pages import html_page
from napari_histodistill.distill.pages import page_part as _part
from napari_histodistill.distill.pages import page_picture as _picture
from napari_histodistill.distill.pages import page_table as _table

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    measured, alone, course, data, split : tuple of (str, str)
        Rows: figures on held-out pairs; the same without the partner; duration and
        place; training data; how they were split.
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
    alone: tuple[Fact, ...] = ()
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
    parts = [
        f"<h1>{html.escape(facts.title)}</h1>",
        f"<p>{html.escape(facts.summary)}</p>",
        *(f'<p class="warning">▲ {html.escape(w)}</p>' for w in facts.warnings),
        _part("Measured on held-out pairs", _table(facts.measured)),
        _part("Without the partner", _table(facts.alone)),
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
    return html_page(facts.title, parts)


def _settings(name: str, rows: Sequence[Fact]) -> str:
    body = _table(rows)
    return f"<details><summary>{html.escape(name)}</summary>{body}</details>\n" * bool(
        body
    )


def _twin(twin: ReportTwin) -> str:
    pictures = "".join(_picture(p, "One of the pairs", "") for p in twin.pictures)
    caption = html.escape(twin.caption)
    return f"<figure>{pictures}<figcaption>{caption}</figcaption></figure>\n"


def _command(where: str, command: str) -> str:
    said = f"<p>{html.escape(where)}</p>\n" if where and command else ""
    return said + _code(command)


def _code(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>" if text else ""
