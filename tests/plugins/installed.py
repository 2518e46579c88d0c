"""A package in a folder of its own, and processes that have it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

DRIVER = """
import contextlib, io, json, sys
from resurge.cli import main
done = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    done.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Installed:
    """A place with a package in it."""

    folder: Path

    def python(self, code: str, text: str = "") -> str:
        """Run Python code in a process that has the package; returns what it prints."""
        paths = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-c", code], input=text, capture_output=True, text=True, cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def resurge(self, *commands: str) -> list[Done]:
        """Run commands one after the other in one such process; a command is written as in a shell."""
        found = json.loads(
            self.python(DRIVER, json.dumps([shlex.split(command) for command in commands])).splitlines()[-1]
        )
        return [Done(*each) for each in found]

    def succeed(self, *commands: str) -> list[str]:
        """As `resurge`; fails unless all exit with 0. Returns what they print."""
        done = self.resurge(*commands)
        for command, each in zip(commands, done, strict=True):
            assert each.code == 0, f"resurge {command}: {each.err}"
        return [each.out for each in done]
