"""ONNX Runtime, on the processor or a CUDA device."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from resurge.errors import UserError
from resurge.files import sha256
from resurge.infer.engines.engine import INPUT, SIDES, Arrays, ExportEngine, expected_shape, need
from resurge.infer.folder import Export
from resurge.tasks.result import Size

Session = Any  # onnxruntime.InferenceSession, which has no types

Provider = str | tuple[str, dict[str, int]]


def onnx_session(
    model: Path | bytes, threads: int | None = None, fixed: Mapping[str, int] | None = None,
    provider: Provider = "CPUExecutionProvider",
) -> Session:  # fmt: skip
    """ONNX Runtime's session of a file or of its content. fixed: values of open sides, by their names."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about graphs, which are no affair of who predicts
    if threads is not None:
        options.intra_op_num_threads = threads
    for name, value in (fixed or {}).items():
        options.add_free_dimension_override_by_name(name, value)
    source = str(model) if isinstance(model, Path) else model
    return runtime.InferenceSession(source, options, providers=[provider])


class OnnxEngine(ExportEngine):
    """ONNX Runtime, on the processor or a CUDA device."""

    format = "onnx"
    errors = (Exception,)

    def load(self, export: Export, device: str, threads: int | None) -> None:
        provider = self._provider(need("onnxruntime"), device)
        _require_alone(export.file)
        if self.precision == "fp16" and provider == "CPUExecutionProvider":
            self.notes = ("ONNX Runtime computes fp16 convolutions in fp32 on a processor; the weights are fp16.",)
        self._lock = threading.Lock()
        self._sessions: dict[Size | None, Session] = {}  # by height and width; None: they are open

        def session(side: Size | None) -> Session:
            if self._sessions:  # in the meantime the file may have been overwritten
                _require_unchanged(export)
            return onnx_session(export.file, threads, dict(zip(SIDES, side or (), strict=False)), provider)

        self._session = session
        expected = expected_shape(export)
        self._side = None if expected is None else expected[1:]
        self._names = [output.name for output in self._for(self._side).get_outputs()]

    def _for(self, side: Size | None) -> Session:
        """The session for images of the side that is expected, which runs faster with it fixed, or of any (None)."""
        with self._lock:
            if side not in self._sessions:
                self._sessions[side] = self._session(side)
            return self._sessions[side]

    @staticmethod
    def _provider(runtime: ModuleType, device: str) -> Provider:
        kind, _, number = device.partition(":")
        if kind in ("auto", "cpu"):
            return "CPUExecutionProvider"
        if kind == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
            return ("CUDAExecutionProvider", {"device_id": int(number or 0)})
        raise UserError(f"the installed ONNX Runtime has no {device!r} device. Use --device cpu.")

    def outputs(self, inputs: Arrays) -> Arrays:
        session = self._for(self._side if inputs[INPUT].shape[2:] == self._side else None)
        return dict(zip(self._names, session.run(None, inputs), strict=True))


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
    model = onnx.load(path, load_external_data=False)
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
