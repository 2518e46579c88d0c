"""Evaluation of detectors and segmenters with models whose answers are known."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scene_files import masks_of
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from resurge.data.loading import collate_scenes
from resurge.data.splits import IGNORE, FileImages, MaskSplit, Objects, ObjectSplit
from resurge.errors import UserError
from resurge.tasks.detect.head import Detections
from resurge.tasks.detect.metrics import AveragePrecision
from resurge.tasks.evaluation import evaluate
from resurge.tasks.scenes.metrics import SceneScores
from resurge.tasks.segment.metrics import confusion_matrix, enlarged_classes, map_scores
from resurge.tasks.segment.sliding import predict_probabilities
from resurge.tasks.table import get_task
from resurge.tasks.task import Network
from resurge.tasks.tta import TTA

CLASSES = ("cat", "dog", "bird")
STEP = 10  # of grey between one image and the next


@dataclass(frozen=True)
class Plain:
    """Images of one grey that tells which they are, of several sizes (height, width)."""

    sizes: tuple[tuple[int, int], ...]
    greys: tuple[int, ...]

    def read(self, index: int, draft_size: int | None = None) -> Image.Image:
        return Image.new("L", self.sizes[index][::-1], self.greys[index] * STEP)

    def path(self, index: int) -> Path | None:
        return Path(f"{self.greys[index]}.png") if self.greys[index] % 2 else None

    def select(self, indices: Sequence[int]) -> Plain:
        return Plain(tuple(self.sizes[i] for i in indices), tuple(self.greys[i] for i in indices))


@dataclass(frozen=True)
class Filled:
    """All pixels of a box."""

    box: tuple[float, float, float, float]

    def decode(self, height: int, width: int) -> np.ndarray:
        x1, y1, x2, y2 = (round(side) for side in self.box)
        mask = np.zeros((height, width), bool)
        mask[y1:y2, x1:x2] = True
        return mask


class Half:
    """A preprocessing: (1, h, w) in grey values, half the sides."""

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image, dtype=np.float32))[None, ::2, ::2]

    def shown(self, image: Image.Image) -> Image.Image:
        return image


half = Half()


class Knowing(nn.Module):
    """Finds in image i what the list says, in the pixels of the image itself."""

    def __init__(self, answers: list[dict[str, Any]], num_classes: int = 3) -> None:
        super().__init__()
        self.answers = answers
        self.num_classes = num_classes
        self.drop = nn.Dropout()

    def detect(self, images: Tensor, sizes: Tensor) -> Detections:
        assert not self.drop.training
        slots = 3
        boxes, scores = torch.zeros(len(images), slots, 4), torch.zeros(len(images), slots)
        labels = torch.full((len(images), slots), -1)
        for row, (image, (height, width)) in enumerate(zip(images, sizes.tolist(), strict=True)):
            assert image[:, height:].abs().sum() == image[:, :, width:].abs().sum() == 0
            answer = self.answers[round(float(image[0, 0, 0])) // STEP]
            count = len(answer["boxes"])
            boxes[row, :count] = torch.tensor(answer["boxes"], dtype=torch.float32).reshape(-1, 4) / 2
            scores[row, :count] = torch.tensor(answer["scores"])
            labels[row, :count] = torch.tensor(answer["labels"], dtype=torch.int64)
        return Detections(boxes, scores, labels, torch.ones(len(images), slots, 28, 28))


def objects(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> Objects:
    box = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Objects(
        box,
        np.array(labels, dtype=np.int64),
        np.array(crowd or [False] * len(labels), dtype=bool),
        (box[:, 2:] - box[:, :2]).prod(axis=1),
        tuple(Filled(tuple(row)) for row in box.tolist()),
    )


def object_split(targets: list[Objects], sizes: list[tuple[int, int]] | None = None) -> ObjectSplit:
    n = len(targets)
    sizes = sizes or [(100 + 4 * i, 120 - 2 * i) for i in range(n)]
    ids = tuple(f"image {i}" for i in range(n))
    return ObjectSplit(ids, Plain(tuple(sizes), tuple(range(n))), tuple(targets), tuple(100 - i for i in range(n)))


@pytest.fixture
def case() -> tuple[ObjectSplit, Knowing]:
    """All found; one of two found, and a mistake of each sort; nothing there; only a crowd; nothing found."""
    a, b, far = [10, 10, 50, 50], [60, 60, 90, 90], [0, 80, 20, 100]
    split = object_split(
        [
            objects([a, b], [0, 1]),
            objects([a, b], [0, 1]),
            objects([], []),
            objects([a], [0], [True]),
            objects([b], [2]),
            objects([a, b], [0, 1]),
            objects([a, b], [0, 1]),
        ]
    )
    answers = [
        {"boxes": [a, b], "labels": [0, 1], "scores": [0.9, 0.8]},
        {"boxes": [a, b, far], "labels": [0, 2, 1], "scores": [0.9, 0.7, 0.3]},
        {"boxes": [far], "labels": [1], "scores": [0.95]},
        {"boxes": [[12, 12, 30, 30]], "labels": [0], "scores": [0.99]},
        {"boxes": [], "labels": [], "scores": []},
        {"boxes": [a, [10, 10, 50, 48]], "labels": [0, 0], "scores": [0.9, 0.6]},
        {"boxes": [[30, 30, 70, 70]], "labels": [0], "scores": [0.5]},
    ]
    return split, Knowing(answers)


@pytest.mark.parametrize("task", ["detect", "instances"])
def test_scores_of_objects_are_those_of_the_detections(task: str, case: tuple[ObjectSplit, Knowing]) -> None:
    split, model = case
    done: list[tuple[int, int]] = []
    model.train()
    got = evaluate(get_task(task), model, split, half, CLASSES, batch_size=3, device="cpu",
                          progress=lambda *at: done.append(at))  # fmt: skip
    assert done == [(3, 7), (6, 7), (7, 7)]
    assert model.drop.training
    kinds = ("box", "mask") if task == "instances" else ("box",)
    expected = AveragePrecision(CLASSES, kinds)
    for i in range(len(split)):
        truth, answer = split.target(i), model.answers[i]
        size = split.images.sizes[i]
        boxes = torch.tensor(answer["boxes"], dtype=torch.float32).reshape(-1, 4)
        masks = paste_masks_in_image(torch.ones(len(boxes), 1, 28, 28), boxes, size)[:, 0] >= 0.5
        told = {"boxes": truth.boxes, "labels": truth.labels, "crowd": truth.crowd, "area": truth.area}
        expected.add(split.image_ids[i], size, told | {"masks": masks_of(truth, *size)},
                     answer | {"masks": masks})  # fmt: skip
    for kind in kinds:
        assert got[kind] == expected.compute()[kind]
        assert 0.2 < got[kind]["ap50"] < 0.8
    assert ("mask" in got) == (task == "instances")
    assert got["task"] == task
    assert got["count"] == 7
    assert got["objects"] == 9
    json.dumps(got, allow_nan=False)


def test_examples_of_objects(case: tuple[ObjectSplit, Knowing]) -> None:
    split, model = case
    named = evaluate(get_task("detect"), model, split, half, CLASSES, device="cpu")["examples"]
    # F1 by hand; the image with a crowd alone has nothing to score
    assert [(row["index"], row["score"]) for row in named["best"]] == [
        (0, 1.0), (1, 0.5), (5, 0.5), (2, 0.0), (4, 0.0), (6, 0.0),
    ]  # fmt: skip
    assert [row["index"] for row in named["worst"]] == [2, 4, 6, 1, 5, 0]
    assert [(row["index"], row["wrong"]) for row in named["wrong"]] == [
        (2, "dog 0.95 where no object is"),
        (1, "bird 0.70 on dog (IoU 1.00)"),
        (5, "cat 0.60 where another detection has found the object"),
        (6, "cat 0.50 off its place (IoU 0.14)"),
    ]
    assert named["wrong"][0] == {"id": "image 2", "index": 2, "path": None, "score": 0.0, "weight": pytest.approx(0.95),
                                 "wrong": "dog 0.95 where no object is"}  # fmt: skip
    assert named["best"][1]["path"] == "1.png"
    few = evaluate(get_task("detect"), model, split, half, CLASSES, device="cpu", examples=1)["examples"]
    assert few == {key: rows[:1] for key, rows in named.items()}


def validate(split: Any, model: nn.Module, task: str, parts: list[list[int]], **how: Any) -> list[SceneScores]:
    """As a training does on several processes: each has its part of the split and its own numbering."""
    scores = []
    for part in parts:
        own = get_task(task).scores(CLASSES, **how)
        data = get_task(task).prepared(split.select(part), half)
        for i in range(len(data)):
            own.update(model.eval(), collate_scenes([data[i]]), data.split)
        scores.append(own)
    return scores


@pytest.mark.parametrize("task", ["detect", "instances"])
def test_processes_together_give_the_whole_once(task: str, case: tuple[ObjectSplit, Knowing]) -> None:
    split, model = case
    whole = evaluate(get_task(task), model, split, half, CLASSES, device="cpu")
    assert whole.pop("precision") == "fp32"
    parts = validate(split, model, task, [[6, 1, 3], [0, 2, 4, 5]], examples=0)
    # two images are on a third process too, as a sampler deals them out, and it saw them a bit differently
    less = [answer | {"scores": [0.999 * score for score in answer["scores"]]} for answer in model.answers]
    parts += validate(split, Knowing(less), task, [[6, 1]], examples=0)
    for order in (parts, parts[::-1]):
        states = pickle.loads(pickle.dumps([part.images for part in order]))
        got = order[0].merged(lambda _, states=states: states).compute()
        assert got == whole | {"examples": {"best": [], "worst": [], "wrong": []}}
    assert parts[0].compute()["count"] == 3


def test_truth_is_read_once_and_predictions_are_forgotten(
    case: tuple[ObjectSplit, Knowing], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, model = case
    (scores,) = validate(split, model, "instances", [[0, 1]])
    first = scores.compute()
    scores.reset()
    assert scores.compute()["count"] == 0
    assert scores.compute()["box"]["ap"] is None
    monkeypatch.setattr(Filled, "decode", None)
    model.answers = [{"boxes": [], "labels": [], "scores": []}] * 2
    batch = collate_scenes([get_task("instances").prepared(split, half)[i] for i in (0, 1)])
    scores.update(model, batch, split)
    assert first["mask"]["ap50"] > 0
    assert scores.compute()["mask"]["ap50"] == 0.0  # nothing found is no crash


def test_an_image_on_its_side_is_scored_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (60, 40), 0).save(tmp_path / "a.jpg", exif=exif)
    box = [10.0, 20.0, 40.0, 60.0]
    split = ObjectSplit(("a",), FileImages(tmp_path, ("a.jpg",)), (objects([box], [0]),), (1,))
    model = Knowing([{"boxes": [box], "labels": [0], "scores": [0.9]}])
    scores = evaluate(get_task("instances"), model, split, half, CLASSES, device="cpu")
    assert scores["box"]["ap"] == 1.0
    assert scores["mask"]["ap"] == pytest.approx(0.9)  # torchvision's pasting adds a pixel on each side


# --------------------------------------------------------------------------------------------------------- label maps


@dataclass(frozen=True)
class Maps:
    maps: tuple[np.ndarray, ...]

    def read(self, index: int) -> np.ndarray:
        return self.maps[index]

    def path(self, index: int) -> Path | None:
        return None

    def select(self, indices: Sequence[int]) -> Maps:
        return Maps(tuple(self.maps[i] for i in indices))


class Waves(nn.Module):
    """Logits from a convolution and the mean over the whole image, which padding would change."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        ramp = torch.linspace(-2, 2, images.shape[-1]) * torch.linspace(-1, 2, images.shape[-2])[:, None]
        return (
            self.layer(images / 100 + ramp)
            + images.mean(dim=(2, 3), keepdim=True) / 50 * torch.eye(3)[1, :, None, None]
        )


