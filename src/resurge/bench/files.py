"""The files that are measured, made once for each network and kept until it is done with."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from resurge.bench.subjects import Subject
from resurge.errors import UserError, first_line
from resurge.export.calibration import gather
from resurge.export.convert import LOGITS, OPSET, Deployed, onnx_to_openvino, quiet, trace, write_onnx
from resurge.export.quantize import quantize_folder
from resurge.export.reference import Reference
from resurge.export.settings import ExportSettings, form_of, rewritten_for
from resurge.files import atomic_folder
from resurge.infer.engines.engine import INPUT, need
from resurge.infer.folder import Export
from resurge.infer.formats import FORMATS

Log = Callable[[str], None]


@dataclass
class Files:
    """A folder of networks as files.

    pictures, calibration: see `Settings`. log: called with a line for what takes long.
    """

    folder: Path
    pictures: str | None = None
    calibration: int = 32
    log: Log = lambda line: None

    def ours(self, subject: Subject, format: str, precision: str, form: tuple[str, ...] | None = None) -> Export:
        """A network of this project as an export, the one that `resurge export` would make.

        bf16 of OpenVINO is the same file as fp32: its arithmetic is set when it is loaded.

        Args:
            form: passes beside those that are always applied; None for what `resurge.export.settings` lists.
        """
        run, form = subject.run, form_of(format, precision, form)

        def write(folder: Path) -> None:
            write_onnx(trace(Deployed(rewritten_for(run.model, format, precision, form)), subject.channels), folder)

        folder = self._folder(subject, " ".join(("ours", *form)), format, precision, write)
        meta = {
            **run.meta,
            "preprocessing": {**run.meta["preprocessing"], "size": subject.size},
            "export": {"format": format, "precision": precision, "outputs": list(LOGITS)},
        }
        return Export(folder, meta)

    def theirs(self, subject: Subject, net: nn.Module, format: str, precision: str) -> Path:
        """The other package's network as a file, exported as its users do: by torch, for one size of image."""

        def write(folder: Path) -> None:
            need("onnx")
            need("onnxscript")
            example = torch.zeros(2, subject.channels, subject.size, subject.size)
            try:
                with quiet(), torch.no_grad():
                    program = torch.onnx.export(
                        net, (example,), dynamo=True, input_names=[INPUT], output_names=LOGITS, opset_version=OPSET,
                        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},), optimize=True, verbose=False,
                    )  # fmt: skip
                assert program is not None
                program.save(os.fspath(folder / FORMATS["onnx"].file))
            except Exception as error:
                raise UserError(
                    f"torch cannot export the other package's network as ONNX: {first_line(error)}"
                ) from error

        return self._folder(subject, "peer", format, precision, write) / FORMATS[format].file

    def forget(self, subject: Subject) -> None:
        """Remove what was made of a network."""
        shutil.rmtree(self._root(subject), ignore_errors=True)

    def _root(self, subject: Subject) -> Path:
        return self.folder / hashlib.sha256(f"{subject.name} {subject.size}".encode()).hexdigest()[:16]

    def _folder(self, subject: Subject, side: str, format: str, precision: str, write: Callable[[Path], None]) -> Path:
        stored = "int8" if precision == "int8" else "fp32"
        target = self._root(subject) / f"{side} {format} {stored}"
        if target.exists():
            return target
        with atomic_folder(target) as folder:
            if stored == "int8":
                fp32 = self._folder(subject, side, format, "fp32", write)
                shutil.copytree(fp32, folder, dirs_exist_ok=True)
                self.log(f"int8 of {subject.name} for {format} ({side})")
                self._quantize(subject, format, folder)
            elif format == "openvino":
                onnx = self._folder(subject, side, "onnx", "fp32", write)
                onnx_to_openvino(onnx / FORMATS["onnx"].file, folder)
            else:
                self.log(f"ONNX of {subject.name} ({side})")
                write(folder)
        return target

    def _quantize(self, subject: Subject, format: str, folder: Path) -> None:
        """All in int8, for both sides alike: the same pictures, the same settings, no layer put back."""
        if format == "onnx":
            need("onnxruntime").set_default_logger_severity(3)  # it warns of what NNCF leaves behind
        material = gather(subject.run, self.pictures)
        material = replace(material, calibration=material.calibration.few(self.calibration))
        reference = Reference(subject.run, material, None, {})
        quantize_folder(folder, ExportSettings(format, "int8", max_drop=100), reference, self.log)
