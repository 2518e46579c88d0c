"""The files that are measured, made once for each network and kept until it is done with."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from resurge.bench.subjects import Subject
from resurge.errors import UserError, first_line
from resurge.export.convert import OPSET, Deployed, output_names, quiet, trace, write_onnx, write_openvino
from resurge.export.forms import form_of
from resurge.export.quantize import classes_trial, quantize_folder
from resurge.export.settings import ExportSettings
from resurge.infer.engines.engine import INPUT, need
from resurge.infer.folder import FILES, Export
from resurge.optimize.rewrite import ALWAYS, rewrite

Say = Callable[[str], None]


@dataclass
class Files:
    """A folder of networks as files.

    pictures, calibration: see `Settings`. say: is told what takes long.
    """

    folder: Path
    pictures: str | None = None
    calibration: int = 32
    say: Say = lambda line: None
    _made: dict[tuple[str, str, str], Path] = field(default_factory=dict)

    def ours(self, subject: Subject, format: str, precision: str, form: tuple[str, ...] | None = None) -> Export:
        """A network of this project as an export, the one that `resurge export` would make.

        bf16 of OpenVINO is the same file as fp32: it is told its arithmetic when it is loaded.

        Args:
            form: passes beside those that are always applied; None for what `resurge.export.forms` lists.
        """
        run = subject.run
        assert run is not None
        more = form_of(format, precision, form)

        def write(folder: Path) -> None:
            model = rewrite(run.model, (*ALWAYS, *more))
            write_onnx(trace(Deployed(model), subject.channels), folder, output_names(False))

        folder = self._folder(subject, " ".join(("ours", *more)), format, precision, write)
        meta = {
            **run.meta,
            "preprocessing": {**run.meta["preprocessing"], "size": subject.size},
            "export": {"format": format, "precision": precision, "outputs": list(output_names(False))},
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
                        net, (example,), dynamo=True, input_names=[INPUT], output_names=list(output_names(False)),
                        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},), opset_version=OPSET,
                        optimize=True, verbose=False,
                    )  # fmt: skip
                assert program is not None
                program.save(os.fspath(folder / FILES["onnx"][0]))
            except Exception as error:
                raise UserError(
                    f"torch cannot export the other package's network as ONNX: {first_line(error)}"
                ) from error

        return self._folder(subject, "peer", format, precision, write) / FILES[format][0]

    def forget(self, subject: Subject) -> None:
        """Remove what was made of a network."""
        for key in [key for key in self._made if key[0] == f"{subject.name} {subject.size}"]:
            shutil.rmtree(self._made.pop(key), ignore_errors=True)

    def _folder(self, subject: Subject, side: str, format: str, precision: str, write: Callable[[Path], None]) -> Path:
        stored = "int8" if precision == "int8" else "fp32"
        key = (f"{subject.name} {subject.size}", side, f"{format} {stored}")
        if key in self._made:
            return self._made[key]
        place = self.folder / re.sub(r"[^\w.-]+", "_", f"{len(self._made)} {side} {format} {stored}")
        if stored == "int8":
            fp32 = self._folder(subject, side, format, "fp32", write)
            shutil.copytree(fp32, place)
            self.say(f"int8 of {subject.name} for {format} ({side})")
            self._quantize(subject, format, place)
        elif format == "openvino":
            from_onnx = self._folder(subject, side, "onnx", "fp32", write)
            place.mkdir(parents=True)
            write_openvino(from_onnx / FILES["onnx"][0], place, halve=False)
        else:
            place.mkdir(parents=True)
            self.say(f"ONNX of {subject.name} ({side})")
            write(place)
        self._made[key] = place
        return place

    def _quantize(self, subject: Subject, format: str, folder: Path) -> None:
        """All in int8, for both sides alike: the same pictures, the same settings, no layer put back."""
        if format == "onnx":
            need("onnxruntime").set_default_logger_severity(3)  # it warns of what NNCF leaves behind
        material = subject.material(self.pictures, self.calibration)
        settings = ExportSettings(format, "int8", max_drop=100)
        trial = classes_trial(material, subject.preprocessing(), ())
        quantize_folder(folder, settings, trial, material.calibrated_on, self.say)
