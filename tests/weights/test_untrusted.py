"""Files of weights that are made to do harm: small ones that would be large in memory, and what is no file at all."""

from __future__ import annotations

import copy
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resurge.errors import UserError
from resurge.weights.reading import read_checkpoint

LARGE = 1 << 34
"""Bytes that no test machine should be asked for."""


class Memory:
    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (1 << 20,)


def packed(path: Path) -> None:
    torch.save({"w": torch.zeros(1 << 18)}, path.with_suffix(".plain"))
    with zipfile.ZipFile(path.with_suffix(".plain")) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def overlapping(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data/0", bytes(4096))
        for number in range(1, 50):  # many names for one place in the file
            twin = copy.copy(archive.infolist()[0])
            twin.filename = f"net/data/{number}"
            archive.filelist.append(twin)


def contains_itself(path: Path) -> None:
    content: dict[str, object] = {"epoch": 3}
    content["model"] = content
    torch.save(content, path)


def with_header(header: str, data: int = 4) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(data))

    return write


def tensors(**shapes: list[int]) -> str:
    return json.dumps({name: {"dtype": "F32", "shape": each, "data_offsets": [0, 4]} for name, each in shapes.items()})


def saving(content: object, **options: bool) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path, **options)


REPEATED = {"w": torch.ones(1).expand(1 << 16, 1 << 16)}
HARMFUL: dict[str, tuple[Callable[[Path], object], str]] = {
    "a number used again and again": (saving(REPEATED), "only 4 bytes of it"),
    "the same in an old file": (saving(REPEATED, _use_new_zipfile_serialization=False), "only 4 bytes of it"),
    "compressed": (packed, "would unpack to"),
    "entries that overlap": (overlapping, "would unpack to"),
    "memory": (saving({"w": Memory()}), "asks for memory"),
    "a wrapper of itself": (contains_itself, "expected tensors only"),
    "no values": (saving({"w": torch.empty(LARGE, device="meta")}), "without values"),
    "sparse": (saving({"w": torch.eye(3).to_sparse()}), "sparse"),
    "a FIFO": (os.mkfifo, "it is a FIFO"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "safetensors of another shape": (with_header(tensors(w=[LARGE])), "not a whole safetensors file"),
    "safetensors that overlap": (with_header(tensors(v=[1], w=[1])), "not a whole safetensors file"),
    "safetensors with a long header": (
        lambda path: path.write_bytes(struct.pack("<Q", 1 << 60) + b"{"),
        "not a whole safetensors file",
    ),
    "safetensors without numbers": (
        with_header(json.dumps({"w": {"dtype": "F32", "shape": [0, 2**63 - 1, 9], "data_offsets": [0, 0]}}), 0),
        "only 0 bytes of it",
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_file_is_refused_before_it_is_read(name: str, tmp_path: Path) -> None:
    write, words = HARMFUL[name]
    write(tmp_path / "net.pth")
    with pytest.raises(UserError, match=words):
        read_checkpoint(tmp_path / "net.pth")


def test_names_of_tensors_hold_no_commands(tmp_path: Path) -> None:
    torch.save({"\x1b[2Jw\n": torch.full((2,), float("nan"))}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"\\x1b\[2Jw\\n has values"):
        read_checkpoint(tmp_path / "net.pth")
