"""What runs an exported network: one file per format, of which only the one that is used imports its runtime.

What each makes of a precision:

| | fp32 | bf16 | fp16 | int8 |
|---|---|---|---|---|
| openvino | as it says | arithmetic in bf16 | weights stored in fp16; arithmetic too where the CPU has it | as quantised; the rest as OpenVINO likes |
| onnx | as it says | not exported: ONNX Runtime has no bf16 convolution on a CPU | stored; a CPU computes in fp32 | as quantised, the rest in fp32 |
| torch | as it says | arithmetic in bf16 | arithmetic in fp16 | not exported |

Where a processor lacks the arithmetic, OpenVINO computes in fp32; torch emulates it, which gives the same results and
takes several times as long as fp32. Both say so in `notes`.

What was checked against its hash is what runs, also when a file is overwritten later: nothing that is loaded still
reads from a file, and one that has to be read again is checked again.
"""  # noqa: E501

from __future__ import annotations

from pkgutil import resolve_name

from resurge.infer.engines.engine import Engine
from resurge.infer.folder import Export
from resurge.infer.formats import FORMATS


def open_engine(export: Export, device: str = "auto", threads: int | None = None) -> Engine:
    """The engine of an export, loaded.

    Args:
        device: auto or cpu; cuda where the runtime has it.
        threads: of the arithmetic; None leaves it to the runtime, which takes a thread per physical core.

    Raises:
        UserError: the runtime is not installed, does not have the device, or cannot read the file.
    """
    engine: Engine = resolve_name(FORMATS[export.format].engine)(export, device, threads)
    return engine


__all__ = ["Engine", "open_engine"]
