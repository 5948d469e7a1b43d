"""Drafts on disk: whole, private, of one writer each, bounded in number and age."""

from __future__ import annotations

import json
import os
import stat
import sys
import time

import numpy as np
import pytest

from napari_histodistill.controllers.shared import drafts as module
from napari_histodistill.controllers.shared.drafts import (
    DraftKeeper,
    DraftKey,
    DraftKind,
    DraftStore,
    Handmade,
    packed,
    unpacked,
    when,
)
from napari_histodistill.errors import InputError
from napari_histodistill.running import CancelToken

KEY = DraftKey(DraftKind.PAINTED, ("patient-0815 digest",))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "drafts"


def written(folder, content=None, key=KEY):
    """A draft whose writer is gone."""
    store = DraftStore(folder)
    store.save(key, {"n": 1} if content is None else content)
    store.close()
    return next(iter(DraftStore(folder).offers(key))).path


def made(state, key=KEY):
    return Handmade(key, "strokes", state, lambda: lambda: {"n": state})


def save(keeper, *items):
    for saved in keeper.work(keeper.due(items))(CancelToken()):
        keeper.take(saved)


def test_what_was_written_is_offered_once_its_writer_is_gone(folder):
    store = DraftStore(folder)
    store.save(KEY, {"n": 1})
    store.save(KEY, {"n": 2})
    other = DraftStore(folder)
    assert other.offers(KEY) == (), "a window on the same slide still writes it"
    assert store.offers(KEY) == (), "nor is it offered to its own writer"
    store.close()
    (draft,) = other.offers(KEY)
    assert draft.content == {"n": 2}
    assert abs(draft.saved - time.time()) < 60
    assert other.offers(DraftKey(DraftKind.KEPT)) == ()


def test_two_windows_on_one_slide_keep_a_draft_each(folder):
    for number in (1, 2):
        store = DraftStore(folder)
        store.save(KEY, {"n": number})
        store.close()
        time.sleep(0.01)
    offered = DraftStore(folder).offers(KEY)
    assert [draft.content["n"] for draft in offered] == [2, 1], "newest first"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_draft_is_private_and_its_name_says_nothing(folder):
    before = os.umask(0)
    try:
        path = written(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "0815" not in path.name
    assert "0815" not in path.read_text()


def test_a_writer_that_is_killed_leaves_its_draft(folder):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from napari_histodistill.controllers.shared.drafts import *\n"
        "s = DraftStore(Path(sys.argv[1]))\n"
        "s.save(DraftKey(DraftKind.PAINTED, ('patient-0815 digest',)), {'n': 7})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    (draft,) = DraftStore(folder).offers(KEY)
    assert draft.content == {"n": 7}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": "x"}', "[" * 100_000, '{"format": 3, "kind": []}'],
)
def test_a_damaged_draft_is_offered_to_be_discarded(folder, text):
    path = written(folder)
    path.write_text(text)
    (draft,) = DraftStore(folder).offers(KEY)
    assert draft.trouble
    assert draft.content == {}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_is_no_draft(folder, tmp_path):
    path = written(folder)
    (tmp_path / "elsewhere.json").write_text(path.read_text())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.json")
    assert DraftStore(folder).offers(KEY) == ()


def test_arrays_come_back_and_bombs_do_not(rng):
    array = rng.integers(0, 5, (40, 30), np.uint8)
    content = json.loads(json.dumps(packed(array)))
    np.testing.assert_array_equal(unpacked(content), array)
    bomb = packed(np.zeros((3000, 3000), np.uint8))
    for broken in (
        bomb | {"shape": [10, 10]},
        bomb | {"shape": [2**40, 2**40]},
        bomb | {"shape": [0, 3]},
        bomb | {"zlib": "eA=="},
        bomb | {"zlib": "@"},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - any is caught as damage
            unpacked(broken)


def test_old_ones_go_but_never_the_newest(folder, monkeypatch):
    monkeypatch.setattr(module, "FEWEST", 2)
    monkeypatch.setattr(module, "MOST", 4)
    paths = [
        written(folder, key=DraftKey(DraftKind.PAINTED, (str(k),))) for k in range(6)
    ]
    now = time.time()
    for age, path in enumerate(paths):
        os.utime(path, (now - age, now - age))
    old = now - 2 * module.OLDEST_S
    os.utime(paths[3], (old, old))
    DraftStore(folder).tidy()
    assert [p.exists() for p in paths] == [True, True, True, False, True, False]
    # A clock that runs a century ahead costs nothing that is among the newest.
    monkeypatch.setattr(module.time, "time", lambda: now + 3e9)
    DraftStore(folder).tidy()
    assert [p.exists() for p in paths[:2]] == [True, True]
    assert not list(folder.glob("*.lock"))


def test_a_keeper_writes_only_what_changed(folder):
    keeper = DraftKeeper(DraftStore(folder))
    assert keeper.due([made(None)]) == [], "nothing was made, nothing is written"
    save(keeper, made(1))
    assert keeper.due([made(1)]) == []
    assert keeper.unkept([made(1)]) == []
    assert keeper.unkept([made(2)]) == ["strokes"]
    save(keeper, made(None))
    keeper.store.close()
    assert DraftStore(folder).offers(KEY) == (), "what was erased is not offered"


def test_what_was_saved_for_good_is_no_draft_until_it_changes(folder):
    keeper = DraftKeeper(DraftStore(folder))
    save(keeper, made(1))
    keeper.mark_saved(made(1))
    assert not list(folder.glob("*.json"))
    assert keeper.due([made(1)]) == []
    assert keeper.unkept([made(1)]) == []
    assert keeper.due([made(2)])
    keeper.store.close()


def test_what_cannot_be_kept_is_known(folder, monkeypatch):
    folder.write_text("a file, where the folder should be")
    keeper = DraftKeeper(DraftStore(folder))
    save(keeper, made(1))
    assert "cannot be written to" in keeper.trouble
    assert keeper.unkept([made(1), made(2, key=None)]) == ["strokes", "strokes"]
    with pytest.raises(InputError):
        keeper.store.save(KEY, {})
    folder.unlink()
    save(keeper, made(1))
    assert keeper.trouble == ""
    assert keeper.unkept([made(1)]) == []
    keeper.store.close()


def test_a_folder_that_vanished_is_made_again(folder, tmp_path):
    store = DraftStore(folder)
    store.save(KEY, {"n": 1})
    folder.rename(tmp_path / "away")
    store.save(KEY, {"n": 2})
    assert DraftStore(folder).offers(KEY) == (), "it is still written"
    store.close()
    assert DraftStore(folder).offers(KEY)[0].content == {"n": 2}


def test_when_is_said_as_people_say_it():
    now = time.mktime((2026, 11, 26, 12, 0, 0, 0, 0, -1))
    assert when(now - 2 * 86400, now) == "Tue 12:00"
    assert when(now - 30 * 86400, now).startswith("27 October 2026")
    assert "2026" in when(now + 3600, now), "a clock that was set back"
