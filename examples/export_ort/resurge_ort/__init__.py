"""The ORT format of ONNX Runtime: an optimised graph that its builds for phones and microcontrollers load without
ONNX. See "ORT model format" in the documentation of ONNX Runtime."""

from resurge.infer.formats import Format

ONLY_FP32 = "this example writes fp32 only. Use --format onnx for other precisions."

FORMAT = Format(
    files=("model.ort",),
    engine="resurge_ort.runtime:OrtEngine",
    writer="resurge_ort.writing:write",
    packages=("onnx", "onnxruntime"),
    helpers=("onnxscript",),
    impossible=dict.fromkeys(("bf16", "fp16", "int8"), ONLY_FP32),
)
