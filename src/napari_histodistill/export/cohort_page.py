"""One page on several classified slides: plain HTML, figures inside, nothing to fetch.

Names of slides and classes come from people and files: every one of them is escaped.
"""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

from napari_histodistill.export.cohort_table import SlideSummary, percents, plain
from napari_histodistill.export.figure import VERDICT_COLORS
from napari_histodistill.export.safe_writing import write_file
from napari_histodistill.students.trust import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_histodistill.maps.classes import ClassArea

_MARK = '<meta name="generator" content="napari-histodistill classify">'
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing runs and nothing is fetched, should an escape ever be forgotten."""

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;
color:#222;background:#fff}
h1{font-size:1.5em;margin-bottom:.1em}
h2{font-size:1.1em;margin:2em 0 .4em;border-bottom:1px solid #ccc;
overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse}
td,th{text-align:left;vertical-align:top;padding:4px 14px 4px 0;
border-bottom:1px solid #e4e4e4}th{color:#555}
td.name{overflow-wrap:anywhere;min-width:9em}td.why{min-width:16em;font-size:13px}
td.number,th.number{text-align:right;white-space:nowrap}small{color:#555}
.verdict{display:inline-block;color:#fff;font-weight:600;padding:1px 9px;
border-radius:3px;white-space:nowrap}
img{max-width:100%;height:auto;border:1px solid #ddd}.quiet{color:#555}
"""

_SIGNS = {
    Verdict.LIKE: ("✓", "LIKE"),
    Verdict.UNLIKE: ("▲", "UNLIKE"),
    Verdict.TOO_LITTLE: ("?", "TOO LITTLE"),
}
_FAILED = ("✕", "FAILED", "#9b1c1c")


def is_ours(head: str) -> bool:
    """Return whether a file that begins so is such a page."""
    return _MARK in head


def write_cohort_page(
    slides: Sequence[SlideSummary],
    path: Path,
    *,
    student: str,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page; see :func:`cohort_html`.

    Raises
    ------
    InputError
        If a file that is not an earlier page is there, or it cannot be written.
    """
    return write_file(path, cohort_html(slides, student=student, notes=notes), is_ours)


def cohort_html(
    slides: Sequence[SlideSummary], *, student: str, notes: Sequence[str] = ()
) -> str:
    """Return the page.

    Parameters
    ----------
    slides : sequence of SlideSummary
        In the order of the page.
    student : str
        The student's name.
    notes : sequence of str
        Sentences on the student and the settings, above the table.
    """
    title = f"{len(slides)} slides, classified by {_shown(student)}"
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{_counted(slides)}</p>",
        *(f'<p class="quiet">{_shown(note)}</p>' for note in notes),
        _table(slides),
        *(_section(slide) for slide in slides if slide.figure),
        '<p class="quiet">Research use only: not a medical device, not for diagnosis. '
        "<em>Like</em> does not say that a class is right.</p>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{_MARK}'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _shown(text: str) -> str:
    return html.escape(plain(text))


def _badge(slide: SlideSummary) -> str:
    if slide.trust is None:
        sign, word, color = _FAILED
    else:
        verdict = slide.trust.verdict
        (sign, word), color = _SIGNS[verdict], VERDICT_COLORS[verdict]
    return f'<span class="verdict" style="background:{color}">{sign} {word}</span>'


def _counted(slides: Sequence[SlideSummary]) -> str:
    verdicts = [s.trust.verdict for s in slides if s.trust is not None]
    counts = [
        *((_SIGNS[verdict], verdicts.count(verdict)) for verdict in Verdict),
        (_FAILED[:2], len(slides) - len(verdicts)),
    ]
    return " · ".join(f"{sign} {n} {word}" for (sign, word), n in counts if n)


def _table(slides: Sequence[SlideSummary]) -> str:
    classes = next(([a.name for a in s.areas] for s in slides if s.areas), [])
    numbers = ("judged", "unlike", "µm/px", "squares", *classes, "seconds")
    head = "<th>slide</th><th>verdict</th><th>why</th>" + "".join(
        f'<th class="number">{_shown(name)}</th>' for name in numbers
    )
    rows = "\n".join(f"<tr>{_row(s, len(numbers))}</tr>" for s in slides)
    return f'<div class="wide"><table><tr>{head}</tr>\n{rows}\n</table></div>'


def _row(slide: SlideSummary, numbers: int) -> str:
    first = f'<td class="name"><bdi>{_shown(slide.name)}</bdi></td>'
    first += f"<td>{_badge(slide)}</td>"
    trust = slide.trust
    if trust is None:
        why = _shown(slide.error)
        return f'{first}<td class="why" colspan="{numbers + 1}">{why}</td>'
    share = "–" if trust.unlike_share is None else f"{trust.unlike_share:.0%}"
    mpp = "–" if slide.um_per_px is None else f"{slide.um_per_px:.4g}"
    source = f"<br><small>{_shown(slide.um_per_px_source)}</small>"
    cells = (
        f"{trust.squares:,}",
        share,
        mpp + source,
        f"{slide.cells:,}",
        *map(_area, slide.areas, percents(slide.areas)),
        f"{slide.seconds:.1f}",
    )
    why = "<br>".join(map(_shown, trust.reasons))
    return f'{first}<td class="why">{why}</td>' + "".join(
        f'<td class="number">{cell}</td>' for cell in cells
    )


def _area(area: ClassArea, percent: float) -> str:
    words = f"{area.mm2:.3f} mm²<br>{percent:.1f} %"
    if area.like_mm2 is not None:
        words += (
            f"<br><small>all {area.all_mm2:.3f}<br>like {area.like_mm2:.3f} mm²</small>"
        )
    return words


def _section(slide: SlideSummary) -> str:
    """Return a slide's figure, which bears its verdict; the table says why."""
    inside = base64.b64encode(slide.figure).decode("ascii")
    words = f"Class map of {_shown(slide.name)}"
    picture = f'<img alt="{words}" src="data:image/png;base64,{inside}">'
    return f"<h2><bdi>{_shown(slide.name)}</bdi></h2>\n{picture}"
