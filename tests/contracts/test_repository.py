"""Promises about the repository itself."""

from __future__ import annotations

import re

from tests.contracts.repository import ROOT, git, tracked


def test_no_test_is_skipped_whatever_the_machine():
    for path in tracked("tests/*.py"):
        text = path.read_text("utf-8")
        assert not re.search(r"^@pytest\.mark\.skip\b(?!if)", text, re.M), path


def test_nothing_large_is_committed():
    # Weights of a bundled student may take 12 MB, all else 2.
    large = {
        p.name: p.stat().st_size
        for p in tracked()
        if p.stat().st_size > (12e6 if p.suffix == ".safetensors" else 2e6)
    }
    assert not large


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text("utf-8")
    scripts = set(re.findall(r"^\.ci/(\w+)", readme, re.M))
    assert scripts >= {"demo", "test"}
    assert scripts <= {path.name for path in tracked(".ci/*")}


def test_every_script_of_ci_can_be_run():
    # As git records it: Windows keeps no such bit on the file.
    modes = dict(
        line.split("\t")[::-1] for line in git("ls-files", "-s", ".ci").splitlines()
    )
    assert modes
    assert not [path for path, mode in modes.items() if not mode.startswith("100755")]


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"\b(ruff|typos|import-linter)==([\d.]+)", text))


def test_the_hooks_and_the_lint_run_the_same_versions():
    hooks = pins((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert set(hooks) == {"ruff", "typos", "import-linter"}
    assert hooks == pins((ROOT / "tox.ini").read_text("utf-8"))


def test_blame_ignores_commits_that_are_part_of_the_history():
    listed = (ROOT / ".git-blame-ignore-revs").read_text("utf-8").splitlines()
    commits = [line for line in listed if line and not line.startswith("#")]
    assert commits
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        return
    history = set(git("rev-list", "HEAD").split())
    assert not [commit for commit in commits if commit not in history]
