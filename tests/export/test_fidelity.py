"""What a certificate says of few images, and of none with an object."""

from __future__ import annotations

import math
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from resurge.cli.export import _lines
from resurge.errors import UserError
from resurge.export.calibration import Batch
from resurge.export.convert import Deployed, trace
from resurge.export.exporting import _compared, _judge, _notes
from resurge.export.fidelity import Comparison, LabelComparison, MapComparison
from resurge.export.fidelity_objects import ObjectComparison
from resurge.export.intervals import jackknife_interval, paired_interval
from resurge.export.settings import ExportSettings
from resurge.infer.engines import open_engine
from resurge.infer.folder import Export
from resurge.infer.formats import FORMATS
from resurge.recipe import Recipe
from resurge.runs import Run
from resurge.tasks.detect.predict import Found

INT8 = ExportSettings("onnx", "int8", max_drop=0.5)


def found(count: int, score: float = 0.9, moved: float = 0.0) -> Found:
    corners = np.arange(count)[:, None] * 20.0 + moved
    boxes = np.concatenate([corners, corners, corners + 10, corners + 10], axis=1)
    return Found(boxes, np.full(count, score), np.zeros(count, np.int64), None)


def classified(lost: int, gained: int, count: int, labelled: bool = True) -> LabelComparison:
    """A network that is right where the first logit is the highest."""
    before, after = np.zeros((2, count, 2), np.float32)
    before[:, 0] = after[:, 0] = 1
    after[:lost, 1] = 2
    before[count - gained :, 1] = 2
    made = LabelComparison(("a", "b"))
    images, sizes = np.zeros((count, 1, 1, 1), np.float32), np.ones((count, 2), np.int64)
    truth = (0,) * count if labelled else None
    made.take(
        Batch(tuple(range(count)), ((1, 1),) * count, images, sizes, truth), {"logits": before}, {"logits": after}
    )
    return made


def refused(comparison: Comparison, settings: ExportSettings = INT8) -> str:
    try:
        _judge(comparison.final(), settings, force=False)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("labelled", [True, False])
def test_a_loss_that_may_be_chance_is_not_refused(labelled: bool) -> None:
    one = classified(1, 0, 100, labelled)
    assert one.drop == pytest.approx(1)
    assert not refused(one)
    assert one.to_json()["drop_interval"][0] < 0.5 < one.to_json()["drop_interval"][1]
    many = refused(classified(10, 0, 100, labelled))
    assert "loses 10.00 points, more than --max-drop 0.5" in many
    assert "95 % interval of the loss: " in many
    assert not refused(classified(5, 5, 500, True))


def test_the_interval_of_pairs_is_that_of_mcnemar_s_test() -> None:
    assert paired_interval(0, 0, 100) == pytest.approx((-0.03699, 0.03699), abs=1e-5)  # z^2 / (n + z^2)
    assert paired_interval(2, 7, 50) == pytest.approx(tuple(-x for x in reversed(paired_interval(7, 2, 50))))
    for lost in range(1, 12):  # 0 is outside exactly where the score test says that it is not the same
        low, _ = paired_interval(lost, 0, 100)
        assert (low > 0) == (lost > 1.959964**2)
        assert (low > 0) >= (binomtest(lost, lost, 0.5).pvalue < 0.05)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=12)
    without = [float(np.delete(values, row).mean()) for row in range(12)]
    low, high = jackknife_interval(float(values.mean()), without)
    assert (high - low) / 2 == pytest.approx(2.200985 * values.std(ddof=1) / math.sqrt(12), rel=1e-5)
    assert jackknife_interval(1.0, [1.0]) == (-math.inf, math.inf)


def objects_of(lost: int, count: int) -> ObjectComparison:
    """Images with one object each, of which the export finds `lost` elsewhere."""
    made = ObjectComparison(("cat",))
    for number in range(count):
        truth = {"boxes": found(1).boxes, "labels": [0], "crowd": [False], "area": [100.0]}
        made.add(found(1), found(1, moved=50.0 if number < lost else 0.0), (200, 200), truth)
    return made


def test_the_loss_of_average_precision_has_an_interval() -> None:
    few, many = objects_of(1, 20), objects_of(12, 20)
    assert few.drop > 0.5
    assert few.interval[0] < 0.5
    assert not refused(few)
    assert many.interval[0] > 0.5
    assert "AP falls from 100.00 %" in refused(many)
    alone = objects_of(1, 1)
    assert alone.to_json()["drop_interval"] == [None, None]
    assert refused(alone)  # nothing says that it is chance


