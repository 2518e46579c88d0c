"""Files of weights -> plain dictionaries of tensors, without ever running what a pickle asks for."""

from __future__ import annotations

import argparse
import math
import os
import pickle
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from resurge.errors import UserError, first_line
from resurge.untrusted import open_regular, shown
from resurge.weights.download import looks_like_web_page

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
# Where training scripts put the weights inside what they save. An exponential moving average comes first, because
# the score that such a file is published with was measured on it.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "params_ema",
    "ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "params",
    "net",
    "network",
    "weights",
    "student",
    "online_encoder",
    "encoder_q",
    "encoder",
    "backbone",
)
MAX_NESTING = 8  # wrappers around each other; a pickle may hold one that holds itself
MOST_BYTES = 32 << 30
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")  # DataParallel, compile, Lightning, ...


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the tensors, the wrappers they were taken out of, the safetensors metadata, what was
    stripped from the names, and the names of what belongs to the module around the network, such as a metric's flag."""

    tensors: dict[str, Tensor]
    wrappers: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    prefix: str = ""
    outside: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a `.safetensors` file or a PyTorch pickle (`weights_only=True`, nothing else).

    Raises:
        UserError: the file is missing, cut short, a web page, not of these formats, or would run code; or it holds
            anything but finite tensors.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            head, size = file.read(512), os.fstat(file.fileno()).st_size
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "does not exist" if isinstance(error, FileNotFoundError) else "is a folder"
        raise UserError(f"expected a file of weights ({', '.join(SUFFIXES)}), but {path} {what}.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    if size > MOST_BYTES:
        raise UserError(f"{path} has {size:,} bytes, more than the limit of {MOST_BYTES:,}. Check the file.")
    if looks_like_web_page(head):
        raise UserError(f"{path} is a web page, not weights: download the file itself.")
    # The suffix alone is not trusted: a safetensors file starts with the length of a JSON header.
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"PK"):
        _require_unpacked(path, size)
    return unwrap(_read_pickle(path), str(path))


def _require_unpacked(path: Path, size: int) -> None:
    """Raises UserError for an archive whose entries would be larger in memory than in the file: they are compressed,
    or lie over each other. `torch.save` writes no such file, and `torch.load` would take them as they are."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked <= size:
                pickles = [archive.read(entry) for entry in archive.infolist() if entry.filename.endswith(".pkl")]
                if any(b"bytearray" in content for content in pickles):
                    raise ValueError("it asks for memory, not for tensors")
    except (OSError, zipfile.BadZipFile, ValueError, LookupError, NotImplementedError) as error:
        raise UserError(
            f"{path} is not a file of weights, or was cut short ({first_line(error)}). Get it again."
        ) from error
    if unpacked > size:
        raise UserError(
            f"{path} has {size:,} bytes and would unpack to {unpacked:,}, which torch.save never writes. If you trust "
            "the file, unpack it and save its state dict anew: torch.save(model.state_dict(), FILE)."
        )


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): it was cut short or is of another kind. Get it again."
        ) from error
    found = unwrap(tensors, str(path))
    return replace(found, metadata=metadata)


def _read_pickle(path: Path) -> object:
    try:
        # timm's training script keeps its command line, an argparse.Namespace, beside the weights; that class can
        # only hold attributes.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol; what matters comes as an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error)
        if not any(word in reason for word in ("GLOBAL", "allowlisted", "reduce")):
            raise UserError(f"{path} is not a file of weights, or was cut short. Get it again.") from error
        raise UserError(
            f"{path} holds more than tensors, and reading the rest could run code; it was refused and nothing was "
            "executed. If you trust the file, save its state dict alone: "
            "torch.save(model.state_dict(), FILE), or as safetensors."
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its next byte leads to, struct.error for one
        raise UserError(
            f"{path} is not a file of weights, or was cut short ({first_line(error)}). Get it again."
        ) from error


def unwrap(content: object, where: str) -> Checkpoint:
    """Take the tensors out of known wrappers and strip known prefixes from their names.

    `module.`, `model.` and the like are stripped when nearly every name has them, and the others left out; `_orig_mod.`
    everywhere.

    Raises:
        UserError: `content` is no dictionary of tensors, or one of them has values that are not finite.
    """
    wrappers: list[str] = []
    while isinstance(content, Mapping) and len(wrappers) < MAX_NESTING:
        inside = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping) and content[name]), None)
        if inside is None:
            break
        wrappers.append(inside)
        content = content[inside]
    if not isinstance(content, Mapping):
        raise UserError(
            f"{where}: expected a dictionary of tensors (a state dict), got {type(content).__name__}. "
            "Save model.state_dict(), not the model."
        )
    if not content:
        raise UserError(f"{where}: expected a dictionary of tensors (a state dict), got an empty one.")
    foreign = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        raise UserError(
            f"{where}: expected tensors only, but {some(foreign)} {'is' if len(foreign) == 1 else 'are'} none. "
            f"The weights may lie under one of {', '.join(WRAPPERS)}; save that dictionary alone."
        )
    tensors = {str(name).replace("_orig_mod.", ""): value for name, value in content.items()}
    outside: list[str] = []
    stripped = ""
    while prefix := next((p for p in PREFIXES if _is_around(p, tensors)), None):
        stripped += prefix
        outside += [name for name in tensors if not name.startswith(prefix)]
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    for name, value in tensors.items():
        _require_plain(name, value, where)
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{where}: {some(broken)} {'has' if len(broken) == 1 else 'have'} values that are not finite. "
            "The training diverged or the file is damaged; take an earlier checkpoint."
        )
    return Checkpoint(tensors, tuple(wrappers), prefix=stripped, outside=tuple(outside))


def _is_around(prefix: str, names: Collection[str]) -> bool:
    """Whether a prefix is that of a module around the network, which may have a few tensors of its own."""
    return sum(name.startswith(prefix) for name in names) > 0.9 * len(names)


def _require_plain(name: str, value: Tensor, where: str) -> None:
    """Raises UserError for a tensor that is more than its numbers: sparse, quantised, without any, or a few of them
    again and again, which a check or a copy would make terabytes of."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        kind = "quantised" if value.is_quantized else "without values" if value.is_meta else "sparse"
        raise UserError(f"{where}: {name} is {kind}; expected ordinary tensors. Save the state dict of a float model.")
    # one without numbers may have any sides beside the 0
    most = value.untyped_storage().nbytes() if value.numel() else 1 << 40
    if math.prod(max(side, 1) for side in value.shape) * value.element_size() > most:
        raise UserError(
            f"{where}: {name} is of shape {tuple(value.shape)}, but the file has only "
            f"{value.untyped_storage().nbytes():,} bytes of it, used again and again. Save it with .contiguous()."
        )


def some(names: Sequence[str], limit: int = 10) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shown, names[:limit])) + more
