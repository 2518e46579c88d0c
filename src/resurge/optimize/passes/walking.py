"""How a pass finds the layers it rewrites."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replace_each(
    model: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...], build: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """`model` with every module of this kind replaced by `build(module)`, innermost first, itself included.

    A module that stands in several places is built once, and the new one stands in all of them.
    """
    done: dict[int, nn.Module] = {}
    kept: list[nn.Module] = []  # an id is only of use while its module lives

    def visit(module: nn.Module) -> nn.Module:
        if id(module) in done:
            return done[id(module)]
        kept.append(module)
        for name, child in list(module._modules.items()):  # named_children() leaves out the second name of a child
            if child is None:
                continue
            new = visit(child)
            if new is not child:
                setattr(module, name, new)
        done[id(module)] = build(module) if isinstance(module, kind) else module
        return done[id(module)]

    return visit(model)
