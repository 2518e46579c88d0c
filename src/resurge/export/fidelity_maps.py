"""How far an exported segmenter is from the run's: label maps of both, picture by picture.

A segmenter's pictures keep their size, and its logits have a plane a class: hundreds of either do not fit into memory.
So a picture is read whenever it is asked for, and of what the run says of it the label map alone is kept, compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from resurge.data.preprocessing import Values
from resurge.data.splits import IGNORE
from resurge.errors import UserError
from resurge.export.calibration import Material, Pictures, unreadable
from resurge.export.fidelity import Comparison, Run, decisions, points_lost
from resurge.export.quantize import CALIBRATION, Ask, Trial
from resurge.files import Json
from resurge.infer.engines.engine import INPUT
from resurge.tasks.segment.metrics import confusion_matrix, map_scores
from resurge.tasks.segment.predict import enlarged_classes

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Scene:
    """A picture. image: float32 (1, C, h, w), as the network is given it. size: its own. truth: uint8 (H, W), classes
    of the run and IGNORE, where they are known."""

    index: int
    image: np.ndarray
    size: Size
    truth: np.ndarray | None


@dataclass(frozen=True)
class Scenes:
    """Pictures with their label maps, where they have any, one at a time. classes: of the run."""

    pictures: Pictures
    preprocessing: Values
    classes: tuple[str, ...]

    def __iter__(self) -> Iterator[Scene]:
        """Those that cannot be read are passed over."""
        for index in self.pictures.indices:
            try:
                scene = self.read(index)
            except UserError:
                continue
            yield scene

    def read(self, index: int) -> Scene:
        """The picture at an index of the split.

        Raises:
            UserError: it or its label map cannot be read, or they are of different sizes.
        """
        image = self.pictures.split.read(index)
        size = (image.height, image.width)
        return Scene(index, self.preprocessing.array(image)[None], size, self._truth(index, size))

    def _truth(self, index: int, size: Size) -> np.ndarray | None:
        known = self.pictures.classes
        if not known or not set(known) <= set(self.classes):
            return None
        told = self.pictures.split.target(index)
        if told.shape != size:
            raise UserError(f"a picture of {size} has a label map of {told.shape}; `resurge check-data` lists them.")
        ours = np.full(256, IGNORE, dtype=np.uint8)
        ours[: len(known)] = [self.classes.index(name) for name in known]
        return ours[told]


class Inputs(Sequence[dict[str, np.ndarray]]):
    """What a network is given of pictures, one each, read whenever it is asked for."""

    def __init__(self, pictures: Pictures, preprocessing: Values) -> None:
        self.pictures, self.preprocessing = pictures, preprocessing
        self._indices = tuple(index for index in pictures.indices if self._readable(index))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, row: Any) -> Any:
        return self._read(self._indices[row])

    def _read(self, index: int) -> dict[str, np.ndarray]:
        return {INPUT: self.preprocessing.array(self.pictures.split.read(index))[None]}

    def _readable(self, index: int) -> bool:
        try:
            self._read(index)
        except UserError:
            return False
        return True


@dataclass
class MapComparison(Comparison):
    """Sums over pictures. A decision is the class of a pixel as the network saw the picture; right and wrong are
    counted at the picture's own size, as `resurge eval` counts them. classes: of the run."""

    classes: tuple[str, ...] = ()
    _confusion: list[np.ndarray] = field(default_factory=list, repr=False)

    def add_scene(
        self, before: dict[str, np.ndarray], after: dict[str, np.ndarray], scene: Scene, old: np.ndarray | None
    ) -> None:
        """Take in the outputs for a picture. old: the confusion matrix of the run, where the truth is known."""
        self.add(before, after, None)
        if scene.truth is None or old is None:
            return
        new = confusion(after, scene, len(self.classes))
        sums = self._confusion or [np.zeros_like(old), np.zeros_like(old)]
        self._confusion = [total + one for total, one in zip(sums, (old, new), strict=True)]
        self.labelled += int(new.sum())

    def miou(self) -> tuple[float, float] | None:
        """Mean intersection over union (0..1) before and after; None where no pixel's class is known."""
        if not self.labelled:
            return None
        old, new = (map_scores(matrix, ())["miou"] or 0.0 for matrix in self._confusion)
        return old, new

    @property
    def drop(self) -> float:
        """What is lost, in points: of mIoU where label maps are known, else of agreement."""
        return points_lost(self.miou(), self.agreement)

    @property
    def quality(self) -> float:
        """What is to be kept up: mIoU, or, where no label maps are known, the agreement."""
        known = self.miou()
        return self.agreement if known is None else known[1]

    def to_json(self) -> Json:
        """As certificate.json states it."""
        said, known = super().to_json(), self.miou()
        if known is not None:
            said["accuracy"] = {"of": "mIoU", "labelled": self.labelled, "before": known[0], "after": known[1]}
        return said


def confusion(outputs: dict[str, np.ndarray], scene: Scene, classes: int) -> np.ndarray:
    """int64 (classes, classes): pixels of a picture by [true class][class told], enlarged as a `Predictor` does."""
    if "logits" in outputs:
        told, _ = enlarged_classes(outputs["logits"][0], scene.size)
    else:
        height, width = scene.size
        image = Image.fromarray(outputs["classes"][0].astype(np.uint8))
        told = np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
    assert scene.truth is not None
    return confusion_matrix(told, scene.truth, classes, IGNORE)


def compare_maps(scenes: Scenes, before: Run, after: Run) -> MapComparison:
    """What the run says of pictures, and what another network does."""
    found = MapComparison(classes=scenes.classes)
    for scene in scenes:
        old = before(scene.image)
        right = None if scene.truth is None else confusion(old, scene, len(scenes.classes))
        found.add_scene(old, after(scene.image), scene, right)
    return found


@dataclass(frozen=True)
class Remembered:
    """What the run says of the picture at `index`: the class of every pixel as it saw it, and the confusion matrix."""

    index: int
    classes: Packed
    confusion: Packed | None


@dataclass(frozen=True)
class Packed:
    """An array, compressed. Label maps are mostly areas of one class, confusion matrices mostly zeros."""

    content: bytes
    kind: np.dtype[Any]
    shape: tuple[int, ...]

    @staticmethod
    def of(values: np.ndarray) -> Packed:
        return Packed(zlib.compress(values.tobytes(), 1), values.dtype, values.shape)

    def values(self) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self.content), self.kind).reshape(self.shape)


def maps_trial(scenes: Scenes, before: Run, material: Material) -> Trial:
    """What an int8 segmenter is calibrated with and judged by; see `Trial`.

    Raises:
        UserError: none of the pictures can be read.
    """

    def told() -> Iterator[Remembered]:
        for scene in scenes:
            old = before(scene.image)
            right = None if scene.truth is None else Packed.of(confusion(old, scene, len(scenes.classes)))
            yield Remembered(scene.index, Packed.of(decisions(old).astype(np.uint8)), right)

    def compared(ask: Ask, some: Iterable[Remembered]) -> MapComparison:
        found = MapComparison(classes=scenes.classes)
        for item in some:
            scene = scenes.read(item.index)
            right = None if item.confusion is None else item.confusion.values()
            found.add_scene({"classes": item.classes.values()}, ask({INPUT: scene.image}), scene, right)
        return found

    remembered = list(told())
    if not remembered:
        raise unreadable(material.measured_on)
    inputs = Inputs(material.calibration.few(CALIBRATION), scenes.preprocessing)
    return Trial(inputs, remembered, compared, batch=1)
