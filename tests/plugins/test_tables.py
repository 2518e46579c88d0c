"""Packages that add parts: found by their metadata, imported when used, refused with a message when broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins.installed import Installed

GOOD = """
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True)
class Scaled:
    factor: float = 0.5
    def build(self, channels):
        return nn.Identity()

class NotAChoice:
    pass

@dataclass(frozen=True)
class Listed:
    sizes: list
    def build(self, channels):
        return nn.Identity()
"""


def install(folder: Path, name: str, code: str, **points: str) -> None:
    """A package of one module, as pip would leave it."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    lines = [f"{kind.replace('__', '.')} = {name}:{value}" for kind, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[resurge.plugins]", *lines, ""]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Good packages and broken ones beside each other."""
    folder = tmp_path_factory.mktemp("packages")
    install(
        folder, "good", GOOD, gate__scaled="Scaled", gate__odd="NotAChoice", gate__lists="Listed", gate__se="Scaled"
    )
    install(folder, "broken", "raise ImportError('no such library')", gate__broken="Anything", gates__x="Scaled")
    install(folder, "twin", GOOD, gate__scaled="Scaled", data__csv2="Scaled", task__dream="Scaled", layout__x="Scaled")
    install(folder, "single", GOOD, gate__alone="Scaled")
    installed = Installed(folder)
    yield installed
    installed.close()


@pytest.fixture(scope="module")
def listed(place: Installed) -> dict[str, dict[str, str]]:
    """What `resurge plugins` says of them, by plugin and package."""
    (done,) = place.resurge("plugins --json")
    assert done.code == 1, done.err
    found = json.loads(done.out)
    assert {"gate", "stem", "block", "transform", "shortcut", "task", "data", "layout"} <= set(found["kinds"])
    return {f"{part['plugin']} {part['package']}": part for part in found["plugins"]}


@pytest.mark.parametrize(
    "part, problem",
    [
        ("gate.alone single 1.5", None),
        ("gate.scaled good 1.5", "good 1.5 and twin 1.5 all have gate.scaled"),
        ("gate.se good 1.5", "resurge and good 1.5 all have gate.se"),
        ("gate.odd good 1.5", "expected a frozen dataclass with a method `build`"),
        ("gate.lists good 1.5", "has the field sizes of type"),
        ("gate.broken broken 1.5", "cannot be imported: ImportError: no such library. Mend or uninstall it."),
        ("gates.x broken 1.5", "there is no kind 'gates'. Did you mean 'gate'?"),
        ("data.csv2 twin 1.5", "expected a resurge.data.formats.format.Format with the name 'csv2'"),
        ("task.dream twin 1.5", "expected a subclass of resurge.tasks.task.Task with the name 'dream'"),
        ("layout.x twin 1.5", "expected a resurge.weights.layouts.tables.Layout with the name 'x'"),
    ],
)
def test_states(listed: dict[str, dict[str, str]], part: str, problem: str | None) -> None:
    found = listed[part]["problem"]
    assert found is None if problem is None else problem in found


def test_used_and_broken_on_the_command_line(place: Installed) -> None:
    """A package that cannot be used disturbs nobody who does not use it."""
    used, named, broken, missing, wrong, own = place.resurge(
        "show 'resnet18 gate=alone(factor=0.25)' --json",
        "models 'seresnet*'",
        "show 'resnet18 gate=broken'",
        "show 'resnet18 gate=zzz'",
        "show 'resnet18 gate=alone(factor=many)'",
        "show 'resnet18 gate=se'",
    )
    assert "gate=alone(factor=0.25)" in json.dumps(json.loads(used.out))
    assert named.out
    assert [done.code for done in (used, named, broken, missing, wrong, own)] == [0, 0, 2, 2, 2, 0]
    assert (
        "the plugin gate.broken of the package broken 1.5 cannot be imported: ImportError: no such library"
        in broken.err
    )
    known = missing.err.partition("its choices are ")[2]
    assert known.startswith("none, se, ")
    assert {"alone", "broken"} <= set(known.partition(".")[0].split(", "))
    assert "Or is a plugin not installed here?" in known
    assert "gate=alone: factor must be a number; got 'many'" in wrong.err
