"""The networks of other packages, with the same weights, in every setting in which their users run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from resurge.bench.candidates import Candidate, Load, Predict, Run, Workload, difference, in_torch, outputs, ready
from resurge.bench.files import Files
from resurge.bench.subjects import Subject
from resurge.errors import UserError, first_line
from resurge.infer.engines.engine import INPUT, need
from resurge.infer.engines.onnx import onnx_session
from resurge.infer.engines.openvino import openvino_core, openvino_settings
from resurge.tasks.table import get_task
from resurge.weights.checkpoint import export_weights

INSTALL = "pip install 'resurge[bench]', or measure alone with --against none."
SAME = 1e-4
"""Of two networks in torch, both in fp32, the largest difference of the outputs as a share of the largest output."""


@dataclass(frozen=True)
class Baseline:
    """Another package's network. same_weights: its weights are those of the subject."""

    package: str
    name: str
    net: nn.Module
    same_weights: bool

    def __str__(self) -> str:
        return f"{self.package} {self.name}"

    def checked(self, subject: Subject, images: np.ndarray) -> Baseline | str:
        """The same, if its outputs for some images are those of the subject in torch and fp32; or why it is not."""
        if not self.same_weights:
            return self
        apart = difference(outputs(self.net, images), outputs(subject.run.model, images))
        if apart <= SAME:
            return self
        return f"{self} gives other outputs ({apart:.1e} of the peak apart): it is another network"


def baseline_of(subject: Subject, package: str) -> Baseline | str:
    """The same network of another package, in fp32 and evaluation mode; or, in words, why there is none.

    Raises:
        UserError: the package is not installed.
    """
    module, entry, classes = need(package, INSTALL), subject.entry, len(subject.run.classes)
    if entry is None or not get_task(subject.run.task).in_catalog:
        return f"{package} has no network like {subject.name}"
    made: nn.Module | None = None
    if package == "timm":
        name = entry.alias or entry.name
        if module.is_model(name):
            made = module.create_model(name, pretrained=False, num_classes=classes, in_chans=subject.channels)
    else:
        name = entry.name
        if subject.channels == 3 and name in module.models.list_models(module.models):
            made = module.models.get_model(name, weights=None, num_classes=classes)
    if made is None:
        return f"{package} has no {name}"
    if subject.export is None:
        try:
            made.load_state_dict(export_weights(subject.run.model, package), strict=True)
        except (UserError, RuntimeError) as error:
            return f"{package}'s {name} does not take these weights ({first_line(error)})"
    return Baseline(package, name, made.eval().requires_grad_(False), subject.export is None)


def settings_of(
    baseline: Baseline, subject: Subject, work: Workload, files: Files
) -> Iterator[tuple[str, Callable[[], Candidate]]]:
    """The settings of a baseline in the runtime and precision of a workload, and what makes each ready."""
    runtime, precision = work.configuration.runtime, work.configuration.precision
    torches = partial(in_torch, baseline.net, work)
    if runtime == "eager":
        for layout in ("contiguous", "channels-last"):
            yield layout, partial(torches, layout=layout)
        if precision == "bf16":
            yield "autocast", partial(torches, autocast=True)
    elif runtime == "compile":
        yield "plain", partial(torches, compiled={})
        yield "frozen", partial(torches, compiled={"freezing": True})
    else:
        load = _in_onnxruntime if runtime == "onnx" else _in_openvino
        yield (
            "fixed shape",
            lambda: ready(work, load(files.theirs(subject, baseline.net, runtime, precision), work)),
        )


def _in_onnxruntime(path: Path, work: Workload) -> Load:
    """A file in ONNX Runtime, its batch fixed to that of the workload when it is loaded."""
    batch = need("onnx").load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim[0].dim_param
    fixed = {batch: len(work.images)} if batch else {}

    def load() -> tuple[Predict, Run, tuple[str, ...]]:
        run = partial(onnx_session(path, work.threads, fixed).run, None)
        return lambda images: run({INPUT: images})[0], partial(run, {INPUT: work.images}), ()

    return load


def _in_openvino(path: Path, work: Workload) -> Load:
    """A file in OpenVINO, reshaped to the images of the workload, in the same arithmetic as ours; inputs and outputs
    are not copied."""
    core = openvino_core()
    settings = openvino_settings(work.configuration.precision, work.threads)

    def load() -> tuple[Predict, Run, tuple[str, ...]]:
        model = core.read_model(path)
        model.reshape(list(work.images.shape))
        infer = partial(core.compile_model(model, "CPU", settings).create_infer_request().infer,
                        share_inputs=True, share_outputs=True)  # fmt: skip
        return lambda images: np.array(infer([images])[0]), partial(infer, [work.images]), ()

    return load
