"""Addresses on the web: what may be shown of them, and where a server may lead.

An address may hold a password or a signature that opens what it names. So one with a
user is refused, and of the others nothing after ``?`` is ever shown or stored.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import os

PORTS = {"http": 80, "https": 443}
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.IGNORECASE | re.DOTALL)
_SAFE_IN_PATH, _SAFE_IN_QUERY = "/%:@!$&'()*+,;=~", "/%:@!$&'()*+,;=~?[]{}|^`\\\"<>"
_HIDDEN_V4 = (
    (ipaddress.ip_network("64:ff9b::/96"), 0),
    (ipaddress.ip_network("2002::/16"), 80),
)
"""IPv6 addresses that stand for one of IPv4, and where in their bits it is."""


@dataclass(frozen=True, slots=True)
class WebAddress:
    """An http(s) address without a user.

    Attributes
    ----------
    scheme : str
        ``"http"`` or ``"https"``.
    host : str
        In lower case; of IPv6 without brackets.
    port : int
        Stated, or the scheme's own.
    path : str
        As it is sent, without a slash at its end.
    query : str
        As it is sent; may open what the address names, so it is in no ``repr``.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> WebAddress:
        """Read an address.

        Raises
        ------
        InputError
            If it has a user or a password, or is no http(s) address.
        """
        try:
            parts = urlsplit(url if "?" in url else f"{url}?{signature_of(url)}")
            host, port = (parts.hostname or "").rstrip("."), parts.port
            host = host if host.isascii() else host.encode("idna").decode("ascii")
        except (ValueError, UnicodeError) as error:
            msg = f"{shown(url)}: this is not an address that can be opened."
            raise InputError(msg) from error
        if "@" in parts.netloc:
            msg = (
                f"{shown(url)}: an address with a user or a password is not opened, "
                "because addresses end up in lists and logs; use one that is signed, "
                "or download the data."
            )
            raise InputError(msg)
        if parts.scheme not in PORTS or not host or set(host) & set("\\ %"):
            msg = f"{shown(url)}: only http and https addresses are read."
            raise InputError(msg)
        return cls(
            parts.scheme,
            host,
            port or PORTS[parts.scheme],
            quote(parts.path, safe=_SAFE_IN_PATH).rstrip("/"),
            quote(parts.query, safe=_SAFE_IN_QUERY),
        )

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def server(self) -> str:
        """Host, and port where it is not the usual one; for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """The last part of the path, or the server; for messages."""
        return unquote(self.path.rpartition("/")[2]) or self.server

    @property
    def url(self) -> str:
        """All of it, to be sent; never to be shown or stored."""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.server}{self.path or '/'}{query}"

    def below(self, key: str) -> WebAddress:
        """Return the address of something inside; it is signed by the same query."""
        inside = quote(key, safe="/~")
        return WebAddress(
            self.scheme, self.host, self.port, f"{self.path}/{inside}", self.query
        )

    def led_to(self, location: str) -> WebAddress:
        """Return where a redirect leads; its query is the server's own.

        Raises
        ------
        InputError
            If that cannot be opened, or leads from https to http.
        """
        target = WebAddress.parse(urljoin(self.url, location))
        if self.scheme == "https" != target.scheme:
            msg = f"{self.server} redirects from https to http, which is not followed."
            raise InputError(msg)
        return target

    def is_beyond(self, target: WebAddress) -> bool:
        """Whether a redirect leads to another server, which then must be public.

        A server on the internet must not make this machine ask its own ports, or
        others inside a clinic's network, and neither must one inside.
        """
        upgraded = ("https", self.host, 443)
        usual = self.origin == ("http", self.host, 80)
        return target.origin != self.origin and not (
            usual and target.origin == upgraded
        )


def is_public(address: str) -> bool:
    """Return whether a numeric address is one of the internet.

    Parameters
    ----------
    address : str
        IPv4 or IPv6, as a resolver returns it.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped or next(
            (
                ipaddress.IPv4Address(int(ip) >> shift & 0xFFFFFFFF)
                for network, shift in _HIDDEN_V4
                if ip in network
            ),
            None,
        )
        if hidden is not None:
            return is_public(str(hidden))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def url_of(path: str | os.PathLike[str]) -> str | None:
    """Return the http(s) address in a path, or None; ``Path`` drops one slash of it."""
    text = str(path)
    found = _ADDRESS.fullmatch(text.replace("\\", "/"))
    if found is None or found[1].lower() not in PORTS:
        return None
    before, mark, query = found[2].partition("?")
    return f"{found[1].lower()}://{before.rstrip('/')}{mark}{query}"


_SIGNED: dict[str, str] = {}
"""What addresses of this process are signed with; it is never written anywhere."""


def put_aside(path: Path, query: str = "") -> Path:
    """Return an address without what it is signed with, which this process remembers.

    So that names, stores and summaries made from it hold nothing secret.

    Parameters
    ----------
    path : Path
        A path, which is returned as it is, or an address.
    query : str
        What it is signed with, from :func:`signature_of` in another process.

    Raises
    ------
    InputError
        If it is an address that cannot be opened.
    """
    url = url_of(path)
    if url is None:
        if _ADDRESS.fullmatch(str(path)) and not path.exists():
            WebAddress.parse(str(path))  # says what is wrong with it
        return path
    address = WebAddress.parse(url)
    place = shown(url)
    if address.query or query:
        _SIGNED[place] = address.query or query
    return Path(place)


def signature_of(path: str | os.PathLike[str]) -> str:
    """Return what an address was signed with when it was put aside; empty if nothing.

    Only for another process that is to open it.
    """
    url = url_of(path)
    return "" if url is None else _SIGNED.get(shown(url), "")


def shown(path: str | os.PathLike[str]) -> str:
    """Return what may be shown of a path or an address: no user and no query.

    Examples
    --------
    >>> from napari_histodistill.addresses import shown
    >>> shown("https://me:secret@host:8000/a.zarr?sig=secret")
    'https://host:8000/a.zarr'
    """
    text = str(path)
    found = _ADDRESS.fullmatch(text.replace("\\", "/"))
    if found is None:
        return text
    place = re.split(r"[?#]", found[2], maxsplit=1)[0]
    server, slash, rest = place.partition("/")
    server = server.rpartition("@")[2]
    if not re.fullmatch(r"[^:]*(:\d*)?|\[[0-9a-fA-F:.]*\](:\d*)?", server):
        return f"{found[1].lower()}://…"  # a password may hold any character
    return f"{found[1].lower()}://{server}{slash}{rest}".rstrip("/")
