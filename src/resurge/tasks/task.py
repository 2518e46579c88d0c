"""What a task is: everything that differs between classification, segmentation and detection is behind this class.

Importing this, the table of tasks and the module `task` of any task imports no torch: the command line asks them for
names and recipe fields before it knows that it needs a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from resurge.config import Section, replaced
from resurge.errors import UserError, suggest

if TYPE_CHECKING:
    from torch import nn

    from resurge.arch.spec import Spec
    from resurge.data.bundle import DataBundle
    from resurge.data.preprocessing import Preprocessing
    from resurge.data.scene_preprocessing import ScenePreprocessing
    from resurge.recipe import Recipe
    from resurge.tasks.objective import Objective

Annotation = Literal["labels", "maps", "objects"]
"""What the data say of an image: one class, a class per pixel, or objects with boxes and perhaps masks."""


class Task(ABC):
    """One task.

    Attributes:
        name: the word in recipes, model.json and on the command line.
        noun: what a network of this task is called in messages.
        heads: the heads it can have; the first one is the default.
        metrics: names of the validation metrics, higher is better; the first selects the checkpoint that is kept.
        train_metrics: names of the metrics of training batches.
        annotation: what it learns from.
        masks: whether its objects have masks.
        one_size: whether preprocessing brings every image to one size; otherwise an image keeps its shape and a batch
            of different images is padded.
        takes_sizes: whether the exported network is also given the size of each image without its padding.
        section: the recipe's section with the numbers of the head; None where there are none.
        idle: fields of a recipe that have no effect, by dotted path.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    heads: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[str, ...]]
    train_metrics: ClassVar[tuple[str, ...]] = ()
    annotation: ClassVar[Annotation]
    masks: ClassVar[bool] = False
    one_size: ClassVar[bool] = False
    takes_sizes: ClassVar[bool] = False
    section: ClassVar[str | None] = None
    idle: ClassVar[tuple[str, ...]] = ()

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
    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        """The losses, the batches and the scores of a training.

        Raises:
            UserError: a field of the recipe does not fit the data.
        """
