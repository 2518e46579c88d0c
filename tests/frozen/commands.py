"""Commands of `resurge`, run in this process, and what they print without what differs from run to run."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = 100
COMMANDS = (
    "models", "show", "train", "eval", "predict", "report", "check-data", "export", "serve", "bench", "convert",
    "plugins",
)  # fmt: skip


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def resurge(*words: object) -> Done:
    """Run `resurge WORDS` as the program does, at a fixed width of the terminal."""
    from resurge.cli import main

    out, err = io.StringIO(), io.StringIO()
    with _columns(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Done(code, out.getvalue(), err.getvalue())


def output(*words: object, code: int = 0) -> str:
    """What `resurge WORDS` prints; fails unless it ends with `code`."""
    done = resurge(*words)
    assert done.code == code, f"exit code {done.code} of resurge {' '.join(map(str, words))}\n{done.err}"
    return done.out


@contextlib.contextmanager
def _columns() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(COLUMNS)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def without_paths(value: Any, places: Mapping[Path, str]) -> Any:
    """Plain data with the folders of this machine replaced by a name, such as `<run>`."""
    if isinstance(value, dict):
        return {key: without_paths(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item, places) for item in value]
    if isinstance(value, str):
        for place in sorted(places, key=lambda path: -len(str(path))):
            value = value.replace(str(place), places[place])
    return value


class _Text(HTMLParser):
    """The text of a page, a line each; figures and list entries that speak of time or versions are left out."""

    HIDDEN = ("script", "style", "footer")
    VOID = ("img", "br", "hr", "meta", "link", "col", "input", "path")

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.open: list[tuple[str, int]] = []  # tag, and the number of lines before it

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append((tag, len(self.lines)))

    def handle_endtag(self, tag: str) -> None:
        while self.open:
            name, start = self.open.pop()
            if self._is_left_out(name, self.lines[start:]):
                del self.lines[start:]
            if name == tag:
                break

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if text:
            self.lines.append(text)

    def _is_left_out(self, tag: str, lines: list[str]) -> bool:
        first = lines[0].lower() if lines else ""
        timed = first.startswith(("images a second", "images per second", "training time", "versions"))
        return tag in self.HIDDEN or (tag in ("figure", "div") and timed)


def visible_text(page: str) -> str:
    """What a reader of an HTML page sees as text, without times and versions, a line for each piece."""
    parser = _Text()
    parser.feed(page)
    parser.close()
    return "\n".join(parser.lines) + "\n"


def options_of(help_text: str) -> dict[str, str]:
    """Each option of a help text with its metavar and, in brackets, the default that ends its description."""
    found: dict[str, str] = {}
    entries = re.split(r"\n(?=  -)", help_text.split("\n\nnamed recipes:")[0])
    for entry in entries[1:]:
        entry = entry.split("\n\n")[0]
        signature = re.split(r"\s{2,}|\n", entry.strip())[0]
        name, _, metavar = signature.split(", ")[-1].partition(" ")
        default = re.search(r"\((?:default: )?([^()]*|\([^()]*\))\)$", " ".join(entry.split()))
        found[name] = " ".join(filter(None, (metavar, f"({default[1]})" if default else "")))
    return found
