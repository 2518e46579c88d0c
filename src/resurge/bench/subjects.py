"""What is measured: a network by name or by its line of text, a run, an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from resurge.arch.spec import Spec
from resurge.arch.zoo import canonical_name, get_spec
from resurge.data.preprocessing import Preprocessing, Values
from resurge.errors import UserError
from resurge.explain.cost import cost
from resurge.export.calibration import Material, Pictures, gather
from resurge.infer.folder import Export, is_export, read_export
from resurge.model_json import folder_of
from resurge.runs import Run, bare_run, load_run
from resurge.tasks.table import TASKS, build_task_model, get_task
from resurge.weights.catalog import Entry, entries


@dataclass(frozen=True)
class Subject:
    """A network to be measured.

    Attributes:
        name: as the user called it.
        spec: of its backbone.
        run: the network itself; None for an export.
        export: None for anything else.
        size: side of the images, pixels.
        channels, classes: of the images and the outputs.
        gmacs: billions of multiply-adds per image, of the network as it was before it was rewritten.
        entry: the published figures, if it has a name.
    """

    name: str
    spec: Spec
    run: Run | None
    export: Export | None
    size: int
    channels: int
    classes: int
    gmacs: float
    entry: Entry | None

    @property
    def trained(self) -> bool:
        """Whether its weights are other than random."""
        return self.run is None or not self.run.meta.get("random_weights")

    @property
    def task(self) -> str:
        """The name of its task."""
        if self.run is not None:
            return self.run.task
        assert self.export is not None
        return str(self.export.meta["task"])

    @property
    def top1(self) -> float | None:
        """Published accuracy, per cent; of the named networks only, since a run has weights of its own."""
        return self.entry.top1 if self.entry is not None and not self.trained else None

    def images(self, count: int, pictures: str | None = None) -> np.ndarray:
        """float32 (count, C, size, size): pictures, as `material` takes them; each again where there are too few.

        Noise would do for the speed, and not for the answers: int8 has the ranges of pictures.
        """
        batches = [each.images for each in self._gathered(pictures).measured.few(count).batches(self.preprocessing())]
        shape = (self.channels, self.size, self.size)
        found = np.concatenate([each for each in batches if each.shape[1:] == shape] or [np.zeros((0, *shape))])
        if not len(found):  # a segmenter's pictures keep their own sizes
            found = np.random.default_rng(0).standard_normal((count, *shape))
        return np.ascontiguousarray(np.resize(found, (count, *shape)), dtype=np.float32)

    def preprocessing(self) -> Values:
        """What makes images of this size of a picture."""
        if self.run is not None:
            seen = self.run.preprocessing
        else:
            assert self.export is not None
            seen = get_task(self.task).read_preprocessing(self.export.meta["preprocessing"])
        return dataclasses.replace(seen, size=self.size) if isinstance(seen, Preprocessing) else seen

    def material(self, pictures: str | None, limit: int) -> Material:
        """At most `limit` pictures to calibrate int8 on; see `resurge.export.calibration.gather`.

        Raises:
            UserError: there are no pictures where they should be.
        """
        found = self._gathered(pictures)
        return dataclasses.replace(found, calibration=found.calibration.few(limit))

    def pictures(self, source: str) -> Pictures:
        """The pictures of a folder that are kept for measuring.

        Raises:
            UserError: there are none.
        """
        return self._gathered(source).measured

    def _gathered(self, source: str | None) -> Material:
        run = self.run
        if run is None:  # pictures are asked for by what an export says as well
            assert self.export is not None
            meta = self.export.meta
            names = tuple(str(name) for name in meta["classes"])
            run = Run(self.export.folder, self.task, nn.Module(), self.spec, names, None, meta, None)
        return gather(dataclasses.replace(run, preprocessing=self.preprocessing()), source)


def check_word(word: str) -> None:
    """Raises UserError when `open_subject` would not know a word, without loading anything large."""
    if folder_of(word) is None:
        get_spec(word)


def open_subject(word: str, size: int | None = None) -> Subject:
    """A network by name, alias, text, run folder or export folder.

    By name it has random weights, scaled so that its answers depend on what it is shown.

    Args:
        size: side of the images; None for the run's, or what the published figures of the network are for.

    Raises:
        UserError: there is no such network or folder, the folder is damaged, or it is of a detector.
    """
    folder = folder_of(word)
    if folder is None:
        return _of_name(word, size)
    if is_export(folder):
        return _of_export(word, read_export(folder), size)
    return _of_run(word, load_run(folder), size)


def _of_export(word: str, export: Export, size: int | None) -> Subject:
    meta = export.meta
    task, spec = _measurable(word, meta), get_spec(meta["spec"])
    channels, classes = int(meta["in_channels"]), len(meta["classes"])
    side = size or _side(meta["preprocessing"].get("size"), spec)
    export = Export(export.folder, {**meta, "preprocessing": {**meta["preprocessing"], "size": side}})
    with torch.device("meta"):
        network = build_task_model(task, spec, classes, channels, meta.get("head")).eval()
    return Subject(word, spec, None, export, side, channels, classes, _gmacs(network, side), _entry(spec))


def _of_run(word: str, run: Run, size: int | None) -> Subject:
    _measurable(word, run.meta)
    side = size or _side(getattr(run.preprocessing, "size", None), run.spec)
    channels, classes = int(run.meta["in_channels"]), len(run.classes)
    return Subject(word, run.spec, run, None, side, channels, classes, _gmacs(run.model, side), _entry(run.spec))


def _of_name(word: str, size: int | None) -> Subject:
    spec = get_spec(word)
    entry = _entry(spec)
    side = size or _side(entry.cost_size if entry else None, spec)
    classes = entry.classes if entry else 1000
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _calibrated(build_task_model(next(iter(TASKS)), spec, classes), side)
    run = bare_run(word, spec, model, Preprocessing(side), classes, random_weights=True)
    return Subject(word, spec, run, None, side, 3, classes, _gmacs(model, side), entry)


def _measurable(word: str, meta: Mapping[str, object]) -> str:
    """The task of a run or an export.

    Raises:
        UserError: it is not measured here.
    """
    task = str(meta.get("task", next(iter(TASKS))))
    if get_task(task).takes_sizes:
        raise UserError(
            f"{word} is of the task {task}. Classifiers and segmenters are measured here: how long a detector takes "
            "depends on what it finds."
        )
    return task


def _entry(spec: Spec) -> Entry | None:
    return entries().get(canonical_name(spec) or "")


def _side(stated: object, spec: Spec) -> int:
    return stated if isinstance(stated, int) and stated > 0 else 32 if spec.stem.stride == 1 else 224


def _gmacs(model: nn.Module, side: int) -> float:
    return cost(model, (side, side)).total.macs / 1e9


@torch.no_grad()
def _calibrated(model: nn.Module, side: int) -> nn.Module:
    """Random scales and shifts, and running statistics measured on waves and noise.

    With the initial statistics of BatchNorm a deep network with random weights has nearly the same outputs for every
    image: a comparison of two such networks would pass whatever they compute, and int8 would have no ranges.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.normal_(std=0.3)
        norm.momentum = None  # a plain average
    # Attention sees one number per image and channel: the statistics of few images would be those of chance, and would
    # amplify an image that differs from them, rounding errors included.
    side, count = min(side, 128), 32
    y, x = torch.linspace(-3, 3, side)[:, None], torch.linspace(-3, 3, side)
    slopes = torch.randn(count, 3, 2, 1, 1) * torch.rand(count, 1, 1, 1, 1) * 4
    images = torch.sin(slopes[:, :, 0] * x + slopes[:, :, 1] * y) * torch.rand(count, 1, 1, 1) * 2
    images = images + torch.randn(count, 3, 1, 1) + torch.randn(count, 3, side, side) * torch.rand(count, 1, 1, 1)
    model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
