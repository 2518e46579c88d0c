"""int8 by NNCF: ranges from the user's pictures, and layers that hurt put back, found by NNCF's accuracy control.

Weights and the inputs of convolutions and linear layers become 8-bit integers (Jacob et al. 2018, arXiv:1712.05877,
equation 1), weights with a scale a channel. First everything is quantised. If that loses more than is allowed, layers
are ranked by what they lose and put back one after the other until it does not.
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
    from resurge.deploy.export import Wanted

CALIBRATION = 300  # pictures, NNCF's own default
_RANKED = 100  # pictures that layers are ranked by
# What only moves numbers about: an input that comes through it is as quantised as what goes in.
_MOVES = (
    "MaxPool", "Slice", "StridedSlice", "Split", "VariadicSplit", "Reshape", "Flatten", "Transpose", "Squeeze",
)  # fmt: skip
_WEIGHTED = ("Conv", "Gemm", "MatMul", "Convolution", "GroupConvolution")


def quantize_folder(
    folder: Path, wanted: Wanted, material: Material, preprocessing: Any, original: Run, batches: Sequence[Batch],
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Put an int8 network in the place of the fp32 one in `folder`.

    Args:
        material: its calibration pictures set the ranges.
        original: the run's network, which the answers are compared with.
        batches: pictures that accuracy is measured on, with the right answers where they are known.

    Returns:
        {"int8": {"calibrated_on", "layers", "kept"}}: pictures; layers with weights; the names of those not in int8.
    """
    nncf = need("nncf")
    kind = _Onnx(folder) if wanted.format == "onnx" else _OpenVino(folder)
    pictures = material.calibration.few(CALIBRATION)
    arrays = [batch.images for batch in pictures.batches(preprocessing, 1)]
    calibration = nncf.Dataset(arrays, kind.question)
    target = {"target_device": nncf.TargetDevice.CPU, "subset_size": len(arrays)}
    told = [(batch, original(batch.images)) for batch in batches]
    with _silent(), quiet(), _signal_stack_kept():
        quantized = nncf.quantize(kind.model, calibration, **target)
        drop = _compared(kind.runner(quantized), told).drop
        if drop > wanted.max_drop:
            say(f"all in int8 it loses {drop:.2f} points: looking for the layers to keep")
            quantized = nncf.quantize_with_accuracy_control(
                kind.model,
                calibration_dataset=calibration,
                validation_dataset=nncf.Dataset(told),
                validation_fn=lambda model, items: _score(_compared(kind.runner(model), items)),
                max_drop=wanted.max_drop / 100,
                advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(max(1, _RANKED // BATCH), len(told))
                ),
                **target,
            )
        layers, kept = kind.layers(quantized)
        kind.save(quantized)
    return {"int8": {"calibrated_on": len(arrays), "source": material.calibrated_on, "layers": layers, "kept": kept}}


def _compared(run: Run, told: Iterable[tuple[Batch, dict[str, np.ndarray]]]) -> Comparison:
    found = Comparison()
    for batch, before in told:
        found.add(before, run(batch.images), batch.truth)
    return found


def _score(found: Comparison) -> float:
    """What NNCF is to keep up: the share of right answers, or of answers that stay where the right ones are unknown."""
    return found.right_after / found.labelled if found.labelled else found.agreement


class _OpenVino:
    """How NNCF and this package speak of OpenVINO's models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.core = openvino_core()
        self.model = self.core.read_model(folder / FILES["openvino"][0])

    def question(self, images: np.ndarray) -> Any:
        return images

    def runner(self, model: Any) -> Run:
        if hasattr(model, "create_infer_request"):  # NNCF's accuracy control compiles for itself
            names = [output.get_any_name() for output in model.outputs]
            return lambda images: dict(zip(names, map(np.array, model([images]).values()), strict=True))
        shapes = CompiledShapes(model, lambda each: self.core.compile_model(each, "CPU"), always_fixed=True)
        return lambda images: shapes({INPUT: images})

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

    def question(self, images: np.ndarray) -> Any:
        return {INPUT: images}

    def runner(self, model: Any) -> Run:
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3
        session = self.runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(None, {INPUT: images}), strict=True))

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
