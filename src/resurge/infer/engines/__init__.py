"""What runs an exported network: one small class a format. Only the format that is asked for imports its runtime.

What each makes of a precision:

| | fp32 | bf16 | fp16 | int8 |
|---|---|---|---|---|
| openvino | as it says | arithmetic in bf16 | weights stored in fp16; arithmetic too where the CPU has it | as quantised; the rest as OpenVINO likes |
| onnx | as it says | not exported: ONNX Runtime has no bf16 convolution on a CPU | stored; a CPU computes in fp32 | as quantised, the rest in fp32 |
| torch | as it says | arithmetic in bf16 | arithmetic in fp16 | not exported |

Where a processor lacks the arithmetic, OpenVINO computes in fp32; torch emulates it, which gives the same answers and
takes several times as long as fp32. Both say so in `notes`.

What was checked against its hash is what runs, also when a file is overwritten later: nothing that is loaded still
looks into a file, and one that has to be read again is checked again.
"""  # noqa: E501

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from resurge.errors import UserError
from resurge.infer.engines.shapes import CompiledShapes
from resurge.infer.folder import Export, sha256

INPUT = "images"
SIDES = ("height", "width")
"""What the open sides of the images are called in an ONNX file."""
SIZES = "sizes"
"""A detector's second input: int64 (N, 2), height and width of each image without its padding."""


class Engine(Protocol):
    """A loaded network.

    Attributes:
        format: onnx, openvino, torch, or run.
        precision: what it computes in: fp32, bf16, fp16 or int8.
        notes: what is other than was asked for, in sentences.
    """

    format: str
    precision: str
    notes: tuple[str, ...]

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """float32 (N, C, H, W) -> the outputs by name: `logits`, or `classes` and `confidence`. Any thread may call.

        Of a detector: `boxes`, `scores`, `labels`, `masks`; see `resurge.tasks.detect.outputs`. Only it looks at
        the `sizes` (N, 2) that the images have without their padding; None: they have none.

        Raises:
            UserError: the runtime cannot take images of this shape.
        """
        ...


def open_engine(export: Export, device: str = "auto", threads: int | None = None) -> Engine:
    """The engine of an export, loaded.

    Args:
        device: auto or cpu; cuda where the runtime has it.
        threads: of the arithmetic; None leaves it to the runtime, which takes a thread a physical core.

    Raises:
        UserError: the runtime is not installed, does not have the device, or cannot read the file.
    """
    kinds: Mapping[str, Any] = {"onnx": OnnxEngine, "openvino": OpenVinoEngine, "torch": ProgramEngine}
    engine: Engine = kinds[export.format](export, device, threads)
    return engine


def need(name: str) -> ModuleType:
    """A module of the extra `export`.

    Raises:
        UserError: it is not installed.
    """
    import importlib

    try:
        with warnings.catch_warnings():  # a runtime's own, about other packages
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"{package} is needed and cannot be imported ({error}): pip install 'resurge[export]'"
        ) from None


def openvino_core() -> Any:
    """The one OpenVINO core of this process.

    Its processor plugin gives the thread an alternative signal stack and takes it away when the last core ends. One
    core that never ends leaves no signal, Ctrl-C for example, without a stack.

    Raises:
        UserError: OpenVINO is not installed.
    """
    return _made_once(need("openvino").Core)


def openvino_settings(precision: str, threads: int | None = None) -> dict[str, Any]:
    """How OpenVINO is told to run a network: for the shortest time of one batch, in this arithmetic.

    Left to itself it takes bf16 wherever the processor has it; for what int8 leaves unquantised that is its own choice.
    """
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}.get(precision)
    if hint is not None:
        settings["INFERENCE_PRECISION_HINT"] = hint
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


@functools.cache
def _made_once(kind: Any) -> Any:
    return kind()


