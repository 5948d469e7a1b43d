"""Nothing secret of an address is printed, shown or stored, by whatever command."""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="extra [http]")

from zarr.storage import MemoryStore

from napari_histodistill import addresses
from napari_histodistill.cli.scheduler import _to_send
from napari_histodistill.controllers.shared.map_work import open_work
from napari_histodistill.errors import SlideError
from napari_histodistill.layers.reader import get_reader
from napari_histodistill.layers.slide_layer import slide_layer
from napari_histodistill.maps.cohort import SlideTask, embed_task
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import open_slide
from tests.fakes import colour_student, tissue_image
from tests.faults.hostile_servers import Server, serving
from tests.slides.formats.test_omezarr import write

SECRET = "s3cr3tSignature"
SIGNED = f"sv=1&sig={SECRET}%2Fa%3D"


@pytest.fixture(autouse=True)
def _loopback(socket_enabled, monkeypatch):
    monkeypatch.setattr(addresses, "_SIGNED", {})


@pytest.fixture(scope="module")
def files():
    store = MemoryStore()
    image = tissue_image()
    levels = [image, image[::2, ::2]]
    write(store, [a.transpose(2, 0, 1) for a in levels])
    return {key: bytes(value.to_bytes()) for key, value in store._store_dict.items()}


@pytest.fixture
def server(files):
    with serving(Server(dict(files))) as found:
        yield found


def assert_clean(folder: Path, *texts: str) -> None:
    """Assert that the secret is in no text, name or file."""
    for text in texts:
        assert SECRET not in text, text
    for path in folder.rglob("*"):
        assert SECRET not in str(path)
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_signed_slide_goes_through_all_commands(
    run, bundle, server, tmp_path, caplog, recwarn
):
    caplog.set_level(logging.DEBUG)
    slide, store = f"{server.url}?{SIGNED}", tmp_path / "e" / "slide.zarr"
    export = (tmp_path / "c" / "slide.zarr", "--student", bundle)
    outcomes = [
        run(*command)
        for command in (
            ("info", slide),
            ("info", slide, "--json"),
            ("embed", slide, "-o", tmp_path / "e", "--student", bundle, "--json"),
            ("embed", slide, "-o", tmp_path / "e", "--student", bundle, "--debug"),
            ("classify", slide, "-o", tmp_path / "c", "--student", bundle, "--json"),
            ("classify", slide, "-o", tmp_path / "c", "--student", bundle),
            ("similar", store, "--at", "210,240", "-o", tmp_path / "s", "--json"),
            ("export", *export, "--to", "geojson", "-o", tmp_path / "m.geojson"),
            ("export", *export, "--to", "ome-zarr", "-o", tmp_path / "m.zarr"),
        )
    ]
    assert [o.err for o in outcomes if o.code != 0] == []
    assert outcomes[1].json["slide"] == server.url
    assert outcomes[4].json["slide"] == server.url
    assert store.is_dir()
    # It reached the server, so it was used, and it is nowhere else.
    assert all(SIGNED in path for path in server.asked)
    assert_clean(tmp_path, *(o.out + o.err for o in outcomes), caplog.text)
    assert not [w for w in recwarn if SECRET in str(w.message)]


@pytest.mark.parametrize("debug", [(), ("--debug",)])
@pytest.mark.parametrize(
    "make",
    [
        lambda url: f"{url.replace('://', '://me:' + SECRET + '@')}",
        lambda url: f"{url.replace('://', '://' + SECRET + '@')}",
        lambda url: f"{url}?{SIGNED}",
        lambda url: f"s3://key:{SECRET}@bucket/slide.zarr",
        lambda url: f"ftp://me:{SECRET}@127.0.0.1/slide.svs",
    ],
    ids=["password", "user", "signed", "s3", "ftp"],
)
def test_no_refusal_shows_a_secret(run, bundle, tmp_path, make, debug):
    with serving(Server({})) as empty:
        address = make(empty.url)
        commands = [
            ("info", address),
            ("info", address, "--json"),
            ("info", address, address),
            ("embed", address, "-o", tmp_path / "e", "--student", bundle),
            ("embed", address, address, "-o", tmp_path / "e", "--student", bundle),
            ("classify", address, "-o", tmp_path / "c", "--student", bundle),
            ("classify", tmp_path, "-o", tmp_path / "c", "--student", address),
            ("demo", address),
            ("similar", address, "--at", "1,1", "-o", tmp_path / "s"),
            ("export", address, "-o", tmp_path / "m.geojson"),
            ("evaluate", address, "--student", bundle),
            ("evaluate", tmp_path, "--student", address),
            ("distill", address),
            ("distill", tmp_path, "--data", address),
            ("students", address),
            (address,),
        ]
        for command in commands:
            outcome = run(*command, *debug)
            assert outcome.code != 0, command
            assert_clean(tmp_path, outcome.out, outcome.err)
    assert list(tmp_path.rglob("*")) == []


def test_a_server_that_fails_in_the_middle_shows_nothing(run, server, bundle, tmp_path):
    for key in list(server.files):
        if "/c/" in key:
            server.special[key] = lambda _server, send: send(b"nothing of HTTP")
    for debug in ((), ("--debug",)):
        outcome = run(
            *("embed", f"{server.url}?{SIGNED}", "-o", tmp_path, "--student", bundle),
            *debug,
        )
        assert outcome.code == 2
        assert re.search(r"127\.0\.0\.1:\d+", outcome.err)
        assert_clean(tmp_path, outcome.out, outcome.err)


def test_a_slide_in_a_notebook_holds_no_secret(server, tmp_path):
    with open_slide(f"{server.url}?{SIGNED}") as slide:
        assert slide.name == "slide.zarr"
        shown = [repr(slide), repr(slide.info), str(slide), repr(slide.levels)]
        shown += [repr(slide_layer(slide)[:2]), repr(dict(slide.levels[-1].dask))]
        assert_clean(tmp_path, *shown)


def test_a_task_travels_with_its_signature_and_shows_none(
    server, bundle, tmp_path, monkeypatch
):
    typed = Path(f"{server.url}?{SIGNED}")
    task = SlideTask(
        slide=addresses.put_aside(typed), store=tmp_path / "a.zarr", student=str(bundle)
    )
    sent = pickle.dumps(_to_send(task, colour_student()))
    monkeypatch.setattr(addresses, "_SIGNED", {})  # as in another process
    there = pickle.loads(sent)
    assert_clean(tmp_path, repr(there), str(there.slide), there.slide.name)
    result = embed_task(SlideTask(**{**_fields(there), "student_digest": ""}))
    assert result.error == ""
    assert_clean(tmp_path, repr(result))


def _fields(task):
    return {name: getattr(task, name) for name in task.__dataclass_fields__}


@pytest.mark.parametrize("user", [f"me:{SECRET}@", f"{SECRET}@"])
def test_what_opens_slides_in_the_window_shows_no_secret(server, user):
    address = server.url.replace("://", f"://{user}")
    with pytest.raises(SlideError) as refused:
        list(open_work(open_slide, Path(address))(CancelToken()))
    assert SECRET not in str(refused.value)
    reader = get_reader(address)
    assert reader is not None
    with pytest.raises(SlideError) as refused:
        reader(address)
    assert SECRET not in str(refused.value)
    assert server.asked == []
