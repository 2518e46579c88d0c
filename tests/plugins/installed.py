"""A package in a folder of its own, and a process that has it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# One line of JSON per request: code to run, or the words of commands; a line of JSON back.
DRIVER = """
import contextlib, io, json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    request, done = json.loads(line), []
    if "code" in request:
        out, code, err = io.StringIO(), 0, ""
        with contextlib.redirect_stdout(out):
            try:
                exec(request["code"], {})
            except Exception:
                code, err = 1, traceback.format_exc()
        done.append((code, out.getvalue(), err))
    for words in request.get("commands", ()):
        from resurge.cli import main
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        done.append((code, out.getvalue(), err.getvalue()))
    print(json.dumps(done), file=answers, flush=True)
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Installed:
    """A place with a package in it, and one process for all that is run there: importing torch takes longest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors = folder / "stderr.txt"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def _ask(self, **request: object) -> list[Done]:
        send, receive = self._process.stdin, self._process.stdout
        assert send is not None
        assert receive is not None
        print(json.dumps(request), file=send, flush=True)
        answer = receive.readline()
        assert answer, self._errors.read_text()[-3000:]
        return [Done(*each) for each in json.loads(answer)]

    def python(self, code: str) -> str:
        """Run Python code; returns what it prints."""
        (done,) = self._ask(code=code)
        assert done.code == 0, done.err
        return done.out

    def resurge(self, *commands: str) -> list[Done]:
        """Run commands one after the other; a command is written as in a shell."""
        return self._ask(commands=[shlex.split(command) for command in commands])

    def succeed(self, *commands: str) -> list[str]:
        """As `resurge`; fails unless all exit with 0. Returns what they print."""
        done = self.resurge(*commands)
        for command, each in zip(commands, done, strict=True):
            assert each.code == 0, f"resurge {command}: {each.err}"
        return [each.out for each in done]

    def close(self) -> None:
        self._process.communicate()
