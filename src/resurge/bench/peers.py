"""The networks of other packages, with the same weights, and every setting in which their users would run them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from resurge.bench.contestants import Ask, Contestant, Job, in_torch, ready
from resurge.bench.files import Files
from resurge.bench.settings import Cell
from resurge.bench.subjects import Subject
from resurge.errors import UserError, first_line
from resurge.infer.engines.engine import INPUT, need
from resurge.infer.engines.openvino import openvino_core, openvino_settings
from resurge.tasks.table import get_task
from resurge.weights.checkpoint import export_weights

INSTALL = {"timm": "pip install 'resurge[bench]'", "torchvision": "pip install torchvision"}


@dataclass(frozen=True)
class Peer:
    """Another package's network. same_weights: its weights are those of the subject."""

    package: str
    name: str
    net: nn.Module
    same_weights: bool

    def __str__(self) -> str:
        return f"{self.package} {self.name}"


def require(package: str) -> Any:
    """The package of the peers.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{package} is needed to compare with and cannot be imported ({error}): {INSTALL[package]}, or measure "
            "alone with --against none."
        ) from None


def peer_of(subject: Subject, package: str) -> Peer | str:
    """The same network of another package, in fp32 and evaluation mode; or, in words, why there is none.

    Raises:
        UserError: the package is not installed.
    """
    module = require(package)
    entry = subject.entry
    if entry is None or not get_task(subject.task).in_catalog:
        return f"{package} has no network like {subject.name}"
    name = (entry.alias or entry.name) if package == "timm" else entry.name
    made = _timm(module, name, subject) if package == "timm" else _torchvision(module, name, subject)
    if made is None:
        return f"{package} has no {name}"
    if subject.run is not None:
        try:
            made.load_state_dict(export_weights(subject.run.model, package), strict=True)
        except (UserError, RuntimeError) as error:
            return f"{package}'s {name} does not take these weights ({first_line(error)})"
    return Peer(package, name, made.eval().requires_grad_(False), subject.run is not None)


def _timm(timm: Any, name: str, subject: Subject) -> Any:
    if not timm.is_model(name):
        return None
    return timm.create_model(name, pretrained=False, num_classes=subject.classes, in_chans=subject.channels)


def _torchvision(torchvision: Any, name: str, subject: Subject) -> Any:
    if name not in torchvision.models.list_models(torchvision.models) or subject.channels != 3:
        return None
    return torchvision.models.get_model(name, weights=None, num_classes=subject.classes)


Entrant = tuple[str, Callable[[], Contestant]]


def settings_of(peer: Peer, subject: Subject, job: Job, files: Files) -> Iterator[Entrant]:
    """The settings of a peer in the runtime and precision of a job, and what makes each ready."""
    runtime, precision = job.cell.runtime, job.cell.precision
    torches = partial(in_torch, net=peer.net, job=job)
    if runtime == "eager":
        for layout in ("contiguous", "channels-last"):
            yield layout, partial(torches, layout, layout=layout)
        if precision == "bf16":
            yield "autocast", partial(torches, "autocast", autocast=True)
    elif runtime == "compile":
        yield "plain", partial(torches, "plain", compiled={})
        yield "frozen", partial(torches, "frozen", compiled={"freezing": True})
    else:
        load = in_onnxruntime if runtime == "onnx" else in_openvino
        yield "fixed shape", lambda: load(files.peer(subject, peer.net, runtime, precision), job)


def plain_eager(net: nn.Module, job: Job) -> Contestant:
    """A network as most people run it: eager fp32 as it comes, whatever the precision of the job."""
    cell = Cell("eager", "fp32", job.cell.batch)
    return in_torch("plain", net, dataclasses.replace(job, cell=cell), layout="contiguous")


def in_onnxruntime(path: Path, job: Job) -> Contestant:
    """A file in ONNX Runtime, its batch fixed to that of the job when it is loaded."""
    runtime, onnx = need("onnxruntime"), need("onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = job.threads
    sides = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    if sides[0].dim_param:
        options.add_free_dimension_override_by_name(sides[0].dim_param, len(job.images))

    def load() -> tuple[Ask, Callable[[], Any]]:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def ask(images: np.ndarray) -> np.ndarray:
            found: np.ndarray = session.run(None, {INPUT: images})[0]
            return found

        return ask, partial(ask, job.images)

    return ready("fixed shape", job, load)


def in_openvino(path: Path, job: Job) -> Contestant:
    """A file in OpenVINO, reshaped to the images of the job, told its arithmetic as ours is; no copies of what goes in
    and out."""
    core = openvino_core()
    settings = openvino_settings(job.cell.precision, job.threads)

    def load() -> tuple[Ask, Callable[[], Any]]:
        model = core.read_model(path)
        model.reshape(list(job.images.shape))
        request = core.compile_model(model, "CPU", settings).create_infer_request()

        def ask(images: np.ndarray) -> np.ndarray:
            return np.array(request.infer([images], share_inputs=True, share_outputs=True)[0])

        return ask, lambda: request.infer([job.images], share_inputs=True, share_outputs=True)

    return ready("fixed shape", job, load)
