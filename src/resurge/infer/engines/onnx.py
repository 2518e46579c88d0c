"""ONNX Runtime, on the processor or a CUDA device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from resurge.errors import UserError
from resurge.files import sha256
from resurge.infer.engines.engine import SIDES, expected_shape, fed, input_names, need, refused, unreadable
from resurge.infer.folder import Export


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
        expected = expected_shape(export)
        self._side = None if expected is None else expected[1:]
        try:
            self._names = [output.name for output in self._for(self._side).get_outputs()]
        except Exception as error:  # its exceptions have no common base but this one
            raise unreadable(export.file, error) from error
        self._inputs = input_names(export)

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
            found = session.run(None, fed(self._inputs, images, sizes))
        except UserError:
            raise
        except Exception as error:
            raise refused(images, error) from error
        return dict(zip(self._names, found, strict=True))


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
        raise unreadable(path, error) from error
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
