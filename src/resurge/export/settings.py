"""What is exported, and the errors that can be found before a network is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from resurge.errors import UserError, require_one_of
from resurge.export.forms import form_of
from resurge.infer.engines.engine import need
from resurge.infer.formats import FORMATS, PRECISIONS

MAX_DROP = 0.5


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
        form: rewriting passes beside those that are always applied; None for those of `resurge.export.forms`.
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
