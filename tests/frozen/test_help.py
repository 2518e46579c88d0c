"""`--help` of every command."""

from __future__ import annotations

import re
import sys

import pytest
from frozen.commands import COMMANDS, options_of, output
from frozen.goldens import Goldens


@pytest.mark.parametrize("command", COMMANDS)
def test_options(command: str, goldens: Goldens) -> None:
    """Names, metavars and defaults; this stays when only the prose of a help text changes."""
    goldens.same(f"options/{command}", options_of(output(command, "--help")))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_text(command: str, goldens: Goldens) -> None:
    text = output(*filter(None, (command, "--help")))
    # argparse breaks lines and lists metavars in its own way from version to version of Python
    if sys.version_info[:2] != (3, 11):
        pytest.skip("recorded with Python 3.11")
    goldens.same(f"help/{command or 'resurge'}", text)


def test_every_command_is_frozen() -> None:
    listed = re.findall(r"^  ([a-z-]+)  ", output("--help").split("commands:")[1].split("options:")[0], re.M)
    assert sorted(listed) == sorted(COMMANDS)
