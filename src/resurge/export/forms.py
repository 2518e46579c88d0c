"""The form of a network for a runtime: of the equivalent ones the fastest, or the smallest of those equally fast.

What was measured stands in docs/performance.md; `benchmarks/forms.py` measures it again.
`resurge.optimize.autotune` does so on the machine it runs on, for PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from resurge.errors import require_one_of
from resurge.optimize.rewrite import ALWAYS, PASSES, rewrite

# Dense convolutions of their own need no reordering of channels and no copies of slices.
SPLITS = ("separate_splits",)
# Groups of sixteen channels fill a vector or a tile; in fp32 OpenVINO is faster with the groups as they are.
SPLITS_AND_GROUPS = (*SPLITS, "groups_of_16")
# In ONNX Runtime the forms of split attention are equally fast in floating point; this one has the fewest nodes.
FEW_NODES = ("absorb_narrow_mix", "one_product")

FORMS: dict[tuple[str, str], tuple[str, ...]] = {
    ("openvino", "fp32"): SPLITS,
    ("openvino", "bf16"): SPLITS_AND_GROUPS,
    ("openvino", "int8"): SPLITS_AND_GROUPS,
    ("onnx", "fp32"): (*FEW_NODES, "groups_of_16"),
    ("onnx", "fp16"): FEW_NODES,
    ("onnx", "int8"): SPLITS_AND_GROUPS,
}
"""Passes beside `ALWAYS`, by format and precision."""


EXPORTED = tuple(name for name, each in PASSES.items() if each.when in ("measured", "layer"))
"""Passes that can be asked for beside `ALWAYS`; a kernel for a GPU is in no file."""


def form_of(format: str, precision: str, asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """The passes beside `ALWAYS` for this runtime and precision.

    Args:
        format: onnx, openvino or torch. precision: fp32, bf16, fp16 or int8.
        asked: other passes in their place; None for those of `FORMS`.

    Raises:
        UserError: there is no such pass for an export.
    """
    if asked is None:
        return FORMS.get((format, precision), ())
    for name in asked:
        require_one_of("form", name, EXPORTED)
    return tuple(asked)


def rewritten_for(model: nn.Module, format: str, precision: str, asked: Sequence[str] | None = None) -> nn.Module:
    """The model rewritten exactly, in the form that `form_of` names."""
    return rewrite(model, (*ALWAYS, *form_of(format, precision, asked)))
