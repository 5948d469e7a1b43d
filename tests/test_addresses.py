"""What is shown of an address, and where a server may lead."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from napari_histodistill import addresses
from napari_histodistill.addresses import (
    WebAddress,
    is_public,
    put_aside,
    shown,
    signature_of,
)
from napari_histodistill.errors import HistodistillError, InputError, without_secrets

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def _forgetting(monkeypatch):
    monkeypatch.setattr(addresses, "_SIGNED", {})


HIDING = {
    f"https://me:{SECRET}@host:8000/a.zarr": "https://host:8000/a.zarr",
    f"https://{SECRET}@host/a.zarr": "https://host/a.zarr",
    f"https://host/a.zarr?sig={SECRET}": "https://host/a.zarr",
    f"https://host/a.zarr/?sig={SECRET}/": "https://host/a.zarr",
    f"https://host/a.zarr#{SECRET}": "https://host/a.zarr",
    f"https://me:a@{SECRET}@host/a": "https://host/a",
    f"https://me:a/{SECRET}@host/a": "https://…",
    f"https://me:a?{SECRET}@host/a": "https://…",
    f"s3://key:{SECRET}@bucket/a": "s3://bucket/a",
    "https://[::1]:8000/a": "https://[::1]:8000/a",
    "slides/a.svs?x#y@z": "slides/a.svs?x#y@z",
}


@pytest.mark.parametrize(("given", "words"), HIDING.items())
def test_what_is_shown_holds_no_secret(given, words):
    assert shown(given) == words
    # As a path it has one slash less after the scheme.
    assert shown(Path(given)) == str(words)


@pytest.mark.parametrize("given", [k for k in HIDING if SECRET in k])
def test_no_error_holds_a_secret(given):
    for form in ("{}", "{}: not there", "no ({!r}), and so on", "<{}>"):
        text = form.format(given)
        assert SECRET not in without_secrets(text), without_secrets(text)
        assert SECRET not in str(HistodistillError(text))
        assert SECRET not in repr(HistodistillError(text))


@pytest.mark.parametrize("filler", ["a.", "aa:/b:c", "aa:/", "word "])
def test_an_overlong_message_is_short_soon_and_without_secrets(filler):
    address = f"https://me:{SECRET}@host/a.zarr?{SECRET}"
    middle = filler * (200_000 // len(filler))
    began = time.process_time()
    text = str(HistodistillError(f"slide.zarr: {address} {middle} {address} is bad."))
    assert time.process_time() - began < 10
    assert SECRET not in text
    assert text.startswith("slide.zarr: ")
    assert text.endswith("https://host/a.zarr is bad.")
    assert len(text) < 1300


@pytest.mark.parametrize("before", [0, 100, 3990])
def test_a_secret_that_is_cut_in_two_is_not_shown(before):
    # Its end lies in the part that is left out, so that it is not seen to be one.
    text = "x" * before + " https://me:" + SECRET * 3000 + "@host is bad."
    assert SECRET not in str(HistodistillError(text))


def test_a_text_without_secrets_stays_as_it_is():
    text = "C:/a?b@c d@e: see https://host:8000/a.zarr: wrong, mail x@y"
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "given",
    [
        f"https://me:{SECRET}@host/a.zarr",
        f"https://{SECRET}@host/a.zarr",
        f"s3://key:{SECRET}@bucket/a",
        f"ftp://host/a?{SECRET}",
        f"https://me:a/{SECRET}@host/a",
        "https://host:port/a",
        "https:///a",
        "https://ho st/a",
    ],
)
def test_what_cannot_be_opened_is_refused_without_its_secret(given):
    with pytest.raises(InputError) as refused:
        put_aside(Path(given))
    assert SECRET not in str(refused.value)


def test_a_signature_is_remembered_and_not_shown():
    path = put_aside(Path(f"https://host/a b.zarr/?sig={SECRET}%2F+=&x=1"))
    assert path == Path("https://host/a b.zarr")
    assert signature_of(path) == f"sig={SECRET}%2F+=&x=1"
    address = WebAddress.parse(shown(path))
    inside = address.below("0/zarr.json")
    assert inside.url == f"https://host/a%20b.zarr/0/zarr.json?sig={SECRET}%2F+=&x=1"
    assert SECRET not in repr(address) + repr(inside) + address.name + address.server


@pytest.mark.parametrize(
    ("here", "there", "beyond"),
    [
        ("http://host/a", "/b", False),
        ("http://host/a", "https://host/a", False),
        ("http://host/a", "http://host:8080/a", True),
        ("http://host:8000/a", "https://host/a", True),
        ("https://host/a", "https://other/a", True),
        ("http://127.0.0.1:8000/a", "http://127.0.0.1:8001/a", True),
        ("http://host/a", "//other/a", True),
    ],
)
def test_another_server_is_told_from_another_place(here, there, beyond):
    address = WebAddress.parse(here)
    assert address.is_beyond(address.led_to(there)) is beyond


@pytest.mark.parametrize(
    "there",
    [
        "http://host/a",
        "http://other/a",
        "file:///etc/passwd",
        f"https://me:{SECRET}@other/a",
        "ftp://host/a",
    ],
)
def test_a_redirect_to_less_is_not_followed(there):
    with pytest.raises(InputError) as refused:
        WebAddress.parse("https://host/a").led_to(there)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::",
        "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::", "ff02::1", "host", "",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_network_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "2002:808:808::"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)
