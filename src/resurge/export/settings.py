"""What is exported and in which form, and the errors that can be found before a network is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from resurge.errors import UserError, require_one_of
from resurge.infer.engines.engine import need
from resurge.infer.formats import FORMATS, PRECISIONS
from resurge.optimize.rewrite import ALWAYS, PASSES, rewrite

MAX_DROP = 0.5

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
"""Passes beside `ALWAYS`, by format and precision: of the equivalent forms of a network the fastest, or the smallest of
those equally fast. What was measured stands in docs/performance.md; `benchmarks/forms.py` measures it again, and
`resurge.optimize.autotune` does so on the machine it runs on, for PyTorch.
"""

EXPORTED = tuple(name for name, each in PASSES.items() if each.when in ("measured", "layer"))
"""Passes that may be chosen in their place; a kernel for a GPU is in no file."""


@dataclass(frozen=True)
class ExportSettings:
    """What is exported.

    Attributes:
        format: onnx, openvino or torch.
        precision: fp32, bf16, fp16 or int8; see `resurge.infer.engines`.
        decide: of a segmenter: the outputs are the class of every pixel in place of logits.
        raw: of a detector: the outputs are the candidates before threshold and suppression.
        calibrate: images for int8 and for the comparison, as `resurge.export.calibration.gather` takes them.
        images: how many to compare on, at most; None for 500, of a detector 50.
        max_drop: points of accuracy that may be lost.
        form: rewriting passes beside those that are always applied; None for those of `FORMS`.
    """

    format: str = "onnx"
    precision: str = "fp32"
    decide: bool = False
    raw: bool = False
    calibrate: str | None = None
    images: int | None = None
    max_drop: float = MAX_DROP
    form: tuple[str, ...] | None = None

    def check(self) -> None:
        """Check the format, the precision, the form and the packages.

        Raises:
            UserError: one of them is unknown, they do not go together, or a package is not installed.
        """
        for word, known, what in ((self.format, FORMATS, "format"), (self.precision, PRECISIONS, "precision")):
            require_one_of(what, word, known)
        format = FORMATS[self.format]
        if self.precision in format.impossible:
            raise UserError(f"{self.format} with {self.precision} cannot be made: {format.impossible[self.precision]}")
        if self.precision == "int8" and not format.quantizer:
            raise UserError(f"{self.format} with int8 cannot be made. Use --format openvino or onnx for int8.")
        form_of(self.format, self.precision, self.form)
        for name in (*format.packages, *format.helpers, *self._quantizing):
            need(name)

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages whose versions model.json states."""
        return tuple(dict.fromkeys(("resurge", "torch", *FORMATS[self.format].packages, *self._quantizing)))

    @property
    def _quantizing(self) -> tuple[str, ...]:
        return ("nncf",) if self.precision == "int8" else ()


def form_of(format: str, precision: str, form: Sequence[str] | None = None) -> tuple[str, ...]:
    """The passes beside `ALWAYS` for this runtime and precision.

    Args:
        format: onnx, openvino or torch. precision: fp32, bf16, fp16 or int8.
        form: passes beside `ALWAYS`; None for those of `FORMS`.

    Raises:
        UserError: there is no such pass for an export.
    """
    if form is None:
        return FORMS.get((format, precision), ())
    for name in form:
        require_one_of("form", name, EXPORTED)
    return tuple(form)


def rewritten_for(model: nn.Module, format: str, precision: str, form: Sequence[str] | None = None) -> nn.Module:
    """The model rewritten exactly, in the form that `form_of` names."""
    return rewrite(model, (*ALWAYS, *form_of(format, precision, form)))