@pytest.fixture
def maps() -> tuple[MaskSplit, Waves]:
    random = np.random.default_rng(0)
    sizes = ((40, 60), (50, 31), (40, 60), (64, 64), (33, 47))
    truth = tuple(random.choice([0, 1, 2, IGNORE], size).astype(np.uint8) for size in sizes)
    model = Waves().eval()
    images = Plain(sizes, tuple(range(5)))
    return MaskSplit(tuple(f"image {i}" for i in range(5)), images, Maps(truth)), model


@pytest.mark.parametrize("batch_size", [1, 3, 5])
@pytest.mark.parametrize("views", [{}, {"scales": (0.5, 1.0, 1.5), "flip": True, "window": (16, 16)}])
def test_scores_of_maps_are_those_of_each_image_alone(
    batch_size: int, views: dict[str, Any], maps: tuple[MaskSplit, Waves]
) -> None:
    split, model = maps
    task, tta = get_task("segment"), TTA(**views)
    got = evaluate(task, model, split, half, CLASSES, batch_size=batch_size, device="cpu", tta=tta)
    total = np.zeros((3, 3), dtype=np.int64)
    figures, weights = [], []
    with torch.inference_mode():
        for i in range(len(split)):
            image = half(split.read(i))[None]
            values = predict_probabilities(model, image, **views).log() if views else model(image)
            truth = split.target(i)
            large = F.interpolate(values, truth.shape, mode="bilinear")[0]
            own = confusion_matrix(large.argmax(dim=0), truth, 3)
            total += own
            figures.append(map_scores(own, CLASSES)["miou"])
            wrong = (large.argmax(dim=0).numpy() != truth) & (truth != IGNORE)
            sure = large.softmax(dim=0).max(dim=0).values.numpy()
            weights.append(sure[wrong].sum() / (truth != IGNORE).sum())
    expected = map_scores(total, CLASSES)
    assert {key: got[key] for key in expected} == expected
    assert got["count"] == 5
    named = got["examples"]
    assert [row["index"] for row in named["best"]] == sorted(range(5), key=lambda i: -figures[i])
    assert named["worst"] == named["best"][::-1]
    assert named["best"][0]["score"] == pytest.approx(max(figures))
    assert [row["index"] for row in named["wrong"]] == sorted(range(5), key=lambda i: -weights[i])
    assert named["wrong"][0]["weight"] == pytest.approx(max(weights), rel=1e-4)
    assert "of the pixels, " in named["wrong"][0]["wrong"]
    json.dumps(got, allow_nan=False)


