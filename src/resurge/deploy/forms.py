"""The form of a network for a runtime: which of the equivalent ones ran fastest where it was measured.

What was measured stands in docs/performance.md; `benchmarks/forms.py` measures it again. `resurge.deploy.optimize` does
so on the machine it runs on, for PyTorch.
"""

from __future__ import annotations

from torch import nn

from resurge.deploy.rewrite import ALWAYS, rewrite

# Dense convolutions of their own need no reordering of channels and no copies of slices.
SPLITS = ("separate_splits",)
# Groups of sixteen channels fill a vector or a tile; in fp32 OpenVINO is faster with the groups as they are.
SPLITS_AND_GROUPS = (*SPLITS, "groups_of_16")

FORMS: dict[tuple[str, str], tuple[str, ...]] = {
    ("openvino", "fp32"): SPLITS,
    ("openvino", "bf16"): SPLITS_AND_GROUPS,
    ("openvino", "int8"): SPLITS_AND_GROUPS,
    ("onnx", "fp32"): SPLITS_AND_GROUPS,
    ("onnx", "int8"): SPLITS_AND_GROUPS,
}
"""Passes beside `ALWAYS`, by format and precision."""


def rewritten_for(model: nn.Module, format: str, precision: str) -> nn.Module:
    """The model rewritten exactly, in the form for this runtime and precision.

    Args:
        format: onnx, openvino or torch. precision: fp32, bf16, fp16 or int8.
    """
    return rewrite(model, (*ALWAYS, *FORMS.get((format, precision), ())))
