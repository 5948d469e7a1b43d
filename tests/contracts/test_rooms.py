"""The shape of the package: small rooms, names that say something, one name a thing."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.contracts.repository import PACKAGE, ROOT, git, inside, modules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES_PER_FOLDER = 18
LINES_PER_FILE = 600

# Names that fit any module and so help nobody to find one, as a whole or as the last
# word of a longer name (`slide_utils`). The second line was met in this package.
EMPTY_NAMES = {
    *("util", "utils", "utility", "utilities", "helper", "helpers", "misc"),
    *("miscellaneous", "common", "commons", "stuff", "things", "tools", "extras"),
    *("base", "core", "general", "generic", "internal", "other", "others", "various"),
    *("parts", "bits", "pieces", "looking_on", "elsewhere", "gentle_import"),
}


def test_no_folder_holds_more_modules_than_a_reader_can_take_in():
    sizes = Counter(inside(path.parent) for path in modules())
    assert sizes
    crowded = {folder: n for folder, n in sizes.items() if n > MODULES_PER_FOLDER}
    assert not crowded, f"more than {MODULES_PER_FOLDER} modules: {crowded}"


def test_no_file_grows_past_one_sitting():
    lengths = {inside(p): len(p.read_text("utf-8").splitlines()) for p in modules()}
    long = {path: lines for path, lines in lengths.items() if lines > LINES_PER_FILE}
    assert not long, f"longer than {LINES_PER_FILE} lines: {long}"


def says_nothing(stem: str) -> bool:
    """Whether a module's name, or its last word, is one of the empty ones."""
    return stem in EMPTY_NAMES or stem.rpartition("_")[2] in EMPTY_NAMES


def test_module_and_folder_names_say_what_is_inside():
    names = {*modules(), *(path.parent for path in modules())}
    empty = sorted(inside(path) for path in names if says_nothing(path.stem))
    assert not empty, f"names that say nothing: {empty}"


@pytest.mark.parametrize(
    ("stem", "empty"),
    [("utils", True), ("slide_utils", True), ("parts", True), ("partners", False)],
)
def test_the_check_of_names_knows_an_empty_name(stem, empty):
    assert says_nothing(stem) is empty


CAMEL_CASE = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
# `np.uint8` and `uint8` are the same, however a module imports it.
MODULE_NAMES = re.compile(r"\b(np|npt|numpy|typing)\.")


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what a module states, inside ``if`` and ``try`` too, in no function."""
    for one in body:
        yield one
        if isinstance(one, ast.If | ast.Try):
            yield from statements(one.body)
            yield from statements(one.orelse)
        if isinstance(one, ast.Try):
            yield from statements(one.finalbody)
            for handler in one.handlers:
                yield from statements(handler.body)


def meaning_of(value: ast.expr | None, where: str) -> str:
    """Return what an alias stands for: equal meanings are one type, wherever spelled.

    ``Pixels = npt.NDArray[np.uint8]`` is shorthand: modules may repeat it if it says
    the same everywhere. Classes never mean the same; nor do two literals: they are
    lists of choices, and a list kept in two places will differ some day.
    """
    text = MODULE_NAMES.sub("", ast.unparse(value)) if value else ""
    return where if not text or "Literal[" in text else text


def types_of(tree: ast.Module, where: str) -> Iterator[tuple[str, str]]:
    """Yield the public types of a module: its name, and what it stands for."""
    for one in statements(tree.body):
        name, value = None, None
        if isinstance(one, ast.ClassDef):
            name = one.name
        elif isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name):
            name, value = one.targets[0].id, one.value
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            name, value = one.target.id, one.value
        if name and CAMEL_CASE.fullmatch(name):
            yield name, meaning_of(value, where)


def twice(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Return the names that stand for more than one type, with their modules."""
    meanings: dict[str, set[str]] = defaultdict(set)
    homes: dict[str, set[str]] = defaultdict(set)
    for where, tree in trees.items():
        for name, meaning in types_of(tree, where):
            meanings[name].add(meaning)
            homes[name].add(where)
    return {n: sorted(homes[n]) for n, m in sorted(meanings.items()) if len(m) > 1}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def test_no_two_public_types_share_a_name():
    shared = twice({inside(path): parsed(path) for path in modules()})
    assert not shared, f"names with two meanings: {shared}"


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("class Place: ...", "class Place: ...", True),
        ("class Place: ...", "Place = tuple[int, int]", True),
        ("class Place: ...", "if x:\n    class Place: ...", True),
        ("Kind = Literal['a']", "Kind: TypeAlias = Literal['a']", True),
        ("Floats = npt.NDArray[np.float32]", "Floats = npt.NDArray[np.float32]", False),
        ("Floats = npt.NDArray[np.float32]", "Floats = NDArray[float32]", False),
        ("Floats = npt.NDArray[np.float32]", "Floats = npt.NDArray[np.float64]", True),
        ("class _Place: ...", "class _Place: ...", False),
        ("PLACE = 1", "PLACE = 2", False),
        ("def f():\n    class Place: ...", "class Place: ...", False),
    ],
)
def test_the_check_of_types_knows_a_clash(one, other, clash):
    found = twice({"one.py": ast.parse(one), "other.py": ast.parse(other)})
    assert bool(found) is clash


# Files that moved into rooms, by the names they had before. Where one is renamed again,
# the name on the left follows it; its history must reach as far back as ever.
MOVED = {
    "slides/pyramid/slide.py": "slides/slide.py",
    "slides/tiff/source.py": "slides/tiff.py",
    "slides/codecs/jpeg.py": "slides/jpeg.py",
    "distill/training/trainer.py": "distill/trainer.py",
    "distill/runs/run.py": "distill/run.py",
    "controllers/explore/session.py": "controllers/explore.py",
    "widgets/explore/dock.py": "widgets/explore.py",
    "widgets/distil/align/alignment.py": "widgets/aligning.py",
}


@pytest.mark.parametrize(("now", "before"), MOVED.items(), ids=MOVED)
def test_the_history_of_a_moved_file_reaches_past_the_move(now, before):
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("a shallow clone: its history does not reach back to the move")
    path = inside(PACKAGE / now)
    assert (ROOT / path).exists(), f"{path} was renamed: say its name here, too"
    names = git("log", "--follow", "--name-only", "--format=", "--", path).split()
    assert inside(PACKAGE / before) in names


def import_contracts() -> dict[str, object]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return settings["tool"]["importlinter"]


def test_the_lint_of_imports_counts_signatures_and_forbids_circles():
    settings = import_contracts()
    assert settings["exclude_type_checking_imports"] is False
    contracts = settings["contracts"]
    assert not [c["name"] for c in contracts if c.get("ignore_imports")]
    (circles,) = [c for c in contracts if c["type"] == "acyclic_siblings"]
    assert set(circles["ancestors"]) == {
        "napari_histodistill",
        "napari_histodistill.**",
    }
    (layers,) = [c for c in contracts if c["type"] == "layers"]
    assert layers["exhaustive"]


def test_the_lint_of_imports_is_run():
    assert re.search(r"^    lint-imports$", (ROOT / "tox.ini").read_text("utf-8"), re.M)
