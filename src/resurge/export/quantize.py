"""int8 by NNCF, calibrated on images; layers that lose too much are excluded by NNCF's accuracy control.

Weights and the inputs of convolutions and linear layers become 8-bit integers (Jacob et al. 2018, arXiv:1712.05877,
equation 1), weights with a scale per channel. First everything is quantised. If that loses more than is allowed, layers
are ranked by what they lose and excluded one after the other. Of a detector the backbone, the pyramid and the heads
that see whole maps are quantised; coordinates, and layers that run once per box, are not.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from resurge.export.calibration import unreadable
from resurge.export.convert import quiet, save_openvino
from resurge.export.reference import Reference, Runner
from resurge.files import Json
from resurge.infer.engines.engine import need
from resurge.infer.engines.onnx import onnx_session
from resurge.infer.engines.openvino import CompiledShapes, openvino_core
from resurge.infer.formats import FORMATS

if TYPE_CHECKING:
    from resurge.export.settings import ExportSettings

_RANKED = 100  # images that layers are ranked by
# Operators that only move numbers: their output is quantised if their input is.
_MOVES = (
    "MaxPool", "Pad", "Slice", "StridedSlice", "Split", "VariadicSplit", "Reshape", "Flatten", "Transpose", "Squeeze",
)  # fmt: skip
_WEIGHTED = (
    "Conv", "ConvTranspose", "Gemm", "MatMul",
    "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData",
)  # fmt: skip
# Behind these operators there are boxes, whose number depends on the image.
_CHOOSES = ("TopK", "NonMaxSuppression", "NonZero", "RoiAlign", "ROIAlign")
_QUANTIZED = ("FakeQuantize", "DequantizeLinear")


Network = Any  # of OpenVINO or ONNX, or compiled by NNCF; none has types


class Quantizer(Protocol):
    """Networks of a format, as NNCF and this package use them. Made of the folder of an export in fp32.

    model: the network in fp32.
    """

    model: Network

    def graph(self, model: Network) -> list[Node]:
        """The operators of a network, in order."""
        ...

    def runner(self, model: Network) -> Runner:
        """What runs a network, one compiled by NNCF too."""
        ...

    def save(self, model: Network) -> None:
        """Replace the network in the folder."""
        ...


def quantize_folder(folder: Path, settings: ExportSettings, reference: Reference, log: Callable[[str], None]) -> Json:
    """Replace the fp32 network in `folder` by one in int8.

    Returns:
        {"int8": {"calibrated_on", "source", "layers", "aside", "kept"}}: the number of images; where they are from; the
        number of layers with weights; the names of those that run once per box, and of others, that are not in int8.

    Raises:
        UserError: there are no images.
    """
    inputs, source = reference.calibration, reference.data.calibrated_on
    if not inputs:
        raise unreadable(source)
    nncf = need("nncf")
    kind: Quantizer = resolve_name(FORMATS[settings.format].quantizer)(folder)
    excluded = excluded_nodes(kind.graph(kind.model)) if reference.task.takes_sizes else []
    calibration = nncf.Dataset(inputs, reference.calibrating)
    options = {
        "target_device": nncf.TargetDevice.CPU,
        "subset_size": len(inputs),
        "ignored_scope": nncf.IgnoredScope(names=[node.name for node in excluded], validate=False),
    }

    def lost(model: Network) -> float:
        return reference.compare(kind.runner(model), reference.remembered).drop

    # NNCF's log and progress bars go to standard output
    with contextlib.redirect_stdout(io.StringIO()), quiet(), _signal_stack_kept():
        quantized = nncf.quantize(kind.model, calibration, **options)
        if settings.max_drop < 100 and (drop := lost(quantized)) > settings.max_drop:
            # what is lost in this runtime's own arithmetic anyway, which NNCF, computing in fp32, does not see
            left = settings.max_drop - lost(kind.model)
            if left > 0:
                log(f"all in int8 it loses {drop:.2f} points: looking for the layers to keep")
                quantized = _restored(kind, calibration, options, reference, left)
        layers, kept = layers_of(kind.graph(quantized))
        per_box = [node.name for node in excluded if node.kind in _WEIGHTED]
        if not set(per_box) <= set(kept):
            raise AssertionError(f"NNCF quantised excluded layers: {sorted(set(per_box) - set(kept))}")
        kind.save(quantized)
    about = {"calibrated_on": len(inputs), "source": source, "layers": layers}
    return {"int8": {**about, "aside": per_box, "kept": [name for name in kept if name not in per_box]}}


def _restored(kind: Quantizer, calibration: object, options: Json, reference: Reference, max_drop: float) -> Network:
    """Quantised, with layers put back until no more than `max_drop` points are lost."""
    nncf, expected = need("nncf"), reference.remembered
    ranked = min(max(1, _RANKED // reference.kind.batch), len(expected))
    return nncf.quantize_with_accuracy_control(
        kind.model,
        calibration_dataset=calibration,
        validation_dataset=nncf.Dataset(expected),
        validation_fn=lambda model, some: reference.compare(kind.runner(model), some).quality,
        max_drop=max_drop / 100,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=ranked),
        **options,
    )


class Node(NamedTuple):
    """An operator or input of a network. name: as NNCF knows it; reads: where in the list of nodes its inputs are."""

    name: str
    kind: str
    reads: list[int]


def excluded_nodes(graph: Sequence[Node]) -> list[Node]:
    """The nodes of a detector that stay as they are: all that no layer on whole maps reads."""
    readers: list[list[int]] = [[] for _ in graph]
    for number, node in enumerate(graph):
        for each in node.reads:
            readers[each].append(number)
    late = _reached((number for number, node in enumerate(graph) if node.kind in _CHOOSES), readers)
    layers = (number for number, node in enumerate(graph) if node.kind in _WEIGHTED and number not in late)
    wanted = _reached(layers, [node.reads for node in graph])
    return [node for number, node in enumerate(graph) if number not in wanted]


def _reached(begin: Iterable[int], leads_to: Sequence[Iterable[int]]) -> set[int]:
    found = set(begin)
    ahead = list(found)
    while ahead:
        new = set(leads_to[ahead.pop()]) - found
        found |= new
        ahead += new
    return found


def layers_of(graph: Sequence[Node]) -> tuple[int, list[str]]:
    """The number of layers with weights, and the names of those whose input is not in int8."""

    def source(node: Node) -> str:
        before = graph[node.reads[0]] if node.reads else node
        return source(before) if before.kind in _MOVES else before.kind

    layers = [node for node in graph if node.kind in _WEIGHTED]
    return len(layers), [node.name for node in layers if source(node) not in _QUANTIZED]


class OpenVinoQuantizer:
    """OpenVINO models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.core = openvino_core()
        self.model: Network = self.core.read_model(folder / FORMATS["openvino"].file)

    def graph(self, model: Network) -> list[Node]:
        ops = model.get_ordered_ops()
        number = {op.get_name(): i for i, op in enumerate(ops)}  # friendly names need not differ
        reads = [[number[value.get_node().get_name()] for value in op.input_values()] for op in ops]
        return [Node(op.get_friendly_name(), op.get_type_name(), each) for op, each in zip(ops, reads, strict=True)]

    def runner(self, model: Network) -> Runner:
        if hasattr(model, "create_infer_request"):  # NNCF's accuracy control compiles for itself
            names = [output.get_any_name() for output in model.outputs]
            return lambda inputs: dict(zip(names, map(np.array, model(inputs).values()), strict=True))
        return CompiledShapes(model, lambda each: self.core.compile_model(each, "CPU"), always_fixed=True)

    def save(self, model: Network) -> None:
        # The model that was read still looks into its file, which therefore may be replaced but not overwritten.
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            save_openvino(model, Path(scratch), halve=False)
            for name in FORMATS["openvino"].files:
                os.replace(Path(scratch, name), self.folder / name)


