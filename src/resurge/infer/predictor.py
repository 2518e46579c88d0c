"""One way from pictures to answers, for a trained run and for an export of one.

Importing this imports no torch, and neither does predicting with an export in the formats openvino and onnx.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from resurge.data.preprocessing import Preprocessing
from resurge.data.scene_preprocessing import ScenePreprocessing
from resurge.errors import UserError
from resurge.infer.engines import Engine, open_engine
from resurge.infer.folder import Export, is_export, read_export
from resurge.infer.tta import Views
from resurge.tasks.detect.outputs import Suppression, batched, found_in
from resurge.tasks.results import Answer, Classified, Found, LabelMap

if TYPE_CHECKING:
    from resurge.infer.engines.live import Live
    from resurge.runs import Run


class Predictor:
    """A run or an export, loaded: images go in, answers come out.

    The images are prepared exactly as training's evaluation prepared them.

    Attributes:
        task: classify, segment, detect or instances.
        classes: their names.
        preprocessing: what is done to an image; a `Preprocessing` or a `ScenePreprocessing`. It may be replaced.
        meta: the content of model.json.
        format: onnx, openvino, torch, or run.
        precision: what is computed in, which may be another than was exported; see `notes`.
        notes: what is other than was asked for, in sentences.
        run: the run itself, or None for an export.
        views: how a segmenter is asked unless `predict` says otherwise: as the run's recipe tests.
    """

    def __init__(self, folder: str | os.PathLike[str], device: str = "auto", threads: int | None = None) -> None:
        """Load a folder of `resurge train` or `resurge export`.

        Args:
            device: auto, cpu, cuda, …
            threads: of the arithmetic; None leaves it to the runtime.

        Raises:
            UserError: it is neither, it is damaged, its runtime is not installed, or the device is not there.
        """
        root = Path(folder)
        if root.is_dir() and is_export(root):
            export = read_export(root)
            self._set(export.folder, export.meta, open_engine(export, device, threads), _preprocessing(export))
        else:
            self._set_run(_load(root, device, threads))

    @classmethod
    def of_run(cls, run: Run) -> Predictor:
        """Of a run that is loaded already, on the device where its network is."""
        made = cls.__new__(cls)
        made._set_run(run)
        return made

    def _set_run(self, run: Run) -> None:
        from resurge.infer.engines.live import Live

        self._set(run.folder, run.meta, Live(run), run.preprocessing, run)

    def _set(
        self, folder: Path, meta: Mapping[str, Any], engine: Engine, preprocessing: Any, run: Run | None = None
    ) -> None:
        self.folder, self.meta, self.engine, self.preprocessing, self.run = folder, meta, engine, preprocessing, run
        self.task = str(meta.get("task", "classify"))
        self.classes = tuple(str(name) for name in meta["classes"])
        self.format, self.precision, self.notes = engine.format, engine.precision, engine.notes
        self.views = Views.of_recipe(None if run is None else run.recipe)

    def predict(self, images: Sequence[Image.Image], *, score: float = 0.0, views: Views | None = None) -> list[Answer]:
        """An answer for each image, in order. They are one batch: memory grows with their number.

        An answer does not depend on what else is in the batch, except for what padding does to a detector's borders.

        Args:
            images: upright pictures of any mode, size and number; see `resurge.data.images.open_image`.
            score: of a detector: leave out what has a lower score.
            views: of a segmenter: how to ask it; see `resurge.tasks.segment.sliding`. An export is asked once, plainly.

        Raises:
            UserError: the network cannot take an image, or an export is asked for several views.
        """
        if not images:
            return []
        if self.task == "classify":
            return self._classified(images)
        if self.task == "segment":
            return self._segmented(images, self.views if views is None else views)
        if self.run is None:
            return self._detected(images, score)
        return list(self._live().find(images, self.preprocessing, score))

    def _classified(self, images: Sequence[Image.Image]) -> list[Answer]:
        batch = np.stack([self.preprocessing.array(image) for image in images])
        logits = _finite(self.engine.run(batch)["logits"])
        return [Classified.of(row, self.classes) for row in logits]

    def _segmented(self, images: Sequence[Image.Image], views: Views) -> list[Answer]:
        arrays = [self.preprocessing.array(image) for image in images]
        # Images of one size go through the network together and without padding, so that none changes another.
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, array in enumerate(arrays):
            by_size.setdefault(array.shape, []).append(index)
        found: dict[int, Answer] = {}
        for rows in by_size.values():
            outputs = self._asked(np.stack([arrays[row] for row in rows]), views)
            for place, row in enumerate(rows):
                own = {name: values[place] for name, values in outputs.items()}
                found[row] = _label_map(own, images[row])
        return [found[index] for index in range(len(images))]

    def _detected(self, images: Sequence[Image.Image], score: float) -> list[Answer]:
        batch, sizes = batched([self.preprocessing.array(image) for image in images])
        outputs = self.engine.run(batch, sizes)
        suppression = Suppression.of(self.meta["export"])
        if suppression is not None:
            outputs = suppression(outputs)
        return [
            found_in(outputs, row, (int(sizes[row, 0]), int(sizes[row, 1])), (image.height, image.width), score)
            for row, image in enumerate(images)
        ]

    def _asked(self, batch: np.ndarray, views: Views) -> dict[str, np.ndarray]:
        return self.engine.run(batch) if views.plain else self._live().run(batch, views=views)

    def _live(self) -> Live:
        from resurge.infer.engines.live import Live

        if isinstance(self.engine, Live):
            return self.engine
        raise UserError(
            f"{self.folder} is an export, which gives each image one forward pass. Leave out --scales, --flip and "
            "--window, or predict with the run it was made of."
        )


def _load(root: Path, device: str, threads: int | None) -> Run:
    import torch

    from resurge.runs import load_run
    from resurge.tasks.classify.evaluate import pick_device

    if threads is not None:
        torch.set_num_threads(threads)
    return load_run(root, pick_device(device))


def _preprocessing(export: Export) -> Preprocessing | ScenePreprocessing:
    kind = Preprocessing if export.meta["task"] == "classify" else ScenePreprocessing
    try:
        return kind.from_json(dict(export.meta["preprocessing"]))
    except (TypeError, ValueError) as error:
        raise UserError(f"{export.folder}/model.json is damaged: preprocessing ({error}). Export again.") from None


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise UserError(
            "the network's answer is not a number: its weights are damaged, or, in fp16, numbers above 65,504 came up. "
            "Train or export it again, in bf16 or fp32."
        )
    return values


def _label_map(outputs: Mapping[str, np.ndarray], image: Image.Image) -> LabelMap:
    size = (image.height, image.width)
    if "logits" in outputs:
        return LabelMap.of(_finite(outputs["logits"]), size)
    labels = outputs["classes"].astype(np.uint8)
    if labels.shape != size:
        labels = np.asarray(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))
    return LabelMap(labels, float(_finite(outputs["confidence"]).mean(dtype=np.float64)))


__all__ = ["Answer", "Classified", "Found", "LabelMap", "Predictor", "Views"]
