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
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resurge.data.preprocessing import Values
from resurge.export.calibration import BATCH, Material, unreadable
from resurge.export.convert import quiet, save_openvino
from resurge.export.fidelity import Comparison, Told, compare
from resurge.export.settings import ExportSettings
from resurge.files import Json
from resurge.infer.engines.engine import INPUT, need
from resurge.infer.engines.openvino import openvino_core
from resurge.infer.engines.shapes import CompiledShapes
from resurge.infer.folder import FILES

if TYPE_CHECKING:
    from resurge.export.fidelity_objects import ObjectComparison
    from resurge.export.settings import ExportSettings

CALIBRATION = 300  # images, NNCF's own default
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

Ask = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
"""Inputs by name -> outputs by name."""


@dataclass(frozen=True)
class Trial:
    """How int8 is calibrated and validated.

    Attributes:
        inputs: of the calibration, by name, one image each.
        references: images with the outputs of the run, `batch` in each item.
        compare: a network's outputs for some of the references, compared with those of the run.
        finds: it is a detector, whose boxes are not quantised.
    """

    inputs: Sequence[dict[str, np.ndarray]]
    references: Sequence[Any]
    compare: Callable[[Ask, Iterable[Any]], Comparison | ObjectComparison]
    batch: int
    finds: bool = False


def classes_trial(material: Material, preprocessing: Values, told: Sequence[Told]) -> Trial:
    """For a classifier or a segmenter.

    Args:
        material: with the images of the calibration.
        told: images on which accuracy is measured, with the outputs of the run.
    """
    pictures = material.calibration.few(CALIBRATION)
    questions = [{INPUT: batch.images} for batch in pictures.batches(preprocessing, 1)]

    def compared(ask: Ask, some: Iterable[Told]) -> Comparison:
        return compare(some, lambda images: ask({INPUT: images}))

    return Trial(questions, told, compared, BATCH)


def quantize_folder(
    folder: Path, settings: ExportSettings, trial: Trial, source: str, say: Callable[[str], None]
) -> Json:
    """Put an int8 network in the place of the fp32 one in `folder`.

    Args:
        source: what the images of the calibration are, in words.

    Returns:
        {"int8": {"calibrated_on", "source", "layers", "aside", "kept"}}: the number of images; where they are from; the
        number of layers with weights; the names of those that run once per box, and of others, that are not in int8.

    Raises:
        UserError: there are no images.
    """
    if not trial.inputs:
        raise unreadable(source)
    nncf = need("nncf")
    kind = _Onnx(folder) if settings.format == "onnx" else _OpenVino(folder)
    excluded = excluded_nodes(kind.graph()) if trial.finds else []
    calibration = nncf.Dataset(trial.inputs)
    options = {
        "target_device": nncf.TargetDevice.CPU,
        "subset_size": len(trial.inputs),
        "ignored_scope": nncf.IgnoredScope(names=[node.name for node in excluded], validate=False),
    }
    with _silent(), quiet(), _signal_stack_kept():
        quantized = nncf.quantize(kind.model, calibration, **options)
        drop = trial.compare(kind.runner(quantized), trial.references).drop
        if drop > settings.max_drop:
            # what is lost in this runtime's own arithmetic anyway, which NNCF, computing in fp32, does not see
            rest = trial.compare(kind.runner(kind.model), trial.references).drop
            if rest < settings.max_drop:
                say(f"all in int8 it loses {drop:.2f} points: looking for the layers to keep")
                quantized = _restored(nncf, kind, calibration, options, trial, settings.max_drop - rest)
        layers, kept = kind.layers(quantized)
        left = [node.name for node in excluded if node.kind in _WEIGHTED]
        if not set(left) <= set(kept):
            raise AssertionError(f"NNCF quantised excluded layers: {sorted(set(left) - set(kept))}")
        kind.save(quantized)
    about = {"calibrated_on": len(trial.inputs), "source": source, "layers": layers}
    return {"int8": {**about, "aside": left, "kept": [name for name in kept if name not in left]}}


