"""What a task is: everything that differs between classification, segmentation and detection is behind this class.

Importing this, the table of tasks and the module `task` of any task imports no torch: the command line asks them for
names and recipe fields before it knows that it needs a network.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from resurge.config import Section, replaced
from resurge.data.annotations import Annotation
from resurge.errors import UserError
from resurge.files import Json
from resurge.plugins import Table
from resurge.tasks.report import Report
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

    from resurge.arch.spec import Spec
    from resurge.data.bands import Picture
    from resurge.data.loading import SomeSplit
    from resurge.data.splits import DataBundle
    from resurge.recipe import Recipe
    from resurge.tasks.evaluation import Batch, Evaluation, PreparedImages, Scores, Seen
    from resurge.tasks.objective import Objective
    from resurge.tasks.result import Result, Size
    from resurge.weights.download import Source


class Inputs(NamedTuple):
    """Images that go through a network together."""

    rows: tuple[int, ...]  # which images of those given
    images: np.ndarray  # float32 (N, C, H, W)
    sizes: np.ndarray  # int64 (N, 2), height and width of each image without its padding


class Network(NamedTuple):
    """A trained network, in evaluation mode, with its preprocessing and the names of its classes."""

    model: nn.Module
    preprocessing: Seen
    classes: Sequence[str]


class AnnotationFile(Protocol):
    """Results of many images in one file."""

    def add(self, path: Path, size: tuple[int, int], found: Result) -> None:
        """Take in the result of the image at `path`, whose width and height are `size`."""

    def write(self) -> None:
        """Write the file. Raises UserError when that fails."""


class Task(ABC):
    """One task. Each class is made once, without arguments; see `resurge.tasks.table.TASKS`."""

    name: ClassVar[str]  # the word in recipes, model.json and on the command line
    noun: ClassVar[str]  # what a network of this task is called in messages
    metrics: ClassVar[tuple[str, ...]]  # of the validation, higher is better; the first selects the checkpoint
    train_metrics: ClassVar[tuple[str, ...]] = ()  # of training batches, beside the loss and its terms
    annotation: ClassVar[Annotation]  # what it learns from
    usual_classes: ClassVar[int]  # of the published networks
    classes: ClassVar[tuple[str, ...] | None] = None  # that it tells apart; None for those of the data
    one_size: ClassVar[bool] = False  # preprocessing brings every image to one size; else each keeps its shape
    takes_sizes: ClassVar[bool] = False  # batches are padded; what a network does depends on what is in the images
    in_catalog: ClassVar[bool] = False  # the models of the catalogue, their weights and scores are of this task
    explains_classes: ClassVar[bool] = False  # the head is pooling and one linear layer: class activation maps
    predict_options: ClassVar[frozenset[str]] = frozenset()  # of `resurge predict`, by destination, that not all take
    evaluation_options: ClassVar[frozenset[str]] = frozenset()  # the same of `resurge eval`
    predict_batch: ClassVar[int] = 1  # images at a time by default
    evaluation_batch: ClassVar[int] = 8
    shown_score: ClassVar[float] = 0.0  # from which objects are shown by default
    section: ClassVar[str | None] = None  # of the recipe, with the numbers of the head, where there are any
    settings: ClassVar[type[Section] | None] = None  # the class of that section
    idle: ClassVar[tuple[str, ...]] = ()  # fields of a recipe that have no effect, by dotted path
    report: ClassVar[Report] = Report()  # what it adds to the report of a run

    @property
    def masks(self) -> bool:
        """Whether objects have masks."""
        return self.annotation == "masks"

    @property
    def label_maps(self) -> bool:
        """Whether results are label maps."""
        return self.annotation == "maps"

    @cached_property
    def plugin_metrics(self) -> Mapping[str, Callable[..., float]]:
        """Functions of plugins, by name, from what `Scores` collects to one more score, higher is better."""
        return Table(f"{self.name}.metric", {}, plugin_metric)

    @property
    def all_metrics(self) -> tuple[str, ...]:
        """Names of the metrics of a validation, those of plugins last."""
        return (*self.metrics, *self.plugin_metrics)

    @property
    @abstractmethod
    def heads(self) -> tuple[str, ...]:
        """The heads it can have; the first one is the default."""

    def unused_settings(self, head: str) -> tuple[str, ...]:
        """The fields of `section` that a head does not use, by dotted path."""
        return ()

    def read_settings(self, plain: Mapping[str, Any] | None) -> Section | None:
        """The numbers of the head that a model.json holds, if any. Raises UserError for a field that cannot be."""
        return None if self.settings is None else replaced(self.settings(), plain or {}, "model.json")

    @abstractmethod
    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        """A network with random weights, in training mode.

        Args:
            spec: of the backbone.
            num_classes: not counting the background class of a detector.
            head: one of `heads`; None for the first.
            settings: the numbers of the head; None for the usual ones.
            dropout: before a classifier.

        Raises:
            UserError: there is no such head, or a number is out of range.
        """

    def read_preprocessing(self, values: Mapping[str, object]) -> Seen:
        """The preprocessing in a model.json. Raises UserError, TypeError or ValueError for a field that cannot be."""
        from resurge.data.preprocessing import Preprocessing, ScenePreprocessing

        return Preprocessing.from_json(values) if self.one_size else ScenePreprocessing.from_json(values)

    @abstractmethod
    def published_preprocessing(self, source: Source | None = None) -> Seen:
        """What a network with published weights expects to see; `source` is their entry of the catalogue, if any."""

    def adjust(self, preprocessing: Seen, given: Mapping[str, Any]) -> Seen:
        """The preprocessing with other values of size, interpolation, mean, std, crop_pct (classifiers) or max_size
        (other tasks). Raises UserError for one that is out of range."""
        return dataclasses.replace(preprocessing, **given)

    # ------------------------------------------------------------------------------------------------- prediction

    def batches(self, arrays: Sequence[np.ndarray]) -> Iterator[Inputs]:
        """Prepared images float32 (C, h, w) as batches. Images of one size go through a network together and without
        padding, so that none changes the result of another."""
        import numpy as np

        by_size: dict[tuple[int, ...], list[int]] = {}
        for row, array in enumerate(arrays):
            by_size.setdefault(array.shape[1:], []).append(row)
        for size, rows in by_size.items():
            sizes = np.array([size] * len(rows), dtype=np.int64)
            yield Inputs(tuple(rows), np.stack([arrays[row] for row in rows]), sizes)

    def finish(self, outputs: Mapping[str, np.ndarray], export: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """What an exported network puts out, with what it leaves to its caller, by the part `export` of model.json,
        done. Needs no torch."""
        return outputs

    @abstractmethod
    def decode(
        self, outputs: Mapping[str, np.ndarray], row: int, seen: Size, size: Size, classes: Sequence[str],
        score: float = 0.0,
    ) -> Result:  # fmt: skip
        """The result for one image of a batch, from what a network puts out. Needs no torch.

        Args:
            outputs: arrays by name, each with a row per image of the batch.
            seen: height and width of the image in the batch, without its padding. size: as it was given.
            score: objects with a lower score are left out.

        Raises:
            UserError: an output is not a finite number.
        """

    def run(self, model: nn.Module, images: np.ndarray, sizes: np.ndarray, tta: TTA = TTA()) -> dict[str, np.ndarray]:
        """`outputs` as arrays, for those of `Inputs`, of a network in evaluation mode on the device where it is."""
        import torch

        device = next(model.parameters()).device
        batch, own = (torch.from_numpy(values).to(device) for values in (images, sizes))
        with torch.inference_mode():
            return {name: values.cpu().numpy() for name, values in self.outputs(model, batch, own, tta).items()}

    def results(
        self, outputs: Mapping[str, np.ndarray], inputs: Inputs, sizes: Sequence[Size], classes: Sequence[str],
        score: float = 0.0,
    ) -> list[Result]:  # fmt: skip
        """The result for each image of a batch, whose height and width as it was given are in `sizes`; see `decode`."""
        seen = [(int(height), int(width)) for height, width in inputs.sizes]
        return [self.decode(outputs, row, seen[row], size, classes, score) for row, size in enumerate(sizes)]

    def outputs(self, model: nn.Module, images: Tensor, sizes: Tensor, tta: TTA = TTA()) -> dict[str, Tensor]:
        """The outputs of a network in torch, by name, for the tensors of `Inputs`; those of an export are the same.

        A classifier puts out float32 `logits` (N, K), a segmenter (N, K, H, W), or with test-time augmentation the
        logarithms of averaged probabilities in their place. Of a detector see `resurge.tasks.detect.predict`.
        """
        logits: Tensor = model(images)
        return {"logits": logits.float()}

    @abstractmethod
    def columns(self, top: int = 1) -> list[str]:
        """The names of the columns of `Result.to_rows`."""

    def draw(self, image: Image.Image, result: Result, classes: Sequence[str]) -> Image.Image:
        """The image with its result on it. Raises UserError when results of this task are not drawn."""
        raise UserError(f"the result of a {self.noun} is not drawn on the image.")

    def annotation_file(self, path: Path, classes: Sequence[str]) -> AnnotationFile:
        """A file of annotations that results are collected in. Raises UserError when this task has none."""
        raise UserError(f"the results of a {self.noun} are not written as annotations.")

    def heat_map(self, model: nn.Module, preprocessing: Seen, image: Picture) -> tuple[Image.Image, Tensor]:
        """The part of the image that the network saw, and a heat map (h, w) in 0..1 over it: the class activation map
        of the best class, or else the mean activation of the last stage."""
        from resurge.explain.attention import activation_maps, cam

        batch = preprocessing(image)[None].to(next(model.parameters()).device)
        if self.explains_classes:
            return preprocessing.seen(image), cam(model, batch)[0]
        return preprocessing.shown(image), activation_maps(model, batch)[-1][0]

    # ------------------------------------------------------------------------------------- evaluation and training

    def prepared(self, split: SomeSplit, preprocessing: Callable[[Picture], Tensor]) -> PreparedImages:
        """The images of a split as a network sees them in evaluation."""
        from resurge.tasks.evaluation import PreparedImages

        return PreparedImages(split, preprocessing, self.about)

    @abstractmethod
    def about(self, split: SomeSplit, image: Picture, index: int) -> object:
        """What a batch of evaluation holds of an image beside its tensor."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Batch:
        """A batch of samples of `prepared`: a named tuple with the fields `images` and `indices` and others."""

    @abstractmethod
    def scores(self, classes: Sequence[str], *, tta: TTA = TTA(), examples: int | None = None) -> Scores[Any, Any]:
        """What collects the predictions of an evaluation and computes their scores. `examples` images of each kind are
        named; None is the task's usual number."""

    def summary(self, result: Json) -> dict[str, float | None]:
        """The scores that stand for an evaluation, from all that `Scores.compute` gives."""
        scores: dict[str, float | None] = {name: result[name] for name in self.metrics}
        return {**scores, **result.get("plugin_metrics", {})}

    @abstractmethod
    def write_pictures(self, network: Network, folder: Path, evaluation: Evaluation, split: SomeSplit) -> None:
        """Write pictures of the images of `split` that an evaluation names into `explain/` of a run directory, for its
        report. The entries of `evaluation` get the paths of their pictures. What was predicted is taken from
        it and not predicted again: in another precision it could be something else.

        Raises:
            UserError: an image cannot be read, or a file cannot be written.
        """

    @abstractmethod
    def objective(self, recipe: Recipe, bundle: DataBundle[Any]) -> Objective:
        """What a training needs. Raises UserError when a field of the recipe does not fit the data."""


def plugin_metric(name: str, part: object) -> Callable[..., float]:
    """Raises UserError when the object of a plugin is no function."""
    if not callable(part):
        raise UserError(f"is {part!r}; expected a function from results to a number, as docs/plugins.md describes.")
    return part