def test_maps_on_several_processes_are_the_whole(maps: tuple[MaskSplit, Waves]) -> None:
    split, model = maps
    whole = evaluate(get_task("segment"), model, split, half, CLASSES, device="cpu", examples=0)
    assert whole.pop("precision") == "fp32"
    with torch.inference_mode():
        parts = validate(split, model, "segment", [[4, 0], [1, 2, 3, 4]], examples=0)
    for order in (parts, parts[::-1]):
        assert order[0].merged(lambda _, order=order: [part.images for part in order]).compute() == whole


def test_a_map_all_ignored_has_no_score(maps: tuple[MaskSplit, Waves]) -> None:
    split, model = maps
    nothing = replace(split, maps=Maps(tuple(np.full_like(m, IGNORE) for m in split.maps.maps)))
    got = evaluate(get_task("segment"), model, nothing, half, CLASSES, device="cpu")
    assert got["miou"] is got["pixel_accuracy"] is None
    assert got["examples"] == {"best": [], "worst": [], "wrong": []}


def test_what_is_wrong_in_a_map_is_said() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[:, 6:] = 2
    split = MaskSplit(("a",), Plain(((8, 8),), (0,)), Maps((truth,)))

    class Cat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([0.75, 0.1, 0.15]).log()[None, :, None, None].expand(-1, -1, *images.shape[2:])

    (row,) = evaluate(get_task("segment"), Cat(), split, half, CLASSES, device="cpu")["examples"]["wrong"]
    assert row["wrong"] == "25% of the pixels, most of them bird taken for cat; mean probability 0.75"
    assert row["weight"] == pytest.approx(0.75 * 0.25)


