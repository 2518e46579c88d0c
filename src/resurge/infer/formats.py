"""The formats of exports: one entry each in `FORMATS`. Imports no torch and no runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from resurge.plugins import Table, instance_of

PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class Format:
    """A format. Classes and functions are named as "module:name" and imported when they are used.

    files: what it consists of; the first is the one to open.
    engine: the class that runs it, made of an `Export`, a device and a number of threads; see
        `resurge.infer.engines.engine.Engine`.
    writer: the function that writes it; see `resurge.export.convert.Writer`.
    quantizer: the class of its int8, made of a folder; see `resurge.export.quantize.Quantizer`. Nothing: no int8.
    packages: those it is written and run with, whose versions model.json states. helpers: further ones to write it.
    impossible: precisions that it does not have, and why.
    stores_arithmetic: whether the arithmetic is part of the file; else its engine sets it when it is loaded.
    """

    files: tuple[str, ...]
    engine: str
    writer: str
    quantizer: str = ""
    packages: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)
    stores_arithmetic: bool = True

    @property
    def file(self) -> str:
        """The file to open."""
        return self.files[0]


_OWN = {
    "onnx": Format(
        files=("model.onnx",),
        engine="resurge.infer.engines.onnx:OnnxEngine",
        writer="resurge.export.convert:write_onnx",
        quantizer="resurge.export.quantize:OnnxQuantizer",
        packages=("onnx", "onnxruntime"),
        helpers=("onnxscript",),
        impossible={
            "bf16": "ONNX Runtime has no bf16 convolution on a processor. Use --format openvino or torch for bf16, or "
            "--precision fp16 or int8 for onnx."
        },
    ),
    "openvino": Format(
        files=("model.xml", "model.bin"),
        engine="resurge.infer.engines.openvino:OpenVinoEngine",
        writer="resurge.export.convert:write_openvino",
        quantizer="resurge.export.quantize:OpenVinoQuantizer",
        packages=("onnx", "openvino"),
        helpers=("onnxscript",),
        stores_arithmetic=False,
    ),
    "torch": Format(
        files=("model.pt2",),
        engine="resurge.infer.engines.torch:ProgramEngine",
        writer="resurge.export.convert:write_program",
        packages=("torch",),
        impossible={"int8": "a torch program is not quantised here. Use --format openvino or onnx for int8."},
    ),
}


FORMATS: Mapping[str, Format] = Table("export", _OWN, instance_of(Format))
"""By name."""
