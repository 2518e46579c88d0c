"""Devices, precision and evaluation mode: what everything that runs a network in torch needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from resurge.errors import UserError
from resurge.explain.cost import in_mode


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or the best there is. Raises UserError when it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    kind = name.partition(":")[0]
    if kind not in available:
        raise UserError(f"device must be auto, cpu, cuda or mps, not {name!r}.")
    if not available[kind]:
        raise UserError(f"there is no {kind} device here that torch can use; try --device cpu.")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"device must be auto, cpu, cuda or mps, or one with a number (cuda:1); not {name!r}."
        ) from None
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there are {torch.cuda.device_count()} GPUs here, numbered from 0; {name} is not one of them.")
    return device


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside the block; every module's own mode after it."""
    with in_mode(model, training=False), torch.inference_mode():
        yield


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass computes in `precision`: fp32, bf16 or fp16."""
    kinds = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in kinds:
        raise UserError(f"precision must be fp32, bf16 or fp16, not {precision!r}.")
    kind = kinds[precision]
    return contextlib.nullcontext() if kind is None else torch.autocast(device.type, kind)


def smooth_outputs(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """The outputs of a model for images (N, C, H, W) that are smooth functions of them, so that two forms of it can be
    compared, in its own type; of a detector those of its own `smooth_outputs`."""
    own = getattr(model, "smooth_outputs", None)
    found = model(images) if own is None else own(images)
    if isinstance(found, Tensor):
        yield found
    else:
        yield from found.values() if isinstance(found, Mapping) else found