@pytest.mark.parametrize(
    "small, large", [((7, 9), (50, 33)), ((50, 33), (7, 9)), ((16, 16), (16, 16)), ((1, 1), (4, 5)), ((5, 8), (5, 16))]
)
def test_strips_are_the_whole(small: tuple[int, int], large: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(4, *small) * 3
    expected = F.interpolate(values[None], large, mode="bilinear")[0]
    for strip in (1, 4 * large[1] * 3, 1 << 24):
        monkeypatch.setattr("resurge.tasks.segment.metrics._STRIP", strip)
        labels, shares = enlarged_classes(values, large)
        assert (labels == expected.argmax(dim=0)).all()
        torch.testing.assert_close(shares, expected.softmax(dim=0).amax(dim=0), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- faults


def test_what_cannot_be_evaluated_is_said(case: tuple[ObjectSplit, Knowing], maps: tuple[MaskSplit, Waves]) -> None:
    split, model = case
    with pytest.raises(UserError, match="no images to evaluate"):
        evaluate(get_task("detect"), model, split.select([]), half, CLASSES, device="cpu")
    with pytest.raises(UserError, match="tells 3 classes apart, but the data has 2"):
        evaluate(get_task("detect"), model, split, half, CLASSES[:2], device="cpu")
    with pytest.raises(UserError, match="tells 3 classes apart, but the data has 2"):
        evaluate(get_task("segment"), maps[1], maps[0], half, CLASSES[:2], device="cpu")
    boxes_only = replace(split, objects=tuple(replace(target, regions=None) for target in split.objects))
    assert evaluate(get_task("detect"), model, boxes_only, half, CLASSES, device="cpu")["box"]["ap50"] > 0.2
    with pytest.raises(UserError, match="a mask for every object"):
        evaluate(get_task("instances"), model, boxes_only, half, CLASSES, device="cpu")
    with pytest.raises(UserError, match="image numbers"):
        evaluate(get_task("detect"), model, replace(split, image_ids=(1,) * 7), half, CLASSES, device="cpu")
    with pytest.raises(UserError, match="task"):
        evaluate(get_task("segment"), model, split, half, CLASSES, device="cpu")


def test_a_report_draws_the_objects_that_were_scored(
    case: tuple[ObjectSplit, Knowing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, model = case
    got = evaluate(get_task("instances"), model, split, half, CLASSES, device="cpu")
    assert set(got.results) == {row["index"] for rows in got["examples"].values() for row in rows}
    found = got.results[1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.3])
    assert found.boxes.tolist() == [[10, 10, 50, 50], [60, 60, 90, 90], [0, 80, 20, 100]]
    assert len(found.masks) == 3
    monkeypatch.setattr(Knowing, "detect", None)  # nothing is predicted again
    get_task("instances").write_pictures(Network(model, half, CLASSES), tmp_path, got, split)
    assert (tmp_path / got["examples"]["wrong"][0]["overlay"]).is_file()


def test_a_report_draws_the_label_maps_that_were_scored(
    maps: tuple[MaskSplit, Waves], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, model = maps
    got = evaluate(get_task("segment"), model, split, half, CLASSES, device="cpu", examples=1, precision="bf16")
    shown = {row["index"] for rows in got["examples"].values() for row in rows}
    assert set(got.results) == shown
    for index in shown:
        alone = evaluate(
            get_task("segment"), model, split.select([index]), half, CLASSES, device="cpu", precision="bf16"
        )
        drawn = confusion_matrix(got.results[index].label_map, split.target(index), 3)
        assert drawn.tolist() == alone["confusion"]  # what was scored, bf16 included
    monkeypatch.setattr(Waves, "forward", None)
    get_task("segment").write_pictures(Network(model, half, CLASSES), tmp_path, got, split)
    assert (tmp_path / got["examples"]["best"][0]["overlay"]).is_file()


def test_of_many_label_maps_those_of_the_examples_are_kept() -> None:
    maps = tuple(np.full((8, 8), index % 3, np.uint8) for index in range(40))
    split = MaskSplit(
        tuple(f"image {i}" for i in range(40)), Plain(((8, 8),) * 40, tuple(range(25)) + (0,) * 15), Maps(maps)
    )
    scores = get_task("segment").scores(CLASSES, examples=2)
    data = get_task("segment").prepared(split, half)
    with torch.inference_mode():
        for index in range(40):
            scores.update(Waves().eval(), collate_scenes([data[index]]), split)
    assert sum("map" in image for image in scores.images.values()) < 20
    assert set(scores.results()) == {row["index"] for rows in scores.compute()["examples"].values() for row in rows}
