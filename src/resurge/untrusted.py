"""What comes from elsewhere: files that may be devices or endless, numbers and nesting without end, and names that
hold commands to a terminal or a spreadsheet. Every file that a stranger may have made is read and shown through here.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import IO, TypeVar

import yaml

Place = str | os.PathLike[str]
T = TypeVar("T")

MOST_BYTES = 8 << 30
"""Of a file that is read as a whole, unless the caller says less; the largest annotations known to us have 6 GB."""
MOST_DIGITS = 300
"""Of a number in JSON or YAML: more would be no float, and thousands cannot even be written out again."""
MOST_NODES = 1_000_000
"""Values in a YAML document, each alias counted as often as it stands for something."""
MOST_TEXT = 4000
"""Characters of a message; a field of a file may be as long as the file."""

_KINDS = {
    stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- files


def open_regular(path: Place) -> IO[bytes]:
    """Open a file for reading. What is no regular file, such as a FIFO that would wait for a writer, is not opened.

    Raises:
        OSError: it is missing, a folder, a device, ...; `strerror` says which.
    """
    _require_regular(Path(path).stat(), path)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _require_regular(os.fstat(handle), path)  # it may have been replaced in between
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _require_regular(found: os.stat_result, path: Place) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if kind != stat.S_IFREG:
        what = _KINDS.get(kind, "something else")
        raise OSError(errno.EINVAL, f"it is {what}, not a regular file", os.fspath(path))


def read_bytes(path: Place, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        OSError: see `open_regular`; or it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # one more than there should be: a file of the system may have no size and no end
        content = file.read(size + 1) if size <= most else b""
        while size < len(content) <= most and (more := file.read(1 << 20)):
            content += more
    if max(size, len(content)) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes, the limit", os.fspath(path))
    return content


def read_text(path: Place, most: int = MOST_BYTES, errors: str = "strict") -> str:
    """The same as text in UTF-8; raises UnicodeDecodeError too."""
    return read_bytes(path, most).decode("utf-8", errors)


# ------------------------------------------------------------------------------------------------- JSON, YAML and XML

_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))


def parse_json(content: str | bytes, most_digits: int = MOST_DIGITS) -> object:
    """The value in a JSON document.

    Raises:
        ValueError: it is none (json.JSONDecodeError), is nested too deeply, or has a number of too many digits.
    """
    text = content if isinstance(content, str) else content.decode(json.detect_encoding(content), "surrogatepass")
    if b"0" * (most_digits + 1) in text.encode("utf-8", "surrogatepass").translate(_DIGITS):  # quicker than `re`
        raise ValueError(f"it has a number of more than {most_digits} digits")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(content: str | bytes, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader] = yaml.SafeLoader) -> object:
    """The value in a YAML document; None for an empty one.

    Raises:
        ValueError: it is none, is nested too deeply, has aliases that would become millions of values, or a number of
            too many digits.
    """
    try:
        document = loader(content)
        try:
            root = document.get_single_node()
            if root is None:
                return None
            _count_nodes(root, {})
            value: object = document.construct_document(root)
            return value
        finally:
            document.dispose()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def _count_nodes(node: yaml.Node, counts: dict[int, int]) -> int:
    """How many values a node stands for, aliases resolved; 0 in `counts` while it is being counted."""
    if id(node) in counts:
        if not counts[id(node)]:
            raise ValueError("it has a value that contains itself")
        return counts[id(node)]
    counts[id(node)], total = 0, 1
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > MOST_DIGITS and node.tag.endswith((":int", ":float")):
            raise ValueError(f"it has a number of more than {MOST_DIGITS} digits")
    else:
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        for child in (child for pair in pairs for child in pair):
            total += _count_nodes(child, counts)
            if total > MOST_NODES:
                raise ValueError(f"it has more than {MOST_NODES:,} values, those of its aliases included")
    counts[id(node)] = total
    return total


_ENCODING = re.compile(rb"<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)")


def parse_xml(content: bytes) -> ElementTree.Element:
    """The first element of an XML document. Raises ValueError when it is none, or in an unknown encoding."""
    try:
        try:
            return ElementTree.fromstring(content)
        except ValueError:  # it reads no encodings of several bytes, such as GB2312
            named = _ENCODING.match(content)
            return ElementTree.fromstring(content.decode("utf-8" if named is None else named[1].decode()))
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(str(error)) from None


# -------------------------------------------------------------------------------------------------------------- text

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, begins a command to a terminal, ends a line or turns the direction of writing; and the bytes
of a file's name that are no text."""
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def shown(text: object) -> str:
    """Text of somebody else on one line of a terminal: what is not to be seen in it is written as an escape."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), str(text))


def shown_message(text: object) -> str:
    """A message on one line, without the middle of what is too long for a screen."""
    line = shown(text)
    return line if len(line) <= MOST_TEXT else f"{line[: MOST_TEXT // 2]} … {line[-MOST_TEXT // 2 :]}"


def to_cell(value: T) -> T | str:
    """A value as a cell of a CSV file, which a spreadsheet must not take for a formula: a text that begins with = + -
    @, a tab or a carriage return gets an apostrophe before it. Numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def from_cell(text: str) -> str:
    """What `to_cell` was given."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Also of a text that `to_cell` has made, so that `from_cell` always knows."""
    if not _FORMULA.match(text):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
