"""The folders of the files that are measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resurge.bench import files as module
from resurge.bench.files import Files


def test_several_networks_in_int8_in_two_runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network has its own folders, whatever was made and forgotten before it."""

    def write(content: Any, folder: Path) -> None:
        (folder / "model.onnx").write_text(str(content))

    def to_openvino(source: Path, folder: Path) -> None:
        (folder / "model.xml").write_text(source.read_text())

    def quantize(self: Files, subject: Any, format: str, folder: Path) -> None:
        (folder / "int8").write_text(f"{subject.name} {format}")

    monkeypatch.setattr(module, "rewritten_for", lambda model, *_: model)
    monkeypatch.setattr(module, "Deployed", lambda model: model)
    monkeypatch.setattr(module, "trace", lambda model, channels: model)
    monkeypatch.setattr(module, "write_onnx", write)
    monkeypatch.setattr(module, "onnx_to_openvino", to_openvino)
    monkeypatch.setattr(Files, "_quantize", quantize)
    files = Files(tmp_path)
    for _ in range(2):
        for name in "ABC":
            run = SimpleNamespace(model=name, meta={"preprocessing": {}})
            subject: Any = SimpleNamespace(name=name, size=32, run=run, channels=3)
            for precision in ("fp32", "int8"):
                for format in ("onnx", "openvino"):
                    export = files.ours(subject, format, precision)
                    (made,) = (path for path in export.folder.iterdir() if path.stem == "model")
                    assert made.read_text() == name
                    assert precision == "fp32" or (export.folder / "int8").read_text() == f"{name} {format}"
            if name != "B":  # as the yardstick stays
                files.forget(subject)
    assert [path for path in tmp_path.iterdir() if path.suffix in (".tmp", ".old")] == []
