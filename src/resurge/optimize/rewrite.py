"""Exact rewriting for inference: the same function of the image, written so that it runs faster.

A trained network carries what only training needs, and its layers stand in the form that is best to learn in. Each
`Pass` changes one of these things and nothing about what the network computes, up to the rounding of floating point:

    model = rewrite(trained)                    # every pass that is always worth it, in order
    certificate = certify(trained, model, images)

The passes work on any model of this project (a backbone, a classifier, a segmenter, a detector), and on whatever
weights were loaded into one. docs/performance.md has the equation of each.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from resurge.arch.backbone import uncompiled
from resurge.errors import UserError, require_one_of
from resurge.optimize.passes import attention
from resurge.optimize.passes.blocks import early_squeeze, fuse_convolutions, separate_pieces
from resurge.optimize.passes.layers import fold_norms, groups_of, tidy
from resurge.tasks.running import smooth_outputs


@dataclass(frozen=True)
class Pass:
    """A rewriting.

    apply: takes a model in evaluation mode that it may change, and returns the rewritten one.
    when: `always` costs nothing in any runtime on a processor and in any compiled one; in PyTorch's eager mode on a GPU
    these are measured too. The others are forms between which is chosen by measuring: `measured` once for a network,
    `layer` for each layer of its own, `cuda` once for a network on a GPU.
    """

    apply: Callable[[nn.Module], nn.Module]
    when: Literal["always", "measured", "layer", "cuda"] = "always"


PASSES: dict[str, Pass] = {
    "fold_norms": Pass(fold_norms),
    "flat_attention": Pass(attention.flat_attention),
    "early_squeeze": Pass(early_squeeze),
    "pool_before_mix": Pass(attention.pool_before_mix),
    "separate_splits": Pass(attention.separate_splits, "measured"),
    "joint_pool": Pass(attention.joint_pool),
    "absorb_mix": Pass(attention.absorb_mix, "measured"),
    "absorb_narrow_mix": Pass(partial(attention.absorb_mix, widest=128), "measured"),
    "one_product": Pass(attention.one_product, "measured"),
    "fused_mix": Pass(attention.fused_mix, "cuda"),
    "separate_pieces": Pass(separate_pieces, "measured"),
    **{f"groups_of_{width}": Pass(partial(groups_of, width), "layer") for width in (16, 32, 64)},
    "tidy": Pass(tidy),
    "fuse_convolutions": Pass(fuse_convolutions, "cuda"),
    "fuse_dense_convolutions": Pass(partial(fuse_convolutions, grouped=False), "cuda"),
}
"""All passes, in the order in which they are applied."""

ALWAYS = tuple(name for name, each in PASSES.items() if each.when == "always")


def rewrite(model: nn.Module, passes: Sequence[str] | None = None) -> nn.Module:
    """The same function in another form: a new module in evaluation mode, whose weights take no gradients.

    Args:
        model: any model of this project; it stays as it is.
        passes: names from `PASSES`; None for those that are always worth it. They are applied in the order of `PASSES`.

    Raises:
        UserError: there is no such pass.
    """
    names = ALWAYS if passes is None else tuple(passes)
    for name in names:
        require_one_of("pass", name, PASSES)
    new = copy.deepcopy(uncompiled(model)).eval().requires_grad_(False)
    with torch.no_grad():
        for name, each in PASSES.items():
            if name in names:
                new = each.apply(new)
    return new.eval().requires_grad_(False)


@dataclass(frozen=True)
class Certificate:
    """How far two forms of a model are apart on some images.

    images: how many. difference: the largest, in the unit of the output; infinite where an output is not a number.
    relative: the largest as a share of the largest value of its output, of several outputs the worst. agreement: share
    of decisions (the largest class of an image, of a pixel) that are the same; None where the outputs are not classes.
    """

    images: int
    difference: float
    relative: float
    agreement: float | None


@torch.no_grad()
def certify(before: nn.Module, after: nn.Module, images: Tensor, *, batch_size: int = 8) -> Certificate:
    """Compare two forms of a model on images (N, C, H, W), a few at a time.

    Of a detector what all its heads put out is compared, since which boxes are kept is a matter of thresholds; see
    `resurge.tasks.running.smooth_outputs`.

    Raises:
        UserError: there are no images, or the forms put out different shapes.
    """
    if not len(images):
        raise UserError("a certificate needs at least one image.")
    apart: dict[int, float] = {}  # by number of the output: the largest difference, and the largest value
    peaks: dict[int, float] = {}
    same = decisions = 0
    for few in images.split(batch_size):  # type: ignore[no-untyped-call]
        old, new = list(smooth_outputs(before, few)), list(smooth_outputs(after, few))
        if [x.shape for x in old] != [x.shape for x in new]:
            shapes = [tuple(x.shape) for x in old], [tuple(x.shape) for x in new]
            raise UserError(f"the two forms put out different shapes, {shapes[0]} and {shapes[1]}.")
        for number, (x, y) in enumerate(zip(old, new, strict=True)):
            difference = (x.double() - y.double()).abs().nan_to_num(nan=math.inf, posinf=math.inf)
            apart[number] = max(apart.get(number, 0.0), float(difference.max()))
            peaks[number] = max(peaks.get(number, torch.finfo(torch.float64).tiny), float(x.abs().max()))
        if len(old) == 1 and old[0].shape[1] > 1:
            agreed = old[0].argmax(1) == new[0].argmax(1)
            same, decisions = same + int(agreed.sum()), decisions + agreed.numel()
    agreement = same / decisions if decisions else None
    relative = max(apart[n] / peak if math.isfinite(apart[n]) else math.inf for n, peak in peaks.items())
    return Certificate(len(images), max(apart.values()), relative, agreement)