class OpenVinoEngine:
    """OpenVINO, on the processor."""

    format = "openvino"
    notes: tuple[str, ...] = ()

    def __init__(self, export: Export, device: str, threads: int | None) -> None:
        if device not in ("auto", "cpu"):
            raise UserError(f"an openvino export runs on the processor; expected --device cpu or auto, got {device!r}.")
        core = openvino_core()
        able = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self.precision = export.precision
        if self.precision in ("bf16", "fp16") and self.precision.upper() not in able:
            self.notes = (f"this processor has no {self.precision} arithmetic: OpenVINO computes in fp32.",)
            self.precision = "fp32"
        settings = openvino_settings(self.precision, threads)
        try:
            _require_ir(export.file)
            self._shapes = CompiledShapes(
                # not mapped: it is compiled again for other shapes, when another file may be in the place of this one
                core.read_model(export.file, config={"ENABLE_MMAP": False}),
                lambda model: core.compile_model(model, "CPU", settings),
                always_fixed=self.precision == "int8",
                expected=_expected(export),
            )
        except RuntimeError as error:
            raise _unreadable(export.file, error) from error

        self._inputs = _inputs(export)

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        try:
            return self._shapes(_fed(self._inputs, images, sizes))
        except RuntimeError as error:
            raise _refused(images, error) from error


def _expected(export: Export) -> tuple[int, int, int] | None:
    """The shape (C, H, W) of every image that preprocessing makes, where there is one."""
    side, channels = export.meta["preprocessing"].get("size"), export.meta.get("in_channels")
    if export.meta["task"] != "classify" or not isinstance(side, int) or not isinstance(channels, int):
        return None
    return (channels, side, side)


class OnnxEngine:
    """ONNX Runtime, on the processor or a CUDA device."""

    format = "onnx"
    notes: tuple[str, ...] = ()

    def __init__(self, export: Export, device: str, threads: int | None) -> None:
        runtime = need("onnxruntime")
        _require_alone(export.file)
        self.precision = export.precision
        provider = self._provider(runtime, device)
        if self.precision == "fp16" and provider == "CPUExecutionProvider":
            self.notes = ("ONNX Runtime computes fp16 convolutions in fp32 on a processor; the weights are fp16.",)
        self._lock = threading.Lock()
        self._sessions: dict[tuple[int, int] | None, Any] = {}  # by height and width; None: they are open

        def load(side: tuple[int, int] | None) -> Any:
            options = runtime.SessionOptions()
            options.log_severity_level = 3  # its warnings are about graphs, which are no affair of who predicts
            if threads is not None:
                options.intra_op_num_threads = threads
            for name, value in zip(SIDES, side or (), strict=False):
                options.add_free_dimension_override_by_name(name, value)
            if self._sessions:  # in the meantime the file may have been overwritten
                _require_unchanged(export)
            return runtime.InferenceSession(str(export.file), options, providers=[provider])

        self._load = load
        expected = _expected(export)
        self._side = None if expected is None else expected[1:]
        try:
            self._names = [output.name for output in self._for(self._side).get_outputs()]
        except Exception as error:  # its exceptions have no common base but this one
            raise _unreadable(export.file, error) from error
        self._inputs = _inputs(export)

    def _for(self, side: tuple[int, int] | None) -> Any:
        """The session for images of the side that is expected, which runs faster with it fixed, or of any (None)."""
        with self._lock:
            if side not in self._sessions:
                self._sessions[side] = self._load(side)
            return self._sessions[side]

    @staticmethod
    def _provider(runtime: ModuleType, device: str) -> Any:
        kind, _, number = device.partition(":")
        if kind in ("auto", "cpu"):
            return "CPUExecutionProvider"
        if kind == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
            return ("CUDAExecutionProvider", {"device_id": int(number or 0)})
        raise UserError(f"the installed ONNX Runtime has no {device!r} device. Use --device cpu.")

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        try:
            session = self._for(self._side if images.shape[2:] == self._side else None)
            found = session.run(None, _fed(self._inputs, images, sizes))
        except UserError:
            raise
        except Exception as error:
            raise _refused(images, error) from error
        return dict(zip(self._names, found, strict=True))


