"""Where an infinity or a not-a-number came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn


def _finite(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())


def first_nonfinite(named: Iterable[tuple[str, object]]) -> str | None:
    """The name of the first tensor that holds an infinity or not-a-number."""
    return next((name for name, value in named if not _finite(value)), None)


def first_nonfinite_module(model: nn.Module, run: Callable[[], object]) -> str | None:
    """The first module, in the order of the computation, whose output is not finite.

    `run` computes the model's output once more; children finish before their parents, so the name is the innermost
    module's. None: every module's output is finite.
    """
    found: list[str] = []

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def check(module: nn.Module, inputs: object, output: object) -> None:
            if not found and not _finite(output):
                found.append(name)

        return check

    with ExitStack() as handles, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                handles.enter_context(module.register_forward_hook(hook(name)))
        run()
    return found[0] if found else None


def explain_divergence(model: nn.Module, images: Tensor, run: Callable[[], object]) -> tuple[str, str | None]:
    """One sentence on where the first bad value arose, and the module's name (None when it is not in a module).

    `run` must repeat the step's forward pass, random numbers included.
    """
    if not _finite(images):
        return "The images themselves hold values that are infinite or not a number", None
    module = first_nonfinite_module(model, run)
    if module is None:
        return "Every module's output is finite; the loss itself overflowed", None
    weight = first_nonfinite(model.get_submodule(module).named_parameters(recurse=False))
    if weight is None:
        return f"The first module whose output is infinite or not a number is {module}", module
    sentence = f"The {weight} of module {module} is already infinite or not a number: the previous step was too large"
    return sentence, module
