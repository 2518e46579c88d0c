"""OpenVINO, on the processor: networks compiled for the shapes that come."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resurge.errors import UserError
from resurge.infer.engines.engine import Arrays, ExportEngine, expected_shape, need
from resurge.infer.folder import Export

if TYPE_CHECKING:
    import openvino


KEPT = 6
"""Compiled shapes that are kept; each holds the weights in the layout of its own."""

LARGEST = 8
"""Images in one run: with more a processor gains nothing but memory."""

Shapes = tuple[tuple[int, ...], ...]


def openvino_core() -> openvino.Core:
    """The one OpenVINO core of this process.

    Its processor plugin gives the thread an alternative signal stack and takes it away when the last core ends. One
    core that never ends leaves no signal, Ctrl-C for example, without a stack.

    Raises:
        UserError: OpenVINO is not installed.
    """
    return _made_once(need("openvino").Core)


def openvino_settings(precision: str, threads: int | None = None) -> dict[str, str | int]:
    """How OpenVINO runs a network: for the shortest time of one batch, in this arithmetic.

    Left to itself it takes bf16 wherever the processor has it; for what int8 leaves unquantised that is its own choice.
    """
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}.get(precision)
    if hint is not None:
        settings["INFERENCE_PRECISION_HINT"] = hint
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


@functools.cache
def _made_once(kind: type[openvino.Core]) -> openvino.Core:
    return kind()


class CompiledShapes:
    """A network with open sides, compiled for one shape after the other.

    A network of fixed shape runs faster than one whose batch, height and width are open, and on processors with AMX an
    int8 network of open shape may end the process (openvinotoolkit/openvino#37577). A file with open sides is therefore
    compiled for the shape that is expected, for any other when it comes back, and in int8 always; batches run in powers
    of two, so that few shapes are enough.

    Args:
        model: an OpenVINO model.
        compile: a model -> what runs it.
        always_fixed: never run it with open sides.
        expected: the shape (C, H, W) that images will have, where that is known.
    """

    def __init__(
        self, model: openvino.Model, compile: Callable[[openvino.Model], openvino.CompiledModel], *, always_fixed: bool,
        expected: tuple[int, int, int] | None = None,
    ) -> None:  # fmt: skip
        self._model, self._compile, self._always_fixed = model, compile, always_fixed
        self._lock = threading.Lock()  # a compiled network has one request for all who call it
        self._fixed: OrderedDict[Shapes, openvino.CompiledModel] = OrderedDict()
        self._seen: set[Shapes] = set()
        self.inputs = tuple(each.get_any_name() for each in model.inputs)
        self.outputs = tuple(each.get_any_name() for each in model.outputs)
        self._expected = expected
        self._open: openvino.CompiledModel | None = None
        if expected is not None and len(self.inputs) == 1:  # compiled now: what is wrong with the file shows now
            self._at(((1, *expected),))
        elif not always_fixed:
            self._open = compile(model)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays (N, ...) by the name of the input -> arrays (N, ...) by the name of the output. Any thread may call.

        Raises:
            RuntimeError: the network cannot take these shapes.
        """
        arrays = [np.ascontiguousarray(inputs[name]) for name in self.inputs]
        with self._lock:
            parts = [self._run([each[few] for each in arrays]) for few in _runs(len(arrays[0]))]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _run(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        found = self._for(tuple(each.shape for each in arrays))(arrays)
        return {name: np.array(found[index]) for index, name in enumerate(self.outputs)}

    def _for(self, shapes: Shapes) -> openvino.CompiledModel:
        awaited = len(shapes) == 1 and shapes[0][1:] == self._expected
        if awaited or shapes in self._fixed or shapes in self._seen or self._always_fixed:
            return self._at(shapes)
        if len(self._seen) > 1000:  # images of all sizes: nothing comes back
            self._seen.clear()
        self._seen.add(shapes)
        if self._open is None:
            self._open = self._compile(self._model)
        return self._open

    def _at(self, shapes: Shapes) -> openvino.CompiledModel:
        found = self._fixed.pop(shapes, None)
        if found is None:
            for each, shape in zip(self._model.inputs, shapes, strict=True):
                if not each.partial_shape.compatible(type(each.partial_shape)(list(shape))):
                    raise RuntimeError(f"it takes {each.partial_shape}, not {list(shape)}")  # reshape would not mind
            model = self._model.clone()
            model.reshape(dict(zip(self.inputs, map(list, shapes), strict=True)))
            found = self._compile(model)
            while len(self._fixed) >= KEPT:
                self._fixed.popitem(last=False)
        self._fixed[shapes] = found
        return found


def _runs(count: int) -> Iterator[slice]:
    """`count` images as runs of 8, 4, 2 and 1."""
    begin, size = 0, LARGEST
    while begin < count:
        while size > count - begin:
            size //= 2
        yield slice(begin, begin + size)
        begin += size


class OpenVinoEngine(ExportEngine):
    """OpenVINO, on the processor."""

    format = "openvino"

    def load(self, export: Export, device: str, threads: int | None) -> None:
        if device not in ("auto", "cpu"):
            raise UserError(f"an openvino export runs on the processor; expected --device cpu or auto, got {device!r}.")
        core = openvino_core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self.precision in ("bf16", "fp16") and self.precision.upper() not in able:
            self.notes = (f"this processor has no {self.precision} arithmetic: OpenVINO computes in fp32.",)
            self.precision = "fp32"
        settings = openvino_settings(self.precision, threads)
        _require_ir(export.file)
        self._shapes = CompiledShapes(
            # not mapped: it is compiled again for other shapes, when another file may be in the place of this one
            core.read_model(export.file, config={"ENABLE_MMAP": False}),
            lambda model: core.compile_model(model, "CPU", settings),
            always_fixed=self.precision == "int8",
            expected=expected_shape(export),
        )

    def outputs(self, inputs: Arrays) -> Arrays:
        return self._shapes(inputs)


def _require_ir(path: Path) -> None:
    """Raises UserError if a file is of another format than OpenVINO's own, for which OpenVINO would load a reader."""
    with path.open("rb") as file:
        if file.read(1) != b"<":
            raise UserError(f"{path} is not OpenVINO's XML. Copy it again or export again.")
