"""Files of weights -> plain dictionaries of tensors, without ever running what a pickle asks for."""

from __future__ import annotations

import argparse
import os
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from resurge.errors import UserError, first_line
from resurge.weights.download import looks_like_web_page

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
# Where training scripts put the weights inside what they save. An exponential moving average comes first, because
# the score that such a file is published with was measured on it.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "params_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "params",
    "net",
    "network",
    "weights",
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")  # DataParallel, compile, Lightning, ...


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the tensors, the wrappers they were taken out of, and the safetensors metadata."""

    tensors: dict[str, Tensor]
    wrappers: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a `.safetensors` file or a PyTorch pickle (`weights_only=True`, nothing else).

    Raises:
        UserError: the file is missing, cut short, a web page, not of these formats, or would run code; or it holds
            anything but finite tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"expected a file of weights ({', '.join(SUFFIXES)}), but {path} does not exist.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    if looks_like_web_page(head):
        raise UserError(f"{path} is a web page, not weights: download the file itself.")
    # The suffix alone is not trusted: a safetensors file starts with the length of a JSON header.
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    return unwrap(_read_pickle(path), str(path))


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): it was cut short or is of another kind. Get it again."
        ) from error
    found = unwrap(tensors, str(path))
    return Checkpoint(found.tensors, found.wrappers, metadata)


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

    `module.`, `model.` and the like are stripped when every name has them; `_orig_mod.` everywhere.

    Raises:
        UserError: `content` is no dictionary of tensors, or one of them has values that are not finite.
    """
    wrappers: list[str] = []
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
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
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{where}: {some(broken)} {'has' if len(broken) == 1 else 'have'} values that are not finite. "
            "The training diverged or the file is damaged; take an earlier checkpoint."
        )
    return Checkpoint(tensors, tuple(wrappers))


def some(names: Sequence[str], limit: int = 10) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