def test_the_loss_of_miou_has_an_interval() -> None:
    def taken(lost: int) -> MapComparison:
        made = MapComparison(("a", "b"))
        for number in range(20):
            before, after = np.zeros((2, 1, 2, 8, 8), np.float32)
            before[:, 0, :, :4] = before[:, 1, :, 4:] = 1
            after[:] = before[:, ::-1] if number < lost else before
            truth = (before[0].argmax(0).astype(np.uint8),)
            batch = Batch((number,), ((8, 8),), np.zeros((1, 1, 8, 8), np.float32), np.array([[8, 8]]), truth)
            made.take(batch, {"logits": before}, {"logits": after})
        return made

    assert taken(0).interval == (0, 0)
    assert taken(1).drop > 5
    assert not refused(taken(1))
    assert "mIoU falls from 100.00 %" in refused(taken(12))


def certificate(comparison: Comparison) -> str:
    plain = comparison.to_json()
    rest = {"compared_on": "images of x", "images_per_second": {}, "seconds_to_load": 1.0}
    return "\n".join(_lines({**plain, **rest, "notes": list(_compared(comparison))}))


def test_where_nothing_is_found_nothing_is_said_to_agree() -> None:
    nothing = ObjectComparison(("cat",))
    nothing.add(found(0), found(0), (200, 200), None)
    nothing.add(found(0), found(0), (200, 200), None)
    plain = nothing.final().to_json()
    assert plain["agreement"] is plain["difference"] is plain["relative"] is plain["objects"]["box_difference"] is None
    text = certificate(nothing.final())
    assert "100" not in text
    assert "none were found, nothing was compared" in text
    assert "name images with objects: --calibrate DIR" in text
    assert not refused(nothing)


def test_where_no_object_is_sure_the_surest_are_compared() -> None:
    unsure = ObjectComparison(("cat",))
    for _ in range(3):
        unsure.add(found(8, 0.02), found(8, 0.02, moved=0.1), (200, 200), None)
    final = unsure.final()
    assert (final.agreement, final.images) == (1.0, 3)
    assert final.to_json()["objects"] | {"surest_of_an_image": 5, "before": 15} == final.to_json()["objects"]
    assert final.to_json()["objects"]["box_difference"] == pytest.approx(0.1)
    assert "100.00 % of the 5 surest per image" in certificate(final)
    unsure.add(found(8, 0.02), found(8, 0.02, moved=100.0), (200, 200), None)
    assert unsure.final().agreement < 0.9
    unsure.add(found(1, 0.8), found(1, 0.8), (200, 200), None)  # now there is one: it alone counts
    assert "surest_of_an_image" not in unsure.final().to_json()["objects"]
    assert unsure.final().agreement == 1.0


def test_a_certificate_names_the_precision_of_the_scores() -> None:
    for precision, said in (("bf16", 1), ("fp32", 0)):
        recipe = Recipe().replace({"precision": precision})
        (*found,) = _notes(Run(Path("x"), "classify", None, None, (), None, {}, recipe))
        assert [f"its own scores were computed in {precision}" in note for note in found] == [True] * said


@pytest.mark.parametrize("format", ["torch", "onnx", "openvino"])
def test_of_equal_logits_the_lower_class_wins_in_every_format(format: str, tmp_path: Path) -> None:
    """An export that puts out classes decides as evaluation does."""

    class Ties(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(1, 5, 1, bias=False)
            torch.nn.init.ones_(self.layer.weight)  # all classes are equally likely
            self.layer.weight.data[0] = 0.5  # but for the first one, which is less so where the image is positive

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images)

    for name in FORMATS[format].packages:
        pytest.importorskip(name)
    program = trace(Deployed(Ties(), decide=True), 1)
    resolve_name(FORMATS[format].writer)(program, tmp_path, ["classes", "confidence"], False)
    told = {"format": format, "precision": "fp32", "outputs": ["classes", "confidence"]}
    engine = open_engine(Export(tmp_path, {"task": "segment", "preprocessing": {}, "export": told}), "cpu", threads=1)
    images = np.ones((2, 1, 40, 56), np.float32)
    images[0, :, :20] = -1
    classes = engine.run(images)["classes"]
    assert set(classes[0, :20].ravel().tolist()) == {0}
    assert set(classes[1].ravel().tolist()) == {1}
