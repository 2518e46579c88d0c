"""Exported detectors find what the run finds: boxes, scores, masks, one image or several, and nothing where it does."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectors_alive import HEADS
from PIL import Image
from scene_runs import write_run
from tiny_exports import pictures, write_files
from torch import Tensor
from torch.export import ExportedProgram

from resurge.cli import main
from resurge.errors import UserError
from resurge.export import exporting
from resurge.export.calibration import ExportData, Pictures
from resurge.export.convert import onnx_to_openvino, trace, write_onnx, write_program
from resurge.export.exporting import export
from resurge.export.fidelity_objects import ObjectComparison
from resurge.export.quantize import Node, OnnxQuantizer, excluded_nodes, quantize_folder
from resurge.export.reference import Reference
from resurge.export.settings import ExportSettings
from resurge.infer.engines import Engine, open_engine
from resurge.infer.folder import Export
from resurge.infer.predictor import Predictor
from resurge.optimize.rewrite import rewrite
from resurge.runs import load_run, save_run_model
from resurge.tasks.detect.model import ExportedDetector
from resurge.tasks.detect.ops import pooled
from resurge.tasks.detect.predict import Suppression, batched, found_in

for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(name)
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters and runtimes warn of themselves

SMALL = "resnet18 depths=(1,1) planes=(8,16) stem=conv7x7(8)"  # two levels and an extra one: quickly traced
SMALLEST = "resnet18 depths=(1,) planes=(8,) stem=conv7x7(8)"  # one and two extra ones
SIZES = ((96, 80), (96, 128), (50, 60))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("runs"), {}

    def make(head: str) -> Path:
        if head not in made:
            made[head] = write_run(
                root / head, HEADS[head], head=head, model=SMALLEST if head == "retinanet" else SMALL
            )
            if head == "retinanet":  # it is born sure that there is nothing
                run = load_run(made[head])
                torch.nn.init.constant_(run.model.get_parameter("head.net.classification_head.cls_logits.bias"), -0.5)
                save_run_model(
                    made[head], run.model, task="detect", classes=run.classes, preprocessing=run.preprocessing,
                    norm="batch", scores={}, data={},
                )  # fmt: skip
        return made[head]

    return make


@pytest.fixture(scope="module")
def images() -> Tensor:
    """(3, 3, 96, 128); the second fills all of it."""
    shown = [image.convert("RGB").resize((wide, high)) for image, (high, wide) in zip(pictures(3), SIZES, strict=True)]
    batch, _ = batched([(a / 128 - 1).astype(np.float32).transpose(2, 0, 1) for a in map(np.asarray, shown)])
    return torch.from_numpy(batch)


def agree(outputs: dict[str, np.ndarray], told: list[dict[str, Tensor]], tolerance: float) -> int:
    """That the outputs are the eager detector's; returns how many objects there are."""
    for row, objects in enumerate(told):
        count = len(objects["scores"])
        assert (outputs["scores"][row] > 0).sum() == count
        assert (outputs["labels"][row][count:] == -1).all()
        for name, values in objects.items():
            mine, theirs = outputs[name][row][:count], values.numpy().reshape(outputs[name][row][:count].shape)
            scale = 100.0 if name == "boxes" else 1.0
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * scale)
    return sum(len(objects["scores"]) for objects in told)


def asked(images: Tensor) -> list[tuple[Tensor, tuple[tuple[int, int], ...]]]:
    """Three images and one; one whose sides are no multiples of the stride; with fewer anchors than proposals."""
    return [
        (images, SIZES),
        (images[:1], SIZES[:1]),
        (images[:1, :, :90, :75], ((90, 75),)),
        (images[:, :, :33, :40], ((33, 40), (20, 30), (5, 5))),
    ]


