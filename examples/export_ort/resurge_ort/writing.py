"""Writing files in ORT format."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from torch.export import ExportedProgram

from resurge.export.convert import LOGITS, write_onnx
from resurge.files import Json


def write(program: ExportedProgram, folder: Path, outputs: Sequence[str] = LOGITS, halve: bool = False) -> Json:
    """Write the program as ONNX, and what ONNX Runtime makes of that for any processor as model.ort."""
    with tempfile.TemporaryDirectory() as place:
        said = write_onnx(program, Path(place), outputs)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folder / "model.ort")
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(str(Path(place) / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return said