class OnnxQuantizer:
    """ONNX models."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FORMATS["onnx"].file
        self.onnx = need("onnx")
        self.model: Network = self.onnx.load(self.path)

    def graph(self, model: Network) -> list[Node]:
        values: list[tuple[Iterable[str], str, str, Iterable[str]]]
        values = [((), each.name, "Input", [each.name]) for each in model.graph.input]
        values += [(each.input, each.name, each.op_type, each.output) for each in model.graph.node]
        number = {name: i for i, (*_, outputs) in enumerate(values) for name in outputs}
        return [
            Node(name, kind, [number[each] for each in inputs if each in number]) for inputs, name, kind, _ in values
        ]

    def runner(self, model: Network) -> Runner:
        session = onnx_session(model.SerializeToString())
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))

    def save(self, model: Network) -> None:
        self.onnx.save(model, self.path)
        self.onnx.checker.check_model(str(self.path), full_check=True)


class _SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Leave this thread the alternative signal stack that it came with.

    NNCF makes OpenVINO cores and drops them in another order than it made them. Each brings its own signal stack and
    puts back the one before it, which by then may be gone: the next signal would end the process.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    set_stack = ctypes.CDLL(None, use_errno=True).sigaltstack
    before = _SignalStack()
    known = set_stack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            set_stack(ctypes.byref(before), None)