class ProgramEngine:
    """A program of torch.export, in torch."""

    format = "torch"
    notes: tuple[str, ...] = ()

    def __init__(self, export: Export, device: str, threads: int | None) -> None:
        import torch

        from resurge.infer.engines.archive import vetted
        from resurge.tasks.detect import ops as detection_ops  # noqa: F401  registers the operators of a detector
        from resurge.tasks.running import pick_device

        self.precision = export.precision
        self._device = pick_device(device)
        if self._device.type == "cpu" and not _has_arithmetic(self.precision):
            self.notes = (
                f"this processor has no {self.precision} arithmetic: torch emulates it and is slower than in fp32.",
            )
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(vetted(export.file))
                if self._device.type != "cpu":
                    from torch.export.passes import move_to_device_pass

                    program = move_to_device_pass(program, str(self._device))
                self._module = program.module()
        except UserError:
            raise
        except Exception as error:  # version errors and others, all of different kinds
            raise _unreadable(export.file, error) from error
        self._names = list(export.meta["export"]["outputs"])
        self._inputs = _inputs(export)

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        import torch

        given = [torch.from_numpy(array).to(self._device) for array in _fed(self._inputs, images, sizes).values()]
        given[0] = given[0].to(memory_format=torch.channels_last)
        try:
            with torch.inference_mode():
                found = self._module(*given)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise _refused(images, error) from error
        values = found if isinstance(found, (tuple, list)) else (found,)
        return {name: value.cpu().numpy() for name, value in zip(self._names, values, strict=True)}


_ARITHMETIC = {
    "bf16": ("avx512_bf16", "amx_bf16", "avx_ne_convert", "avx10_2", "bf16", "sve_bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "avx_ne_convert", "avx10_2", "fp16_arith"),
}
"""Where a processor has any of these, by their names in torch, oneDNN convolves in this precision without emulation."""


def _has_arithmetic(precision: str) -> bool:
    """Whether this processor has instructions for a precision; true where torch is too old to know."""
    import torch

    known = getattr(torch.cpu, "get_capabilities", None)
    if known is None or precision not in _ARITHMETIC:
        return True
    found = known()
    return any(found.get(name) for name in _ARITHMETIC[precision])


def _require_unchanged(export: Export) -> None:
    """Raises UserError if the file to open is another than the one that was exported, which `read_export` has seen."""
    try:
        found = sha256(export.file)
    except OSError as error:
        raise UserError(f"cannot read {export.file}: {error.strerror or error}. Load the export again.") from error
    if found != export.meta["export"]["files"][export.file.name]["sha256"]:
        raise UserError(f"{export.file} has changed since the export was loaded. Load the export again.")


def _require_alone(path: Path) -> None:
    """Raises UserError if an ONNX file takes tensors from other files, which may be anywhere and are not checked."""
    onnx = need("onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, or an OSError
        raise _unreadable(path, error) from error
    if any(isinstance(part, onnx.TensorProto) and part.external_data for part in _parts(model)):
        raise UserError(
            f"{path} takes weights from another file, which no export of resurge does and which could read any file of "
            "this machine. Use it only with what made it, or export the run again."
        )


def _parts(message: Any) -> Iterator[Any]:
    """A message of protobuf, and all that are inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _parts(part)


def _require_ir(path: Path) -> None:
    """Raises UserError if a file is of another format than OpenVINO's own, for which OpenVINO would load a reader."""
    with path.open("rb") as file:
        if file.read(1) != b"<":
            raise UserError(f"{path} is not OpenVINO's XML. Copy it again or export again.")


def _inputs(export: Export) -> tuple[str, ...]:
    return (INPUT, SIZES) if export.meta["task"] in ("detect", "instances") else (INPUT,)


def _fed(names: tuple[str, ...], images: np.ndarray, sizes: np.ndarray | None) -> dict[str, np.ndarray]:
    """What goes into the network, by name."""
    fed = {INPUT: np.ascontiguousarray(images)}
    if SIZES in names:
        whole = np.full((len(images), 2), images.shape[2:], dtype=np.int64)
        fed[SIZES] = whole if sizes is None else np.ascontiguousarray(sizes, dtype=np.int64)
    return fed


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be loaded ({_first_line(error)}). It may be of a newer version of its runtime than the one "
        "installed: update the runtime (pip install -U 'resurge[export]') or export again."
    )


def _refused(images: np.ndarray, error: Exception) -> UserError:
    return UserError(f"the exported network cannot take images of shape {images.shape} ({_first_line(error)}).")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
