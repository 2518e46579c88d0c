"""int8 by NNCF: ranges from the user's pictures, and layers that hurt put back, found by NNCF's accuracy control.

Weights and the inputs of convolutions and linear layers become 8-bit integers (Jacob et al. 2018, arXiv:1712.05877,
equation 1), weights with a scale a channel. First everything is quantised. If that loses more than is allowed, layers
are ranked by what they lose and put back one after the other until it does not. Of a detector that is the backbone, the
pyramid and the heads that see whole maps; coordinates, and layers that run once a box, stay as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resurge.deploy.convert import quiet, save_openvino
from resurge.deploy.engines import INPUT, need, openvino_core
from resurge.deploy.folder import FILES
from resurge.deploy.material import BATCH, Material
from resurge.deploy.measure import Batch, Comparison, Run
from resurge.deploy.shapes import CompiledShapes

if TYPE_CHECKING:
    from resurge.deploy.detection_measure import ObjectComparison
    from resurge.deploy.export import Wanted

CALIBRATION = 300  # pictures, NNCF's own default
_RANKED = 100  # pictures that layers are ranked by
# What only moves numbers about: an input that comes through it is as quantised as what goes in.
_MOVES = (
    "MaxPool", "Slice", "StridedSlice", "Split", "VariadicSplit", "Reshape", "Flatten", "Transpose", "Squeeze",
)  # fmt: skip
_WEIGHTED = ("Conv", "Gemm", "MatMul", "Convolution", "GroupConvolution")
# From here on it is boxes, of which there are as many as the picture has.
_CHOOSES = ("TopK", "NonMaxSuppression", "NonZero", "RoiAlign", "ROIAlign")

Ask = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
"""Inputs by name -> outputs by name."""


@dataclass(frozen=True)
class Trial:
    """What the ranges are set by, and what an int8 network is judged by.

    questions: inputs by name, a picture each. told: pictures, and what the run says of them, a few in each item.
    compared: a network's answers to some of `told`, beside the run's.
    """

    questions: Sequence[dict[str, np.ndarray]]
    told: Sequence[Any]
    compared: Callable[[Ask, Iterable[Any]], Comparison | ObjectComparison]


def classes_trial(material: Material, preprocessing: Any, original: Run, batches: Sequence[Batch]) -> Trial:
    """For a classifier or a segmenter.

    Args:
        material: its calibration pictures set the ranges.
        original: the run's network.
        batches: pictures that accuracy is measured on, with the right answers where they are known.
    """
    pictures = material.calibration.few(CALIBRATION)
    questions = [{INPUT: batch.images} for batch in pictures.batches(preprocessing, 1)]
    return Trial(questions, [(batch, original(batch.images)) for batch in batches], _compared)


def _compared(ask: Ask, told: Iterable[tuple[Batch, dict[str, np.ndarray]]]) -> Comparison:
    found = Comparison()
    for batch, before in told:
        found.add(before, ask({INPUT: batch.images}), batch.truth)
    return found


def quantize_folder(
    folder: Path, wanted: Wanted, trial: Trial, source: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Put an int8 network in the place of the fp32 one in `folder`.

    Args:
        source: what the pictures of the calibration are, in words.

    Returns:
        {"int8": {"calibrated_on", "source", "layers", "kept"}}: pictures; layers with weights; the names of those not
        in int8.
    """
    nncf = need("nncf")
    kind = _Onnx(folder) if wanted.format == "onnx" else _OpenVino(folder)
    calibration = nncf.Dataset(trial.questions)
    settings = {
        "target_device": nncf.TargetDevice.CPU,
        "subset_size": len(trial.questions),
        "ignored_scope": nncf.IgnoredScope(names=_aside(kind.graph()), validate=False),
    }
    with _silent(), quiet(), _signal_stack_kept():
        quantized = nncf.quantize(kind.model, calibration, **settings)
        drop = trial.compared(kind.runner(quantized), trial.told).drop
        if drop > wanted.max_drop:
            say(f"all in int8 it loses {drop:.2f} points: looking for the layers to keep")
            quantized = _restored(nncf, kind, calibration, settings, trial, wanted.max_drop)
        layers, kept = kind.layers(quantized)
        kind.save(quantized)
    return {"int8": {"calibrated_on": len(trial.questions), "source": source, "layers": layers, "kept": kept}}


def _restored(
    nncf: Any, kind: _Onnx | _OpenVino, calibration: Any, settings: dict[str, Any], trial: Trial, max_drop: float
) -> Any:
    """Quantised, with layers put back until no more than `max_drop` points are lost."""
    # NNCF holds it against the network in this runtime, which may itself be a little off the run's
    off = trial.compared(kind.runner(kind.model), trial.told).drop
    return nncf.quantize_with_accuracy_control(
        kind.model,
        calibration_dataset=calibration,
        validation_dataset=nncf.Dataset(trial.told),
        validation_fn=lambda model, items: trial.compared(kind.runner(model), items).quality,
        max_drop=max(max_drop - off, 0.0) / 100,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=min(max(1, _RANKED // BATCH), len(trial.told))
        ),
        **settings,
    )


Graph = dict[str, tuple[str, list[str]]]
"""Of each node the name of its operator, and the names of the nodes it reads."""


def _aside(graph: Graph) -> list[str]:
    """The nodes of a detector that stay as they are: all that no layer on whole maps reads. None of another network."""
    choosing = [name for name, (kind, _) in graph.items() if kind in _CHOOSES]
    if not choosing:
        return []
    readers: dict[str, list[str]] = {name: [] for name in graph}
    for name, (_, read) in graph.items():
        for each in read:
            readers[each].append(name)
    late = _reached(choosing, readers)
    layers = [name for name, (kind, _) in graph.items() if kind in _WEIGHTED and name not in late]
    wanted = _reached(layers, {name: read for name, (_, read) in graph.items()})
    return [name for name in graph if name not in wanted]


def _reached(begin: Iterable[str], leads_to: Mapping[str, Iterable[str]]) -> set[str]:
    found = set(begin)
    ahead = list(found)
    while ahead:
        new = set(leads_to[ahead.pop()]) - found
        found |= new
        ahead += new
    return found


class _OpenVino:
    """How NNCF and this package speak of OpenVINO's models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.core = openvino_core()
        self.model = self.core.read_model(folder / FILES["openvino"][0])

    def graph(self) -> Graph:
        return {
            op.get_friendly_name(): (
                op.get_type_name(), [value.get_node().get_friendly_name() for value in op.input_values()]
            )
            for op in self.model.get_ops()
        }  # fmt: skip

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
    """How NNCF and this package speak of ONNX models."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILES["onnx"][0]
        self.onnx, self.runtime = need("onnx"), need("onnxruntime")
        self.model = self.onnx.load(self.path)

    def graph(self) -> Graph:
        maker = {name: node.name for node in self.model.graph.node for name in node.output}
        return {
            node.name: (node.op_type, [maker[name] for name in node.input if name in maker])
            for node in self.model.graph.node
        }

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
