"""``kill -9`` a few times at seeded moments; fifty times in ``campaign.py kills``."""

from __future__ import annotations

import pytest

from tests.faults.killing import COMMANDS, Killer
from tests.forked import start_forked


@pytest.fixture(scope="module")
def killer(place, tmp_path_factory) -> Killer:
    folder = tmp_path_factory.mktemp("killed")
    return Killer(place, folder, seed=20260, starter=start_forked)


@pytest.mark.slow(21)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_ends_as_one_left_alone(killer, command):
    found = killer.kill(command, times=2)
    assert found.readable, found
    assert found.equal, found
