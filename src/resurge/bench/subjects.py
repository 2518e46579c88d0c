"""What is measured: a network by name or by its line of text, a run, an export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from resurge.arch.spec import Spec
from resurge.arch.zoo import canonical_name, get_spec
from resurge.data.preprocessing import Preprocessing
from resurge.errors import UserError
from resurge.explain.cost import cost
from resurge.explain.equalities import calibrate
from resurge.export.calibration import Batch, Pictures, gather
from resurge.infer.folder import Export, is_export, read_export
from resurge.run_files import folder_of
from resurge.runs import Run, bare_run, load_run
from resurge.tasks.table import DEFAULT, build_task_model, get_task
from resurge.weights.catalog import Entry, entries


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to be measured.

    Attributes:
        name: as the user called it.
        run: the network with its preprocessing; of an export one without weights.
        size: side of the images, pixels.
        export: None for anything else.
    """

    name: str
    run: Run
    size: int
    export: Export | None = None

    @property
    def channels(self) -> int:
        return int(self.run.meta["in_channels"])

    @property
    def trained(self) -> bool:
        """Whether its weights are other than random."""
        return not self.run.meta.get("random_weights")

    @cached_property
    def gmacs(self) -> float:
        """Billions of multiply-adds per image, of the network as it was before it was rewritten."""
        return cost(self.run.model, (self.size, self.size)).total.macs / 1e9

    @property
    def entry(self) -> Entry | None:
        """The published figures, if its spec has a name."""
        return _entry(self.run.spec)

    @property
    def top1(self) -> float | None:
        """Published accuracy, per cent; of the named networks only, since a run has weights of its own."""
        return self.entry.top1 if self.entry is not None and not self.trained else None

    def images(self, count: int, source: str | None = None) -> np.ndarray:
        """float32 (count, C, size, size): pictures, as `gather` takes them; each again where there are too few.

        Noise would do for the speed, and not for the outputs: int8 has the ranges of pictures.
        """
        shape = (self.channels, self.size, self.size)
        batches = self.batches(gather(self.run, source).measured.few(count), 8)
        found = [batch.images for batch in batches if batch.images.shape[1:] == shape]
        if not found:  # a segmenter's pictures keep their own sizes
            found = [np.random.default_rng(0).standard_normal((count, *shape))]
        return np.ascontiguousarray(np.resize(np.concatenate(found), (count, *shape)), dtype=np.float32)

    def batches(self, pictures: Pictures, size: int) -> Iterator[Batch]:
        """Pictures as the network is given them, `size` at a time."""
        return pictures.batches(get_task(self.run.task), self.run.preprocessing, size)


def check_word(word: str) -> None:
    """Raises UserError when `open_subject` would not know a word, without loading anything large."""
    if folder_of(word) is None:
        get_spec(word)


def open_subject(word: str, size: int | None = None) -> Subject:
    """A network by name, alias, text, run folder or export folder.

    By name it has random weights, with running statistics by which its outputs depend on the image.

    Args:
        size: side of the images; None for the run's, or what the published figures of the network are for.

    Raises:
        UserError: there is no such network or folder, the folder is damaged, or it is of a detector.
    """
    folder, export = folder_of(word), None
    if folder is None:
        run = _of_name(word, size)
    elif is_export(folder):
        export = read_export(folder)
        run = _of_export(export)
    else:
        run = load_run(folder)
    if get_task(run.task).takes_sizes:
        raise UserError(
            f"{word} is of the task {run.task}. Classifiers and segmenters are measured here: how long a detector "
            "takes depends on what it finds."
        )
    side = size or _side(getattr(run.preprocessing, "size", None), run.spec)
    if isinstance(run.preprocessing, Preprocessing):
        run = replace(run, preprocessing=replace(run.preprocessing, size=side))
    if export is not None:
        export = replace(export, meta={**run.meta, "preprocessing": {**run.meta["preprocessing"], "size": side}})
    return Subject(word, run, side, export)


def _of_export(export: Export) -> Run:
    """An export as a run without weights."""
    meta, spec, task = export.meta, get_spec(export.meta["spec"]), get_task(export.meta["task"])
    classes, settings = tuple(map(str, meta["classes"])), task.read_settings(meta.get("head_settings"))
    with torch.device("meta"):
        network = task.build(spec, len(classes), int(meta["in_channels"]), meta.get("head"), settings).eval()
    seen = task.read_preprocessing(meta["preprocessing"])
    return Run(export.folder, task.name, network, spec, classes, seen, meta, None)


def _of_name(word: str, size: int | None) -> Run:
    """A network with random weights, and running statistics measured on waves and noise.

    With the initial statistics of BatchNorm a deep network with random weights has nearly the same outputs for every
    image: a comparison of two such networks would pass whatever they compute, and int8 would have no ranges.
    """
    spec = get_spec(word)
    entry = _entry(spec)
    side = size or _side(entry.cost_size if entry else None, spec)
    classes = entry.classes if entry else 1000
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = build_task_model(DEFAULT, spec, classes)
        calibrate(model, _waves(min(side, 128)))
    return bare_run(word, spec, model, Preprocessing(side), classes, random_weights=True)


def _waves(side: int, count: int = 32) -> torch.Tensor:
    """Images (count, 3, side, side).

    Attention sees one number per image and channel: the statistics of few images would be those of chance, and would
    amplify an image that differs from them, rounding errors included.
    """
    y, x = torch.linspace(-3, 3, side)[:, None], torch.linspace(-3, 3, side)
    slopes = torch.randn(count, 3, 2, 1, 1) * torch.rand(count, 1, 1, 1, 1) * 4
    images = torch.sin(slopes[:, :, 0] * x + slopes[:, :, 1] * y) * torch.rand(count, 1, 1, 1) * 2
    return images + torch.randn(count, 3, 1, 1) + torch.randn(count, 3, side, side) * torch.rand(count, 1, 1, 1)


def _entry(spec: Spec) -> Entry | None:
    return entries().get(canonical_name(spec) or "")


def _side(stated: object, spec: Spec) -> int:
    return stated if isinstance(stated, int) and stated > 0 else 32 if spec.stem.stride == 1 else 224
