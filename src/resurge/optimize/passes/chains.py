"""Res2 blocks without slices: each piece comes from a reduction of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resurge.arch.blocks import Residual
from resurge.arch.layers import ConvNormAct
from resurge.arch.transforms import Res2Conv
from resurge.optimize.passes.cutting import by_outputs, is_plain
from resurge.optimize.passes.walking import replace_each


class PieceByPiece(nn.Module):
    """`Res2Conv` with the reduction before it: (N, cin, H, W) -> (N, C, H/stride, W/stride).

    reductions: one for each piece, all of the whole input. convs: for all pieces but the last, and for the only one.
    """

    def __init__(
        self, reductions: Sequence[nn.Module], convs: Sequence[nn.Module], pool: nn.Module, carries: bool
    ) -> None:
        super().__init__()
        self.reductions = nn.ModuleList(reductions)
        self.convs = nn.ModuleList(convs)
        self.pool = pool
        self.carries = carries

    def forward(self, x: Tensor) -> Tensor:
        pieces = [reduce(x) for reduce in self.reductions]
        outputs: list[Tensor] = []
        for i, conv in enumerate(self.convs):
            outputs.append(conv(pieces[i] + outputs[-1] if self.carries and i else pieces[i]))
        if len(pieces) > len(outputs):
            outputs.append(self.pool(pieces[-1]))
        return torch.cat(outputs, dim=1)


def separate_pieces(model: nn.Module) -> nn.Module:
    """The reduction before a Res2 transform becomes one for each piece."""
    return replace_each(model, Residual, _separated)


def _separated(block: nn.Module) -> nn.Module:
    if not isinstance(block, Residual) or not isinstance(block.transform, Res2Conv):
        return block
    reduce, res2 = block.reduce, block.transform
    if not isinstance(reduce, ConvNormAct) or not is_plain(reduce) or not isinstance(res2.adapt, nn.Identity):
        return block
    block.transform = PieceByPiece(by_outputs(reduce, res2.scale), list(res2.convs), res2.pool, res2.carries)
    block.reduce = nn.Identity()
    return block
