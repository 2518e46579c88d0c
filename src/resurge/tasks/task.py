"""What a task is: everything that differs between classification, segmentation and detection is behind this class.

Importing this, the table of tasks and the module `task` of any task imports no torch: the command line asks them for
names and recipe fields before it knows that it needs a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from resurge.config import Section, replaced
from resurge.data.annotations import Annotation
from resurge.errors import UserError, suggest
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

    from resurge.arch.spec import Spec
    from resurge.data.preprocessing import Preprocessing, ScenePreprocessing
    from resurge.data.splits import DataBundle
    from resurge.recipe import Recipe
    from resurge.tasks.evaluation import PreparedImages, Scores
    from resurge.tasks.objective import Objective
    from resurge.tasks.report import Report
    from resurge.tasks.result import Result, Size
    from resurge.weights.catalog import Source


class Inputs(NamedTuple):
    """Images that go through a network together.

    rows: which images of those given. images: float32 (N, C, H, W). sizes: int64 (N, 2), height and width of each image
    without its padding.
    """

    rows: tuple[int, ...]
    images: np.ndarray
    sizes: np.ndarray


class Network(NamedTuple):
    """A trained network, in evaluation mode, with its preprocessing and the names of its classes."""

    model: nn.Module
    preprocessing: Any
    classes: Sequence[str]


class AnnotationFile(Protocol):
    """Results of many images in one file."""

    def add(self, path: Path, size: tuple[int, int], found: Result) -> None:
        """Take in the result of the image at `path`, whose width and height are `size`."""
        ...

    def write(self) -> None:
        """Write the file.

        Raises:
            UserError: it cannot be written.
        """
        ...


class Task(ABC):
    """One task.

    Attributes:
        name: the word in recipes, model.json and on the command line.
        noun: what a network of this task is called in messages.
        usual_classes: classes of the published networks of this task.
        metrics: names of the validation metrics, higher is better; the first selects the checkpoint that is kept.
        train_metrics: names of the metrics of training batches.
        annotation: what it learns from.
        classes: those that it tells apart, whatever the classes of the data are; None for those of the data.
        masks: whether its objects have masks.
        one_size: whether preprocessing brings every image to one size; otherwise an image keeps its shape and a batch
            of different images is padded.
        takes_sizes: whether the exported network is also given the size of each image without its padding.
        in_catalog: whether the named models of the catalogue, with their weights and scores, are networks of this task.
        fixed_cost: whether the work per image is the same whatever is in the image.
        quick: whether a result becomes JSON in next to no time, so that a server need not do it in a thread.
        explains_classes: whether class activation maps can be made: pooling and one linear layer are all of the head.
        decides: whether an export may put out classes in place of logits.
        raw: whether an export may put out candidates and leave the suppression to the caller.
        predict_options, evaluation_options: the options of `resurge predict` and `resurge eval`, by destination, that
            only some tasks take and this one does.
        predict_batch, evaluation_batch: images at a time unless something else is asked for.
        shown_score: the score from which objects are shown unless something else is asked for.
        maps_out: whether `resurge predict --out` names a folder for a label map per image.
        section: the recipe's section with the numbers of the head; None where there are none.
        idle: fields of a recipe that have no effect, by dotted path.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    train_metrics: ClassVar[tuple[str, ...]] = ()
    annotation: ClassVar[Annotation]
    usual_classes: ClassVar[int]
    classes: ClassVar[tuple[str, ...] | None] = None
    masks: ClassVar[bool] = False
    one_size: ClassVar[bool] = False
    takes_sizes: ClassVar[bool] = False
    in_catalog: ClassVar[bool] = False
    fixed_cost: ClassVar[bool] = True
    quick: ClassVar[bool] = False
    explains_classes: ClassVar[bool] = False
    decides: ClassVar[bool] = False
    raw: ClassVar[bool] = False
    predict_options: ClassVar[frozenset[str]] = frozenset()
    evaluation_options: ClassVar[frozenset[str]] = frozenset()
    predict_batch: ClassVar[int] = 1
    evaluation_batch: ClassVar[int] = 8
    shown_score: ClassVar[float] = 0.0
    maps_out: ClassVar[bool] = False
    section: ClassVar[str | None] = None
    idle: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def heads(self) -> tuple[str, ...]:
        """The heads it can have; the first one is the default."""

    def head(self, name: str | None) -> str:
        """The head to build: the named one, or the first.

        Raises:
            UserError: there is no such head.
        """
        if name is None:
            return self.heads[0]
        if name not in self.heads:
            raise UserError(
                f"the task {self.name} has the heads {', '.join(self.heads)}, not {name!r}.{suggest(name, self.heads)}"
            )
        return name

    def default_settings(self) -> Section | None:
        """The numbers of the head as they are when nothing is said; None where there are none."""
        return None

    def read_settings(self, plain: Mapping[str, Any] | None) -> Section | None:
        """The numbers of the head that a model.json holds.

        Raises:
            UserError: a field is unknown or has a value that cannot be.
        """
        default = self.default_settings()
        return None if default is None else replaced(default, plain or {}, "model.json")

    @abstractmethod
    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        """A network with random weights, in training mode.

        Args:
            spec: of the backbone.
            num_classes: classes of the data; a background class of a detector is not counted.
            in_channels: channels of the images.
            head: one of `heads`; None for the first.
            settings: the numbers of the head; None for `default_settings`.
            dropout: before a classifier.

        Raises:
            UserError: there is no such head, or a number is out of range.
        """

    @abstractmethod
    def read_preprocessing(self, values: Mapping[str, Any]) -> Preprocessing | ScenePreprocessing:
        """What a model.json says of the preprocessing.

        Raises:
            UserError, TypeError, ValueError: a field is missing or unknown, or has a value that cannot be.
        """

    @abstractmethod
    def published_preprocessing(self, source: Source | None = None) -> Preprocessing | ScenePreprocessing:
        """What a network with published weights expects to see.

        Args:
            source: the catalogue's entry of the weights, where there is one.
        """

    @abstractmethod
    def adjust(
        self, preprocessing: Preprocessing | ScenePreprocessing, given: Mapping[str, Any]
    ) -> Preprocessing | ScenePreprocessing:
        """The preprocessing with other values.

        Args:
            given: by name, those of size, interpolation, mean, std, crop_pct (classifiers) and max_size (other tasks)
                that change.

        Raises:
            UserError: a value is out of range.
        """

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
        """What an exported network puts out, with what it leaves to its caller done. Needs no torch.

        Args:
            export: the part `export` of model.json.
        """
        return outputs

    @abstractmethod
    def decode(
        self, outputs: Mapping[str, np.ndarray], row: int, seen: Size, size: Size, classes: Sequence[str],
        score: float = 0.0,
    ) -> Result:  # fmt: skip
        """The result for one image of a batch, from what a network puts out. Needs no torch.

        Args:
            outputs: arrays by name, each with a row per image of the batch.
            row: which image.
            seen: height and width of the image in the batch, without its padding.
            size: height and width of the image as it was given.
            score: objects with a lower score are left out.

        Raises:
            UserError: an output is not a finite number.
        """

    def predict(
        self, model: nn.Module, inputs: Inputs, sizes: Sequence[Size], classes: Sequence[str], *, score: float = 0.0,
        tta: TTA = TTA(),
    ) -> list[Result]:  # fmt: skip
        """The results of a network in torch, on the device where it is.

        Args:
            model: in evaluation mode.
            sizes: height and width of each image as it was given.
            score: objects with a lower score are left out.
            tta: test-time augmentation, of segmenters.

        Raises:
            UserError: an output is not a finite number.
        """
        import torch

        device = next(model.parameters()).device
        images, own = (torch.from_numpy(values).to(device) for values in (inputs.images, inputs.sizes))
        with torch.inference_mode():
            outputs = {name: values.cpu().numpy() for name, values in self.outputs(model, images, own, tta).items()}
        seen = [(int(height), int(width)) for height, width in inputs.sizes]
        return [self.decode(outputs, row, seen[row], size, classes, score) for row, size in enumerate(sizes)]

    def outputs(self, model: nn.Module, images: Tensor, sizes: Tensor, tta: TTA = TTA()) -> dict[str, Tensor]:
        """The outputs of a network in torch, by name, as those of an export: `decode` takes both.

        A classifier puts out float32 `logits` (N, K), a segmenter (N, K, H, W), or with test-time augmentation the
        logarithms of averaged probabilities in their place. Of a detector see `resurge.tasks.detect.outputs`.

        Args:
            images: float32 (N, C, H, W), padded at the right and below.
            sizes: int64 (N, 2), height and width of each image without its padding.
        """
        logits: Tensor = model(images)
        return {"logits": logits.float()}

    @abstractmethod
    def columns(self, top: int = 1) -> list[str]:
        """The names of the columns of `Result.to_rows`."""

    def draw(self, image: Image.Image, result: Result, classes: Sequence[str]) -> Image.Image:
        """The image with its result on it.

        Raises:
            UserError: results of this task are not drawn.
        """
        raise UserError(f"the result of a {self.noun} is not drawn on the image.")

    def annotation_file(self, path: Path, classes: Sequence[str]) -> AnnotationFile:
        """A file of annotations that results are collected in.

        Raises:
            UserError: results of this task are not written as annotations.
        """
        raise UserError(f"the results of a {self.noun} are not written as annotations.")

    def heat_map(
        self, model: nn.Module, preprocessing: Preprocessing | ScenePreprocessing, image: Image.Image
    ) -> tuple[Image.Image, Tensor]:
        """Where a network looked: the part of the image that it saw, and a map (h, w) in 0..1 over it: the class
        activation map of the best class, or else the mean activation of the last stage."""
        from resurge.explain.attention import activation_maps, cam

        batch = preprocessing(image)[None].to(next(model.parameters()).device)
        if self.explains_classes:
            return preprocessing.fit(image), cam(model, batch)[0]
        return image, activation_maps(model, batch)[-1][0]

    # ------------------------------------------------------------------------------------- evaluation and training

    @abstractmethod
    def prepared(self, split: Any, preprocessing: Callable[[Image.Image], Tensor]) -> PreparedImages[Any]:
        """The images of a split as a network sees them in evaluation."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Any:
        """A batch of samples of `prepared`: a named tuple with the fields `images` and `indices` and others."""

    @abstractmethod
    def scores(self, classes: Sequence[str], *, tta: TTA = TTA(), examples: int | None = None) -> Scores[Any, Any]:
        """What collects the predictions of an evaluation and computes their scores.

        Args:
            tta: test-time augmentation, of segmenters.
            examples: images of each kind that are named to be looked at; None for the task's usual number.
        """

    def summary(self, result: Mapping[str, Any]) -> dict[str, float | None]:
        """The scores that stand for an evaluation, from all that `Scores.compute` gives."""
        return {name: result[name] for name in self.metrics}

    @abstractmethod
    def score_lines(self, scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
        """The scores for people, from what `Scores.compute` gives: parts that stand below each other."""

    def report(self) -> Report:
        """What this task adds to the report of a run. Imports no torch."""
        from resurge.tasks.report import Report

        return Report()

    @abstractmethod
    def write_pictures(
        self, network: Network, folder: Path, evaluation: dict[str, Any], split: Any, tta: TTA = TTA()
    ) -> None:
        """Write pictures of the images that an evaluation names into `explain/` of a run directory, for its report.

        The entries of `evaluation` get the paths of their pictures.

        Args:
            evaluation: what `Scores.compute` gave, on the images of `split`.
            tta: test-time augmentation, as in the evaluation.

        Raises:
            UserError: an image cannot be read, or a file cannot be written.
        """

    @abstractmethod
    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        """The losses, the batches and the scores of a training.

        Raises:
            UserError: a field of the recipe does not fit the data.
        """
