"""Running files in ORT format. No torch here: an export predicts without it."""

from __future__ import annotations

import onnxruntime

from resurge.errors import UserError
from resurge.infer.engines.engine import Arrays, ExportEngine
from resurge.infer.folder import Export


class OrtEngine(ExportEngine):
    """ONNX Runtime on the processor."""

    format = "ort"
    errors = (Exception,)

    def load(self, export: Export, device: str, threads: int | None) -> None:
        if device not in ("auto", "cpu"):
            raise UserError(f"files in ORT format run on the processor, not on {device!r}. Use --device cpu.")
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        content = export.file.read_bytes()  # what was checked is what runs
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def outputs(self, inputs: Arrays) -> Arrays:
        return dict(zip(self._names, self._session.run(None, inputs), strict=True))
