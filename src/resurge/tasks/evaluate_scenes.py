"""Scores of detectors, instance segmenters and semantic segmenters on a split, always at the images' own size.

One object takes in batches and gives the scores, in a training's validation and here; `evaluate_scenes` is a loop over
it. Beside the scores it names images to look at: the best, the worst, and those with the surest mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from resurge.data.images import read_bytes, read_header
from resurge.data.scenes import IGNORE, MaskSplit, ObjectSplit, Sample, SceneBatch, collate_scenes
from resurge.errors import UserError
from resurge.tasks.detect.metrics import AveragePrecision, Matches, encode_masks, f1, match
from resurge.tasks.running import autocast, evaluating, pick_device
from resurge.tasks.segment.metrics import LabelMapScores, scores_of
from resurge.tasks.segment.sliding import class_values
from resurge.tasks.tta import TTA

EXAMPLES = 12
Scenes = ObjectSplit | MaskSplit
Gather = Callable[[Any], list[Any]]
_STRIP = 1 << 24  # numbers a strip of enlarged logits has at most


class PreparedScenes(Dataset[Sample]):
    """Images of a split as a network sees them in evaluation: ((C, h, w), {"original": (2,)}, index)."""

    def __init__(self, split: Scenes, preprocessing: Callable[[Any], Tensor]) -> None:
        self.split = split
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        index = key[1] if isinstance(key, tuple) else key  # (epoch, index), as samplers of a training ask
        image = self.split.read(index)
        return self.preprocessing(image), {"original": torch.tensor([image.height, image.width])}, index


class SceneScores:
    """Scores of one of the tasks detect, instances and segment, batch by batch.

    A batch's images are found again in the split by the batch's indices; the truth is taken from the split at the
    image's own size, not from the batch's targets, which are resized. An image counts once however often it comes.
    """

    def __init__(
        self,
        task: str,
        classes: Sequence[str],
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: Any = None,
        examples: int = EXAMPLES,
    ) -> None:
        """`scales`, `flip` and `window` are for segment, see `resurge.tasks.segment.sliding.predict_probabilities`; of
        `examples` so many are named of each sort."""
        self.task = task
        self.classes = tuple(classes)
        self.inference: dict[str, Any] = {"scales": tuple(scales), "flip": flip, "window": window}
        self.examples = examples
        self._truth: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all predictions. What is known of the truth is kept, so another validation reads no annotations."""
        kinds = ("box", "mask") if self.task == "instances" else ("box",)
        self._precision = AveragePrecision(self.classes, kinds)
        self._images: dict[str, dict[str, Any]] = {}

    def update(self, model: nn.Module, batch: SceneBatch, split: Scenes) -> None:
        """Predict a batch, which is on the model's device, and take in the result.

        Raises:
            UserError: the model has another number of classes, an image or its truth cannot be read.
        """
        if isinstance(split, MaskSplit):
            self._update_maps(model, batch, split)
        else:
            self._update_objects(model, batch, split)

    def state(self) -> dict[str, Any]:
        """What has been collected; can be pickled and sent to another process."""
        return {"images": self._images, "precision": self._precision.state()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Take in what other processes have collected, in any order."""
        self._precision.merge(state["precision"] for state in states)
        for state in states:
            for name, image in state["images"].items():
                present = self._images.get(name)
                if present is None or _rank(image) > _rank(present):
                    self._images[name] = image

    def compute(self, gather: Gather | None = None) -> dict[str, Any]:
        """The scores, plain data; see `evaluate_scenes`. With `gather`, which brings a state of each process to all,
        those of all processes together."""
        if gather is not None:
            whole = SceneScores(self.task, self.classes, examples=self.examples, **self.inference)
            whole.merge(gather(self.state()))
            return whole.compute()
        result: dict[str, Any] = {"task": self.task, "count": len(self._images)}
        if self.task == "segment":
            scores = LabelMapScores(self.classes, IGNORE)
            scores.merge(_dense(image["confusion"], len(self.classes)) for image in self._images.values())
            result |= scores.compute()
        else:
            result |= self._precision.compute()
            result["objects"] = sum(row["n"] for row in result["box"]["per_class"])
        return result | {"examples": self._named()}

    # ------------------------------------------------------------------------------------------------- objects

    def _update_objects(self, model: nn.Module, batch: SceneBatch, split: ObjectSplit) -> None:
        kind = "mask" if self.task == "instances" else "box"
        detections = model(batch.images, batch.sizes)
        for row, index in enumerate(batch.indices.tolist()):
            size, truth = self._objects(batch, row, split, index)
            # one image at a time: full-size masks of a whole batch need not fit into memory
            (found,) = model.postprocess(detections[row : row + 1], [batch.sizes[row]], [size])  # type: ignore[operator]
            kept = self._precision.add(split.image_ids[index], size, truth, found)
            image = self._image(split, index)
            if self.examples:
                matches = match(*kept, kind)
                image |= {"score": f1(*kept, matches), **_surest_mistake(*kept, matches, self.classes)}
            self._images[split.id(index)] = image

    def _objects(
        self, batch: SceneBatch, row: int, split: ObjectSplit, index: int
    ) -> tuple[tuple[int, int], dict[str, Any]]:
        """Size and objects of an image as it is, its masks encoded; read once."""
        known = self._truth.get(split.id(index))
        if known is None:
            size = _own_size(batch, row, split, index)
            objects = split.target(index)
            truth: dict[str, Any] = {
                "boxes": objects.boxes, "labels": objects.labels, "crowd": objects.crowd, "area": objects.area,
            }  # fmt: skip
            if self.task == "instances":
                if objects.regions is None:
                    raise UserError("instance segmentation needs a mask for every object, but the data has boxes only.")
                truth["masks"] = [encode_masks(region.decode(*size)[None], size)[0] for region in objects.regions]
            known = self._truth[split.id(index)] = (size, truth)
        return known

    # -------------------------------------------------------------------------------------------------- maps

    def _update_maps(self, model: nn.Module, batch: SceneBatch, split: MaskSplit) -> None:
        # Images of one size go together and without padding, which pooling over the whole image would see: a score
        # must not depend on what else is in the batch.
        by_size: dict[tuple[int, int], list[int]] = {}
        for row, (height, width) in enumerate(batch.sizes):
            by_size.setdefault((height, width), []).append(row)
        for (height, width), rows in by_size.items():
            values = class_values(model, batch.images[rows, :, :height, :width], TTA(**self.inference))
            if values.shape[1] != len(self.classes):
                raise UserError(
                    f"the model tells {values.shape[1]} classes apart, but the data has {len(self.classes)}."
                )
            for row, value in zip(rows, values, strict=True):
                index = int(batch.indices[row])
                self._add_map(value, _same_size(batch, row, split, index), split, index)

    def _add_map(self, values: Tensor, truth: np.ndarray, split: MaskSplit, index: int) -> None:
        predicted, confidence = enlarged_classes(values, (truth.shape[0], truth.shape[1]))
        own = LabelMapScores(self.classes, IGNORE)
        confusion = own.add(predicted, truth)
        image = self._image(split, index)
        image["confusion"] = (np.flatnonzero(confusion), confusion[confusion > 0])
        if self.examples:
            image["score"] = scores_of(confusion)["miou"]
            counted = truth != IGNORE
            wrong = counted & (predicted.cpu().numpy() != truth)
            if wrong.any():
                sure = confidence.cpu().numpy()
                image["weight"] = float(sure[wrong].sum() / counted.sum())
                image["wrong"] = _commonest_mistake(confusion, self.classes, float(sure[wrong].mean()))
        self._images[split.id(index)] = image

    # ---------------------------------------------------------------------------------------------- examples

    def _image(self, split: Scenes, index: int) -> dict[str, Any]:
        path = split.path(index)
        return {"id": split.id(index), "index": index, "path": None if path is None else str(path)}

    def _named(self) -> dict[str, list[dict[str, Any]]]:
        """Images to look at. Where two are equal, the earlier one of the split comes first."""
        images = sorted(self._images.values(), key=lambda image: (image["index"], image["id"]))
        scored = [image for image in images if image.get("score") is not None]
        mistaken = [image for image in images if "wrong" in image]
        keys = ("id", "index", "path", "score")
        best = sorted(scored, key=lambda image: (-image["score"], -image.get("overlap", 0.0)))[: self.examples]
        worst = sorted(scored, key=lambda image: (image["score"], image.get("overlap", 0.0)))[: self.examples]
        wrong = sorted(mistaken, key=lambda image: -image["weight"])[: self.examples]
        return {
            "best": [{key: image[key] for key in keys} for image in best],
            "worst": [{key: image[key] for key in keys} for image in worst],
            "wrong": [{key: image[key] for key in (*keys, "weight", "wrong")} for image in wrong],
        }


def evaluate_scenes(
    model: nn.Module,
    split: Scenes,
    preprocessing: Callable[[Any], Tensor],
    classes: Sequence[str],
    *,
    task: str,
    batch_size: int = 8,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: Any = None,
    examples: int = EXAMPLES,
) -> dict[str, Any]:
    """Score a model of the task detect, instances or segment. `progress(done, total)` is called after every batch.

    Returns plain data: `task`, `count` (images), and

    - detect, instances: `objects` (their number, crowds left out), `box` and for instances `mask`: COCO's figures as
      `AveragePrecision.compute` gives them;
    - segment: what `LabelMapScores.compute` gives, the prediction enlarged bilinearly to the image's own size;
    - `examples`: lists `best`, `worst` and `wrong` of images with `id`, `index`, `path` and `score`. The score is F1 at
      IoU 0.5 and a detection score of 0.5 (of masks for instances; among equal ones the mean overlap of the objects
      found decides), for segment the mean IoU over the classes that the image has or is told to have; images without
      anything to score are left out. `wrong` is ordered by `weight`: the score of the surest detection that finds no
      object, for segment the probability of the predicted class summed over the wrong pixels and divided by the number
      of pixels; its text `wrong` says what was taken for what.

    Raises:
        UserError: no images, the model has other classes, an image or its truth cannot be read, a device or precision
            there is not.
    """
    if not len(split):
        raise UserError("there are no images to evaluate on.")
    if isinstance(split, MaskSplit) != (task == "segment"):
        raise UserError(f"the task {task} needs images with {'label maps' if task == 'segment' else 'objects'}.")
    if isinstance(split, ObjectSplit) and len(set(split.image_ids)) < len(split):
        raise UserError("the image numbers of the data must differ, but one occurs twice.")
    known = getattr(model, "num_classes", len(classes))
    if known != len(classes):
        raise UserError(f"the model tells {known} classes apart, but the data has {len(classes)}.")
    target = device if isinstance(device, torch.device) else pick_device(device)
    model = model.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = DataLoader(
        PreparedScenes(split, preprocessing), batch_size=batch_size, num_workers=workers, collate_fn=collate_scenes
    )
    scores = SceneScores(task, classes, scales=scales, flip=flip, window=window, examples=examples)
    done = 0
    with evaluating(model):
        for batch in loader:
            images = batch.images.to(target, memory_format=torch.channels_last)
            with autocast(target, precision):
                scores.update(model, batch._replace(images=images), split)
            done += len(batch.indices)
            if progress is not None:
                progress(done, len(split))
    return scores.compute()


def enlarged_classes(values: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The most probable class of every pixel of the image, and its probability.

    Args:
        values: (K, h, w) logits, or logarithms of probabilities.
        size: (H, W) of the image, to which they are resized bilinearly, as `F.interpolate` does with
            align_corners=False, but strip by strip: with many classes the enlarged values would fill the memory.

    Returns:
        int64 (H, W), float32 (H, W).
    """
    classes, rows, _ = values.shape
    height, width = size
    at = ((torch.arange(height, device=values.device, dtype=torch.float64) + 0.5) * (rows / height) - 0.5).clamp(min=0)
    upper = at.long().clamp(max=rows - 1)
    lower = (upper + 1).clamp(max=rows - 1)
    share = (at - upper).to(values.dtype)[:, None]
    labels, shares = [], []
    for strip in torch.arange(height, device=values.device).split(max(1, _STRIP // (classes * width))):
        part = torch.lerp(values[:, upper[strip]], values[:, lower[strip]], share[strip])
        if part.shape[-1] != width:
            part = F.interpolate(part[None], (len(strip), width), mode="bilinear", align_corners=False)[0]
        highest, label = part.max(dim=0)
        labels.append(label)
        shares.append((highest - part.logsumexp(dim=0)).exp())
    return torch.cat(labels), torch.cat(shares)


# ------------------------------------------------------------------------------------------------------------ helpers


def _same_size(batch: SceneBatch, row: int, split: MaskSplit, index: int) -> np.ndarray:
    """The label map of an image, (H, W) uint8. Raises UserError when the image has another size."""
    truth = split.target(index)
    height, width = _own_size(batch, row, split, index)
    if truth.shape != (height, width):
        raise UserError(
            f"{split.id(index)}: the image has {width} x {height} pixels and its label map "
            f"{truth.shape[1]} x {truth.shape[0]}. `resurge check-data` lists all such files."
        )
    return truth


def _own_size(batch: SceneBatch, row: int, split: Scenes, index: int) -> tuple[int, int]:
    """(height, width) of the upright image, from the batch if it says, else from the file's header."""
    told = batch.targets[row].get("original")
    if told is not None:
        height, width = told.tolist()
        return int(height), int(width)
    path = split.path(index)
    if path is None:
        width, height = split.read(index).size
    else:
        header = read_header(read_bytes(path), str(path))
        width, height = header.size if header.orientation < 5 else header.size[::-1]  # 5 to 8 lie on their side
    return height, width


def _surest_mistake(
    truth: dict[str, Any], found: dict[str, Any], matches: Matches, classes: Sequence[str]
) -> dict[str, Any]:
    """`overlap`, mean IoU of the objects found; `weight` and `wrong`, score and text of the surest other one."""
    hits = np.flatnonzero(matches.object >= 0)
    result: dict[str, Any] = {"overlap": float(matches.iou[hits, matches.object[hits]].mean()) if hits.size else 0.0}
    misses = np.flatnonzero(matches.object == -1)
    if not misses.size:
        return result
    row = misses[np.argmax(found["scores"][misses])]
    score, label = float(found["scores"][row]), int(found["labels"][row])
    overlaps = np.where(truth["crowd"], 0.0, matches.iou[row])
    nearest = int(overlaps.argmax()) if overlaps.size else -1
    same = np.where(truth["labels"] == label, overlaps, 0.0)
    text = f"{classes[label]} {score:.2f} "
    if same.size and same.max() >= 0.5:
        text += "where another detection has found the object"
    elif overlaps.size and overlaps[nearest] >= 0.5:
        text += f"on {classes[truth['labels'][nearest]]} (IoU {overlaps[nearest]:.2f})"
    elif same.size and same.max() >= 0.1:
        text += f"off its place (IoU {same.max():.2f})"
    else:
        text += "where no object is"
    return result | {"weight": score, "wrong": text}


def _commonest_mistake(confusion: np.ndarray, classes: Sequence[str], confidence: float) -> str:
    """ "12 % of the pixels, most of them road taken for pavement; mean probability 0.81" """
    wrong = confusion - np.diag(np.diag(confusion))
    true, told = divmod(int(wrong.argmax()), len(classes))
    share = wrong.sum() / confusion.sum()
    most = "most of them" if 2 * wrong[true, told] > wrong.sum() else "above all"
    what = f"{classes[true]} taken for {classes[told]}"
    return f"{share:.0%} of the pixels, {most} {what}; mean probability {confidence:.2f}"


def _dense(entries: tuple[np.ndarray, np.ndarray], classes: int) -> np.ndarray:
    confusion = np.zeros(classes**2, dtype=np.int64)
    confusion[entries[0]] = entries[1]
    return confusion.reshape(classes, classes)


def _rank(image: dict[str, Any]) -> tuple[Any, ...]:
    """An order between two results for one image: other batches may have changed its last digits."""
    places, counts = image.get("confusion", (np.zeros(0), np.zeros(0)))
    return places.tolist(), counts.tolist(), image.get("score") or 0.0, image.get("weight", 0.0), image["index"]
