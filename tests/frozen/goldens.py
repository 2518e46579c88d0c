"""What was recorded, and how it is compared: see README.md."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"
Check = Callable[[Any, Any], Iterator[str]]  # (found, recorded) -> what is different, in words


class Goldens:
    """The recorded values; with `write`, values are recorded instead of compared."""

    def __init__(self, write: bool) -> None:
        self.write = write

    def same(self, name: str, found: Any) -> None:
        """Compare a value that is the same on every machine: a text (.txt) or plain data (.json)."""
        path = _path(name, found)
        if self.write:
            _write(path, found)
            return
        _fail(path, differences(found, _read(path)))

    def close(self, name: str, found: Any, loose: Check, relative: float = 1e-5, absolute: float = 1e-6) -> None:
        """Compare plain data whose numbers were computed in floating point.

        On the kind of machine the value was recorded on, every number has to be within the tolerances; texts, counts
        and digests have to be equal. On another machine `loose` decides.
        """
        path = _path(name, found)
        if self.write:
            _write(path, {"made_on": machine(), "value": found})
            return
        recorded = _read(path)
        if recorded["made_on"] == machine():
            _fail(path, differences(found, recorded["value"], relative, absolute))
        else:
            _fail(path, loose(found, recorded["value"]))


def differences(found: Any, recorded: Any, relative: float = 0.0, absolute: float = 0.0, at: str = "") -> Iterator[str]:
    """Where two trees of plain data differ; floats within either tolerance are equal."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        for key in [key for key in recorded if key not in found]:
            yield f"{at}/{key} is missing"
        for key in [key for key in found if key not in recorded]:
            yield f"{at}/{key} is new"
        for key in [key for key in recorded if key in found]:
            yield from differences(found[key], recorded[key], relative, absolute, f"{at}/{key}")
    elif isinstance(found, list) and isinstance(recorded, list):
        if len(found) != len(recorded):
            yield f"{at} has {len(found)} entries, {len(recorded)} were recorded"
        for index, (mine, theirs) in enumerate(zip(found, recorded, strict=False)):
            yield from differences(mine, theirs, relative, absolute, f"{at}/{index}")
    elif isinstance(found, str) and isinstance(recorded, str) and "\n" in recorded:
        yield from differences(found.splitlines(), recorded.splitlines(), at=at)
    elif isinstance(found, float) and isinstance(recorded, float):
        if not (found == recorded or math.isclose(found, recorded, rel_tol=relative, abs_tol=absolute)):
            yield f"{at} is {found!r}, recorded is {recorded!r}"
    elif type(found) is not type(recorded) or found != recorded:
        yield f"{at} is {found!r}, recorded is {recorded!r}"


def skeleton(value: Any) -> Any:
    """The shape of plain data: keys and types without values. A list is the shape of its first entry."""
    if isinstance(value, dict):
        return {key: skeleton(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [skeleton(value[0])] if value else []
    return "number or null" if value is None or isinstance(value, int | float) else type(value).__name__


def same_skeleton(found: Any, recorded: Any) -> Iterator[str]:
    """The check of last resort on other machines: the same keys and kinds of values."""
    mine, theirs = skeleton(found), skeleton(recorded)
    yield from (line for line in differences(mine, theirs) if " entries, " not in line)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@cache
def machine() -> str:
    """A digest of the library versions and of a fixed computation: equal where floats come out bit for bit alike."""
    import numpy as np
    import PIL
    import torch
    import torchvision
    from torch.nn import functional as F

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(7)
    found = hashlib.sha256()
    for version in (torch.__version__, torchvision.__version__, np.__version__, PIL.__version__):
        found.update(version.encode())
    try:
        for channels, side, groups in ((3, 33, 1), (8, 24, 1), (16, 12, 2), (32, 6, 1)):
            x = torch.randn(4, channels, side, side, generator=draw).contiguous(memory_format=torch.channels_last)
            weight = torch.randn(16, channels // groups, 3, 3, generator=draw).requires_grad_()
            matrix = torch.randn(16, 11, generator=draw).requires_grad_()
            y = F.conv2d(x, weight, stride=2, padding=1, groups=groups)
            y = F.relu(F.batch_norm(y, None, None, training=True))
            y = F.interpolate(y, scale_factor=1.7, mode="bilinear") * torch.sigmoid(y.mean((2, 3), keepdim=True))
            loss = F.cross_entropy(y.mean((2, 3)) @ matrix, torch.tensor([1, 5, 9, 0]))
            loss.backward()
            for tensor in (y, loss, weight.grad, matrix.grad):
                assert tensor is not None
                found.update(tensor.detach().contiguous().numpy().tobytes())
        numbers = np.random.RandomState(7).uniform(0, 1, (96, 96))
        for values in (numbers @ numbers[:, :7], np.sin(numbers * 90), np.exp(numbers)):
            found.update(values.tobytes())
    finally:
        torch.set_num_threads(before)
    return found.hexdigest()[:16]


def _path(name: str, value: Any) -> Path:
    return FOLDER / f"{name}.{'txt' if isinstance(value, str) else 'json'}"


def _read(path: Path) -> Any:
    assert path.is_file(), f"{path.name} was never recorded: run with --write-goldens"
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else text


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else dumped(value) + "\n"
    path.write_text(text, encoding="utf-8")


def dumped(value: Any, indent: str = "") -> str:
    """JSON that is short and still can be read in a diff: what fits into a line stands in one."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or len(indent) + len(line) <= 120:
        return line
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(str(key))}: {dumped(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    if all(isinstance(item, int | float | None) for item in value):
        return line
    return "[\n" + ",\n".join(inner + dumped(item, inner) for item in value) + f"\n{indent}]"


def _fail(path: Path, found: Iterator[str]) -> None:
    lines = list(found)
    shown = "\n  ".join(line[:400] for line in lines[:12])
    assert not lines, f"{len(lines)} differences from {path.relative_to(FOLDER)}:\n  {shown}"