@pytest.fixture(scope="module")
def exported(runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportedProgram]:
    """An export of an instance segmenter, and the program it was made of."""
    folder, programs = tmp_path_factory.mktemp("exported") / "out", []

    def remembered(*given: Any) -> ExportedProgram:
        programs.append(trace(*given))
        return programs[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", remembered)
        export(runs("mask_rcnn"), folder, ExportSettings("onnx", images=5))
    return folder, programs[0]


@pytest.fixture(scope="module")
def engines(
    exported: tuple[Path, ExportedProgram], runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Engine]:
    """Two heads, each traced once, in several formats."""
    root = tmp_path_factory.mktemp("engines")

    def opened(task: str, format: str, folder: Path) -> Engine:
        names = ("boxes", "scores", "labels", *(["masks"] if task == "instances" else []))
        told = {"format": format, "precision": "fp32", "outputs": list(names)}
        return open_engine(Export(folder, {"task": task, "preprocessing": {}, "export": told}), "cpu", threads=1)

    (root / "retinanet").mkdir()
    retina = load_run(runs("retinanet")).model
    program = trace(ExportedDetector(rewrite(retina)), 3, sizes=True)
    write_onnx(program, root / "retinanet", ("boxes", "scores", "labels"))
    onnx_to_openvino(root / "retinanet" / "model.onnx", root / "retinanet")
    write_program(exported[1], root)
    onnx_to_openvino(exported[0] / "model.onnx", root)
    return {
        "retinanet-onnx": opened("detect", "onnx", root / "retinanet"),
        "retinanet-openvino": opened("detect", "openvino", root / "retinanet"),
        "mask_rcnn-onnx": opened("instances", "onnx", exported[0]),
        "mask_rcnn-openvino": opened("instances", "openvino", root),
        "mask_rcnn-torch": opened("instances", "torch", root),
    }


MADE = ["retinanet-onnx", "retinanet-openvino", "mask_rcnn-onnx", "mask_rcnn-openvino", "mask_rcnn-torch"]


@pytest.mark.parametrize("head", HEADS)
def test_fixed_places_hold_what_the_run_finds(head: str, runs: Callable[[str], Path], images: Tensor) -> None:
    model = load_run(runs(head)).model
    deployed = ExportedDetector(copy.deepcopy(model))
    for batch, sizes in asked(images):
        with torch.no_grad():
            outputs = deployed(batch, torch.tensor(sizes))
            named = dict(zip(("boxes", "scores", "labels", "masks"), (x.numpy() for x in outputs), strict=False))
            assert agree(named, model(batch, sizes), 1e-6)


@pytest.mark.parametrize("made", MADE)
def test_the_same_objects_as_the_run(
    made: str, engines: dict[str, Engine], runs: Callable[[str], Path], images: Tensor
) -> None:
    model, engine = load_run(runs(made.rpartition("-")[0])).model, engines[made]
    for batch, sizes in asked(images):
        with torch.no_grad():
            told = model(batch, sizes)
        found = engine.run(batch.numpy(), np.array(sizes))
        assert found["boxes"].shape == (len(batch), model.settings.max_detections, 4)
        assert agree(found, told, 1e-4) > 0
    whole = images[:1, :, :90, :75]
    with torch.no_grad():
        assert agree(engine.run(whole.numpy()), model(whole), 1e-4)
    assert len({tuple(row) for row in found["boxes"].reshape(-1, 4).round(1).tolist()}) > 4


@pytest.mark.parametrize("made", MADE)
def test_nothing_found(made: str, engines: dict[str, Engine]) -> None:
    """Sizes of no pixel leave no box that has a side."""
    found = engines[made].run(np.zeros((2, 3, 64, 96), dtype=np.float32), np.zeros((2, 2), dtype=np.int64))
    if "retinanet" not in made:  # which lets boxes without a side through
        assert found["scores"].max() == 0
        assert (found["labels"] == -1).all()
        assert found["masks"].max() == 0
    objects = found_in(found, 0, (1, 1), (10, 20), score=1.1)
    assert len(objects) == 0
    assert objects.boxes.shape == (0, 4)


def test_no_image_with_objects(runs: Callable[[str], Path], images: Tensor) -> None:
    run = load_run(runs("mask_rcnn"))
    torch.nn.init.constant_(run.model.get_parameter("head.box.predictors.0.cls_score.bias")[0], 50.0)  # background
    with torch.no_grad():
        boxes, scores, labels, masks = ExportedDetector(run.model)(images, torch.tensor(SIZES))
    assert scores.max() == 0
    assert labels.max() == -1
    assert masks.max() == 0
    assert boxes.isfinite().all()


@pytest.mark.parametrize("head", ["faster_rcnn", "retinanet"])
def test_raw_candidates_become_the_same_objects(head: str, runs: Callable[[str], Path], images: Tensor) -> None:
    run = load_run(runs(head))
    settings = run.model.settings
    with torch.no_grad():
        told = run.model(images, SIZES)
        outputs = ExportedDetector(run.model, raw=True)(images, torch.tensor(SIZES))
    candidates = dict(zip(("boxes", "scores", "labels"), (values.numpy() for values in outputs), strict=True))
    assert candidates["scores"].shape[1] >= 60
    rest = Suppression(settings.score_threshold, settings.nms_threshold, settings.max_detections, 0.0)
    assert agree(rest(candidates), told, 1e-6) > 10
    wrong = Suppression(settings.score_threshold, 0.2, settings.max_detections, 0.0)
    with pytest.raises(AssertionError):
        agree(wrong(candidates), told, 1e-6)


def test_an_export_and_its_certificate(exported: tuple[Path, ExportedProgram], runs: Callable[[str], Path]) -> None:
    certificate = json.loads((exported[0] / "certificate.json").read_text())
    assert certificate["agreement"] == 1
    assert certificate["images"] == 5
    assert certificate["objects"]["before"] > 0
    assert certificate["objects"]["box_difference"] < 0.01
    assert certificate["objects"]["lowest_mask_overlap"] > 0.99
    assert set(certificate["images_per_second"]) == {"1", "3"}
    given = pictures(4)
    predictor = Predictor(exported[0], "cpu", threads=1)
    told = Predictor(runs("mask_rcnn"), "cpu").predict(given, score=0.1)
    for mine, theirs in zip(predictor.predict(given, score=0.1), told, strict=True):
        assert len(theirs)
        assert mine.labels.tolist() == theirs.labels.tolist()
        np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=1e-2)
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5)
        for ours, other in zip(mine.decoded(), theirs.decoded(), strict=True):
            assert ours.shape == other.shape
            assert (ours != other).mean() < 0.01
    assert predictor.predict(given[:1], score=0.99)[0].masks == []


