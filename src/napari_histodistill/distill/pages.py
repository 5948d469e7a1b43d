"""Pages that are made to be sent: plain HTML, images inside, nothing to fetch.

What comes from people and files (names, titles, settings) is escaped here.
"""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def html_page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page.

    Parameters
    ----------
    title : str
        Of the window; it is escaped.
    parts : iterable of str
        HTML; empty ones are left out.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def page_part(title: str, body: str) -> str:
    """Return a part with its heading; "" where the body (HTML) is empty."""
    return f"<h2>{html.escape(title)}</h2>\n{body}" if body else ""


def page_table(rows: Iterable[Fact]) -> str:
    """Return a table of names and values, which are escaped."""
    cells = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>\n"
        for key, value in rows
    )
    return f"<table>{cells}</table>" if cells else ""


def page_picture(png: bytes, words: str, style: str) -> str:
    """Return a picture inside the page, with words for those who cannot see it."""
    if not png:
        return ""
    inside = base64.b64encode(png).decode("ascii")
    return (
        f'<img class="{style}" alt="{html.escape(words)}" '
        f'src="data:image/png;base64,{inside}">'
    )