def _restored(
    nncf: Any, kind: _Onnx | _OpenVino, calibration: Any, options: Json, trial: Trial, max_drop: float
) -> Any:
    """Quantised, with layers put back until no more than `max_drop` points are lost."""
    return nncf.quantize_with_accuracy_control(
        kind.model,
        calibration_dataset=calibration,
        validation_dataset=nncf.Dataset(trial.references),
        validation_fn=lambda model, items: trial.compare(kind.runner(model), items).quality,
        max_drop=max_drop / 100,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=min(max(1, _RANKED // trial.batch), len(trial.references))
        ),
        **options,
    )


class Node(NamedTuple):
    """An operator of a network. name: as NNCF knows it; reads: where in the list of nodes its inputs come from."""

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


class _OpenVino:
    """OpenVINO models, as NNCF and this package use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.core = openvino_core()
        self.model = self.core.read_model(folder / FILES["openvino"][0])

    def graph(self) -> list[Node]:
        ops = self.model.get_ordered_ops()
        number = {op.get_name(): place for place, op in enumerate(ops)}  # friendly names need not differ
        return [
            Node(
                op.get_friendly_name(), op.get_type_name(),
                [number[value.get_node().get_name()] for value in op.input_values()],
            )
            for op in ops
        ]  # fmt: skip

    def runner(self, model: Any) -> Ask:
        if hasattr(model, "create_infer_request"):  # NNCF's accuracy control compiles for itself
            names = [output.get_any_name() for output in model.outputs]
            return lambda inputs: dict(zip(names, map(np.array, model(inputs).values()), strict=True))
        return CompiledShapes(model, lambda each: self.core.compile_model(each, "CPU"), always_fixed=True)

    def layers(self, model: Any) -> tuple[int, list[str]]:
        def before(op: Any) -> Any:
            found = op.input_value(0).get_node()
            return before(found) if found.get_type_name() in _MOVES else found

        ops = [op for op in model.get_ops() if op.get_type_name() in _WEIGHTED]
        return len(ops), [op.get_friendly_name() for op in ops if before(op).get_type_name() != "FakeQuantize"]

    def save(self, model: Any) -> None:
        # The model that was read still looks into its file, which therefore may be replaced but not overwritten.
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            save_openvino(model, Path(place), halve=False)
            for name in FILES["openvino"]:
                os.replace(Path(place, name), self.folder / name)


class _Onnx:
    """ONNX models, as NNCF and this package use them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILES["onnx"][0]
        self.onnx, self.runtime = need("onnx"), need("onnxruntime")
        self.model = self.onnx.load(self.path)

    def graph(self) -> list[Node]:
        nodes = self.model.graph.node
        number = {name: place for place, node in enumerate(nodes) for name in node.output}
        return [
            Node(node.name, node.op_type, [number[name] for name in node.input if name in number]) for node in nodes
        ]

    def runner(self, model: Any) -> Ask:
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3
        session = self.runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))

    def layers(self, model: Any) -> tuple[int, list[str]]:
        by_output = {name: node for node in model.graph.node for name in node.output}

        def before(node: Any) -> str | None:
            found = by_output.get(node.input[0])
            if found is None:
                return None
            return before(found) if found.op_type in _MOVES else str(found.op_type)

        nodes = [node for node in model.graph.node if node.op_type in _WEIGHTED]
        return len(nodes), [node.name for node in nodes if before(node) != "DequantizeLinear"]

    def save(self, model: Any) -> None:
        self.onnx.save(model, self.path)
        self.onnx.checker.check_model(str(self.path), full_check=True)


@contextmanager
def _silent() -> Iterator[None]:
    """Without NNCF's log and progress bars, which go to standard output."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)  # `nncf.set_log_level` changes the handlers of everybody's log
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


class _SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
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
