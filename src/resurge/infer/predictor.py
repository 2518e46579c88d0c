"""From images to results, for a trained run and for an export of one alike.

Importing this imports no torch, and neither does predicting with an export in the formats openvino and onnx.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurge.data.preprocessing import Preprocessing, ScenePreprocessing
from resurge.errors import UserError
from resurge.infer.engines import Engine, open_engine
from resurge.infer.folder import Export, is_export, read_export
from resurge.infer.pictures import Given, opened
from resurge.tasks.result import Result
from resurge.tasks.table import DEFAULT, get_task
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from resurge.runs import Run

Seen = Preprocessing | ScenePreprocessing


class Predictor:
    """A run or an export, loaded: images go in, results come out. It is called with them.

    The images are prepared exactly as training's evaluation prepared them.

    Attributes:
        task: classify, segment, detect or instances.
        classes: their names.
        preprocessing: what is done to an image. It may be replaced.
        meta: the content of model.json.
        format: onnx, openvino, torch, or run.
        precision: of the arithmetic, which may differ from that of the export; see `notes`.
        notes: what differs from the settings, in sentences.
        run: the run itself, or None for an export.
        views: test-time augmentation by default: that of the run's recipe.
    """

    def __init__(
        self, folder: str | os.PathLike[str], device: str = "auto", threads: int | None = None, *, best: bool = False
    ) -> None:
        """Load a folder of `resurge train` or `resurge export`.

        Args:
            device: auto, cpu, cuda, …
            threads: of the arithmetic; None leaves it to the runtime.
            best: take the best network so far of a training that is not over.

        Raises:
            UserError: it is neither, it is damaged, its runtime is not installed, or the device is not there.
        """
        if Path(folder).is_file():
            raise UserError(
                f"{folder} is a file. A Predictor is made of the folder of `resurge train` or `resurge export`, and "
                "called with images: Predictor(folder)(image)."
            )
        if Path(folder).is_dir() and is_export(folder) and not best:
            export = read_export(folder)
            self._set(export.folder, export.meta, open_engine(export, device, threads), _preprocessing(export))
        else:
            self._set_run(_load(folder, device, threads, best))

    @classmethod
    def of_run(cls, run: Run) -> Predictor:
        """Of a run that is loaded already, on the device where its network is."""
        predictor = cls.__new__(cls)
        predictor._set_run(run)
        return predictor

    def _set_run(self, run: Run) -> None:
        from resurge.infer.engines.torch import Live

        self._set(run.folder, run.meta, Live(run), run.preprocessing, run)

    def _set(
        self, folder: Path, meta: Mapping[str, Any], engine: Engine, preprocessing: Seen, run: Run | None = None
    ) -> None:
        self.folder, self.meta, self.engine, self.preprocessing, self.run = folder, meta, engine, preprocessing, run
        self.task = str(meta.get("task", DEFAULT))
        self.classes = tuple(str(name) for name in meta["classes"])
        self.format, self.precision, self.notes = engine.format, engine.precision, engine.notes
        self.views = TTA.of_recipe(None if run is None else run.recipe)

    def __call__(
        self, images: Given | Iterable[Given], *, score: float | None = None, views: TTA | None = None,
        batch_size: int | None = None,
    ) -> list[Result]:  # fmt: skip
        """The result for each image, in order: a list also for a single one.

        >>> predictor = resurge.Predictor("runs/photos")
        >>> predictor("cat.jpg")[0].to_text(predictor.classes)
        >>> predictor(["cat.jpg", numpy_array, pil_image])

        Args:
            images: a path of a file or of a folder, a PIL image, an array uint8 (H, W, 3) in RGB order or (H, W), the
                bytes of a file, or a list of these.
            score: of a detector: objects with a lower score are left out; None for what `resurge predict` shows, 0.5.
            views: see `predict`.
            batch_size: images that are in memory and go through the network at a time; None for the task's usual
                number.

        Raises:
            UserError: something else was given, a file cannot be read, and what `predict` raises.
        """
        task = get_task(self.task)
        score = task.shown_score if score is None else score
        waiting, results = opened(images), []
        while batch := list(islice(waiting, batch_size or task.predict_batch)):
            results += self.predict(batch, score=score, views=views)
        return results

    def predict(self, images: Given | Iterable[Given], *, score: float = 0.0, views: TTA | None = None) -> list[Result]:
        """The result for each image, in order. They are one batch: memory grows with their number. A call of the
        predictor itself reads and predicts a few at a time.

        A result does not depend on what else is in the batch, except for what padding does to a detector's borders.

        Args:
            images: as a call takes them, with the bands and the depth of the training images.
            score: of a detector: objects with a lower score are left out.
            views: of a segmenter: test-time augmentation. An export gives each image one forward pass.

        Raises:
            UserError: the network cannot take an image (`OtherBands`: it has other bands), or test-time augmentation
                with an export.
        """
        task, tta = get_task(self.task), self.views if views is None else views
        if self.run is None and not tta.plain:
            raise UserError(
                f"{self.folder} is an export, which gives each image one forward pass. Leave out --scales, --flip and "
                "--window, or predict with the run it was made of."
            )
        pictures = list(opened(images))
        results: dict[int, Result] = {}
        for inputs in task.batches([self.preprocessing.array(image) for image in pictures]) if pictures else ():
            if self.run is None:
                outputs = task.finish(self.engine.run(inputs.images, inputs.sizes), self.meta["export"])
            else:
                outputs = task.run(self.run.model, inputs.images, inputs.sizes, tta)
            sizes = [(pictures[row].height, pictures[row].width) for row in inputs.rows]
            found = task.results(outputs, inputs, sizes, self.classes, score)
            results.update(zip(inputs.rows, found, strict=True))
        return [results[row] for row in range(len(pictures))]


def _load(folder: str | os.PathLike[str], device: str, threads: int | None, best: bool) -> Run:
    import torch

    from resurge.runs import load_run
    from resurge.tasks.running import pick_device
    from resurge.train.checkpoint import load_best

    if threads is not None:
        torch.set_num_threads(threads)
    return (load_best if best else load_run)(folder, pick_device(device))


def _preprocessing(export: Export) -> Seen:
    try:
        return get_task(export.meta["task"]).read_preprocessing(export.meta["preprocessing"])
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"{export.folder}/model.json is damaged: preprocessing ({error}). Export again.") from None


__all__ = ["TTA", "Predictor", "Result"]
