"""Packages that add parts: found by their metadata, imported when used, refused with a message when broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def resurge(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "resurge", *words], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What `resurge plugins` says of good and of broken packages, by plugin and package."""
    folder = tmp_path_factory.mktemp("packages")
    install(
        folder, "good", GOOD, gate__scaled="Scaled", gate__odd="NotAChoice", gate__lists="Listed", gate__se="Scaled"
    )
    install(folder, "broken", "raise ImportError('no such library')", gate__broken="Anything", gates__x="Scaled")
    install(folder, "twin", GOOD, gate__scaled="Scaled", data__csv2="Scaled", task__dream="Scaled", layout__x="Scaled")
    install(folder, "single", GOOD, gate__alone="Scaled")
    done = resurge(folder, "plugins", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
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


def test_used_and_broken_on_the_command_line(tmp_path: Path) -> None:
    install(tmp_path, "single", GOOD, gate__alone="Scaled")
    install(tmp_path, "broken", "1 / 0", gate__broken="Anything")
    spec = json.loads(resurge(tmp_path, "show", "resnet18 gate=alone(factor=0.25)", "--json").stdout)
    assert "gate=alone(factor=0.25)" in json.dumps(spec)
    # A package that cannot be imported disturbs nobody who does not use it.
    broken = resurge(tmp_path, "show", "resnet18 gate=broken")
    assert broken.returncode == 2
    assert "the plugin gate.broken of the package broken 1.5 cannot be imported: ZeroDivisionError" in broken.stderr
    missing = resurge(tmp_path, "show", "resnet18 gate=zzz")
    assert missing.returncode == 2
    assert "its choices are none, se, alone, broken. Or is a plugin not installed here?" in missing.stderr
    wrong = resurge(tmp_path, "show", "resnet18 gate=alone(factor=many)")
    assert "gate=alone: factor must be a number; got 'many'" in wrong.stderr
