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
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from resurge.errors import UserError, suggest
from resurge.optimize.passes.attention import (
    absorb_mix,
    flat_attention,
    fused_mix,
    joint_pool,
    one_product,
    pool_before_mix,
    separate_splits,
)
from resurge.optimize.passes.chains import separate_pieces
from resurge.optimize.passes.folding import fold_norms
from resurge.optimize.passes.fusing import fuse_convolutions
from resurge.optimize.passes.grouping import groups_of
from resurge.optimize.passes.squeezing import early_squeeze
from resurge.optimize.passes.tidying import tidy
from resurge.tasks.running import smooth_outputs


@dataclass(frozen=True)
class Pass:
    """A rewriting by name.

    apply: takes a model in evaluation mode that it may change, and returns the rewritten one.
    when: `always` costs nothing in any runtime on a processor and in any compiled one; in PyTorch's eager mode on a GPU
    these are measured too. The others are forms between which is chosen by measuring: `measured` once for a network,
    `layer` for each layer of its own, `cuda` once for a network on a GPU.
    """

    name: str
    summary: str
    apply: Callable[[nn.Module], nn.Module]
    when: Literal["always", "measured", "layer", "cuda"] = "always"


PASSES: dict[str, Pass] = {
    each.name: each
    for each in (
        Pass("fold_norms", "batch normalisation becomes part of the convolution or linear layer before it", fold_norms),
        Pass("flat_attention", "two branches are weighted by a sigmoid, more by a flat softmax", flat_attention),
        Pass("early_squeeze", "squeeze-and-excitation pools the narrow map before the expansion", early_squeeze),
        Pass("pool_before_mix", "branches are pooled, then weighted, on a quarter of the pixels", pool_before_mix),
        Pass("separate_splits", "a reduction and a convolution a split instead of slices", separate_splits, "measured"),
        Pass("joint_pool", "branches that come from one layer are pooled by one mean", joint_pool),
        Pass(
            "absorb_mix", "the sum of two weighted branches is taken by the expansion behind it", absorb_mix, "measured"
        ),
        Pass(
            "absorb_narrow_mix",
            "the same where the branches have at most 128 channels",
            partial(absorb_mix, widest=128),
            "measured",
        ),
        Pass("one_product", "two branches are scaled by one product, the halves of it added", one_product, "measured"),
        Pass("fused_mix", "the weighted sum of two branches is one kernel on a GPU", fused_mix, "cuda"),
        Pass(
            "separate_pieces",
            "a reduction for each piece of a Res2 block instead of slices",
            separate_pieces,
            "measured",
        ),
        *(
            Pass(
                f"groups_of_{width}",
                f"no group of a convolution is narrower than {width} channels, some products are with zero",
                partial(groups_of, width),
                "layer",
            )
            for width in (16, 32, 64)
        ),
        Pass("tidy", "dropout, drop path and identities go; a convolution and its activation are a row", tidy),
        Pass("fuse_convolutions", "convolution, bias, residual sum and ReLU are one kernel", fuse_convolutions, "cuda"),
        Pass(
            "fuse_dense_convolutions",
            "the same, but grouped convolutions stay as they are",
            partial(fuse_convolutions, grouped=False),
            "cuda",
        ),
    )
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
        if name not in PASSES:
            raise UserError(f"unknown pass {name!r}; there are {', '.join(PASSES)}.{suggest(name, PASSES)}")
    plain = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    new = copy.deepcopy(plain).eval().requires_grad_(False)
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

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


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
    for few in images.split(batch_size):
        old, new = list(smooth_outputs(before, few)), list(smooth_outputs(after, few))
        if [x.shape for x in old] != [x.shape for x in new]:
            shapes = [tuple(x.shape) for x in old], [tuple(x.shape) for x in new]
            raise UserError(f"the two forms put out different shapes, {shapes[0]} and {shapes[1]}.")
        for number, (x, y) in enumerate(zip(old, new, strict=True)):
            difference = (x.double() - y.double()).abs().nan_to_num(nan=math.inf, posinf=math.inf)
            apart[number] = max(apart.get(number, 0.0), float(difference.max()))
            peaks[number] = max(peaks.get(number, 0.0), float(x.abs().max()))
        if len(old) == 1 and old[0].shape[1] > 1:
            agreed = old[0].argmax(1) == new[0].argmax(1)
            same, decisions = same + int(agreed.sum()), decisions + agreed.numel()
    agreement = same / decisions if decisions else None
    relative = max(_share(apart[number], peak) for number, peak in peaks.items())
    return Certificate(len(images), max(apart.values()), relative, agreement)


def _share(difference: float, peak: float) -> float:
    return difference / max(peak, torch.finfo(torch.float64).tiny) if math.isfinite(difference) else math.inf
