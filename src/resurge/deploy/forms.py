"""The form of a network for a runtime: which of the equivalent ones ran fastest where it was measured.

What was measured stands in docs/performance.md. `resurge.deploy.optimize` measures on the machine it runs on.
"""

from __future__ import annotations

from torch import nn

from resurge.deploy.rewrite import ALWAYS, rewrite

FORMS: dict[tuple[str, str], tuple[str, ...]] = {
    # dense convolutions of their own need no reordering of channels and no copies of slices
    ("openvino", "fp32"): ("separate_splits",),
    ("openvino", "bf16"): ("separate_splits",),
    # products are cheap in 8 bits, and every operation between two convolutions is not
    ("openvino", "int8"): ("absorb_mix",),
    ("onnx", "int8"): ("absorb_mix",),
}
"""Passes beside `ALWAYS`, by format and precision."""


def rewritten_for(model: nn.Module, format: str, precision: str) -> nn.Module:
    """The model rewritten exactly, in the form for this runtime and precision.

    Args:
        format: onnx, openvino or torch. precision: fp32, bf16, fp16 or int8.
    """
    return rewrite(model, (*ALWAYS, *FORMS.get((format, precision), ())))