def test_predicting_objects_imports_no_torch(exported: tuple[Path, ExportedProgram], tmp_path: Path) -> None:
    images = write_files(tmp_path / "images", 2)
    program = (
        "import sys\nfrom resurge.cli import main\n"
        f"code = main(['predict', {str(exported[0])!r}, {str(images)!r}, '--json'])\n"
        "print(code, [m for m in ('torch', 'lightning_fabric', 'sklearn') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250)
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr
    assert all("mask" in each for image in json.loads(done.stdout)["images"] for each in image["objects"])


def test_a_wrong_detector_is_noticed(runs: Callable[[str], Path]) -> None:
    run = load_run(runs("faster_rcnn"))
    reference = Reference(run, listed(4), None, {})
    assert [len(batch.images) for batch, _ in reference.remembered] == [3, 1]
    wrong = rewrite(run.model)
    with torch.no_grad():
        wrong.get_parameter("head.box.predictors.0.bbox_pred.bias").add_(2.0)  # every box is moved by a fifth

    def answering(model: torch.nn.Module) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        def ask(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            with torch.no_grad():
                found = ExportedDetector(model)(*map(torch.from_numpy, inputs.values()))
            return dict(zip(("boxes", "scores", "labels"), (values.numpy() for values in found), strict=True))

        return ask

    right = reference.compare(answering(rewrite(run.model)))
    assert isinstance(right, ObjectComparison)
    assert right.before > 0
    assert right.agreement == 1
    assert right.drop == 0
    assert reference.compare(answering(wrong)).drop > 50


INT8 = [("mask_rcnn", "openvino", False), ("faster_rcnn", "onnx", True)]


@pytest.mark.parametrize("head, format, raw", INT8)
def test_int8_is_for_layers_on_whole_maps(
    head: str, format: str, raw: bool, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    images = write_files(tmp_path / "images", 4)
    certificate = export(
        runs(head), tmp_path / "out", ExportSettings(format, "int8", calibrate=str(images), max_drop=100, raw=raw)
    )
    told, run = certificate["int8"], load_run(runs(head))
    assert told["kept"] == []
    # the layers of the box and mask heads run once a box
    later = {"mask_rcnn": ["box", "mask"], "faster_rcnn": ["box"]}[head]
    weighted = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)
    modules = [module for name in later for module in run.model.head.get_submodule(name).modules()]
    assert len(told["aside"]) == sum(isinstance(module, weighted) for module in modules)
    assert_quantised(certificate, tmp_path / "out")


def assert_quantised(certificate: dict[str, Any], folder: Path) -> None:
    told = certificate["int8"]
    assert told["calibrated_on"] == 4
    assert told["layers"] - len(told["aside"]) - len(told["kept"]) >= 15
    assert 1e-5 < certificate["difference"] < 0.2  # of a score: it is int8, and it is the same network
    (first, *_) = Predictor(folder, "cpu").predict(pictures(1), score=0.05)
    assert first.boxes.max() > 10


@pytest.mark.parametrize("format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_layers_of_a_detector_that_hurt_are_kept(
    format: str, runs: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf")
    images, real, drops = write_files(tmp_path / "images", 4), ObjectComparison.drop.fget, []

    def pessimistic(found: ObjectComparison) -> float:
        drops.append(real(found) if drops else 100.0)
        return drops[-1]

    monkeypatch.setattr(ObjectComparison, "drop", property(pessimistic))
    said: list[str] = []
    certificate = export(
        runs("retinanet"),
        tmp_path / "out",
        ExportSettings(format, "int8", calibrate=str(images), max_drop=90),
        log=said.append,
    )
    assert any("layers to keep" in line for line in said)
    assert drops[-1] <= 90
    assert certificate["int8"]["aside"] == []  # all of its layers run on whole maps
    assert_quantised(certificate, tmp_path / "out")


def test_int8_needs_pictures_that_can_be_read(runs: Callable[[str], Path], tmp_path: Path) -> None:
    reference = Reference(load_run(runs("faster_rcnn")), listed(0), None, {})
    with pytest.raises(UserError, match="none of the train images of x can be read"):
        quantize_folder(tmp_path, ExportSettings("onnx", "int8"), reference, print)


def test_what_quantisation_leaves_alone(exported: tuple[Path, ExportedProgram]) -> None:
    graph = [
        Node("image", "Parameter", []),
        Node("stem", "Conv", [0]),
        Node("relu", "Relu", [1]),
        Node("rpn", "Conv", [2]),
        Node("sigmoid", "Sigmoid", [3]),
        Node("best", "TopK", [4]),
        Node("boxes", "Add", [5]),
        Node("align", "RoiAlign", [2, 6]),
        Node("linear", "Gemm", [7]),
    ]
    assert [node.name for node in excluded_nodes(graph)] == ["sigmoid", "best", "boxes", "align", "linear"]
    quantizer = OnnxQuantizer(exported[0])
    nodes = quantizer.graph(quantizer.model)
    assert len({node.name for node in nodes}) == len(nodes)
    linear = [node for node in nodes if node.kind == "Gemm"]
    assert len(linear) == 4
    assert all(node in excluded_nodes(nodes) for node in linear)


class Listed:
    def read(self, index: int) -> Image.Image:
        return pictures(4)[index]

    def path(self, index: int) -> None:
        return None


def listed(count: int) -> ExportData:
    images = Pictures(Listed(), tuple(range(count)))
    return ExportData(images, "train images of x", images, "train images of x", real=True)


@pytest.mark.parametrize(
    "head, words, told",
    [
        ("mask_rcnn", ["--raw"], "made for the objects that are kept"),
        ("faster_rcnn", ["--classes-out"], "only a segmenter"),
    ],
)
def test_what_is_not_made(
    head: str, words: list[str], told: str, runs: Callable[[str], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["export", str(runs(head)), "--out", str(tmp_path / "out"), *words]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image", [-1, 2, 1 << 40])
def test_boxes_of_an_image_that_is_not_there(image: int) -> None:
    """A program may ask for them; torchvision's operator would read memory past the maps."""
    maps, box, level = [torch.zeros(2, 3, 8, 8)], torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([0])
    with pytest.raises(ValueError, match="not there: there are 2"):
        pooled(maps, box, torch.tensor([image]), level, [1.0], 7, 2)
    assert pooled(maps, box, torch.tensor([1]), level, [1.0], 7, 2).shape == (1, 3, 7, 7)
    assert not pooled([maps[0] + 1], box, torch.tensor([1]), level + 1, [1.0], 7, 2).any()  # a level that is not there
