"""What is wrong with an export is said before anything is predicted."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_exports import pictures, write_classifier

from resurge.errors import UserError
from resurge.export.exporting import export
from resurge.export.settings import ExportSettings
from resurge.infer.engines import open_engine
from resurge.infer.engines import openvino as openvino_engine
from resurge.infer.folder import described, read_export
from resurge.infer.predictor import Predictor
from resurge.runs import load_run

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters and runtimes warn of themselves


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("made")
    run = write_classifier(root / "run")
    export(run, root / "onnx", ExportSettings("onnx"))
    export(run, root / "openvino", ExportSettings("openvino", "bf16", max_drop=100))
    export(run, root / "torch", ExportSettings("torch", "bf16", max_drop=100))
    return {**{format: root / format for format in ("onnx", "openvino", "torch")}, "run": run}


@pytest.fixture
def copy(made: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["onnx"], tmp_path / "copy"))


def test_a_file_cut_short_or_changed(copy: Path) -> None:
    path = copy / "model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cut short"):
        Predictor(copy)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="SHA-256"):
        Predictor(copy)
    path.unlink()
    with pytest.raises(UserError, match="cannot read"):
        Predictor(copy)


def change(folder: Path, **fields: Any) -> None:
    path = folder / "model.json"
    meta = json.loads(path.read_text())
    for name, value in fields.items():
        place = meta["export"] if name in meta["export"] else meta
        place[name] = value
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_file_that_is_no_network(format: str, made: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made[format], tmp_path / "copy"))
    files = json.loads((folder / "model.json").read_text())["export"]["files"]
    name = next(iter(files))
    (folder / name).write_bytes(b"<nothing/>")
    change(folder, files={**files, name: described(folder / name)})
    with pytest.raises(UserError, match="cannot be loaded"):
        Predictor(folder)


def with_foreign_weights(model: Any, location: str, where: str) -> None:
    """The model has a tensor that another file holds: a weight, a constant, or one in a graph inside the graph."""
    import onnx

    tensor = onnx.TensorProto(name="foreign", data_type=onnx.TensorProto.UINT8, dims=[16])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    constant = onnx.helper.make_node("Constant", [], ["foreign"], value=tensor)
    if where == "weights":
        model.graph.initializer.append(tensor)
    elif where == "constant":
        model.graph.node.append(constant)
    else:
        inner = onnx.helper.make_graph([constant], "inner", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


@pytest.mark.parametrize("where", ["weights", "constant", "inner graph"])
@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "secret", "*/_ORT_MEM_ADDR_/*"])
def test_an_onnx_file_takes_nothing_from_another(location: str, where: str, copy: Path) -> None:
    import onnx

    for folder in (copy, copy.parent):
        (folder / "secret").write_bytes(bytes(16))
    path = copy / "model.onnx"
    model = onnx.load(path)
    with_foreign_weights(model, location, where)
    path.write_bytes(model.SerializeToString())
    change(copy, files={"model.onnx": described(path)})
    with pytest.raises(UserError, match="takes weights from another file"):
        Predictor(copy)


def test_openvino_reads_no_other_format(made: dict[str, Path], tmp_path: Path) -> None:
    """It would tell from the content what model.xml is, and an ONNX file may name others."""
    folder = Path(shutil.copytree(made["openvino"], tmp_path / "copy"))
    shutil.copy(made["onnx"] / "model.onnx", folder / "model.xml")
    change(folder, files={name: described(folder / name) for name in ("model.xml", "model.bin")})
    with pytest.raises(UserError, match="not OpenVINO's XML"):
        Predictor(folder)


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"format": "tflite"}, "'tflite'"),
        ({"precision": "int4"}, "'int4'"),
        ({"files": {}}, "no hash"),
        ({"files": None}, "damaged"),
        ({"classes": None}, "classes"),
        ({"preprocessing": {"size": "big"}}, "damaged"),
        ({"preprocessing": {}}, "size"),
    ],
)
def test_a_damaged_description(fields: dict[str, Any], told: str, copy: Path) -> None:
    change(copy, **fields)
    with pytest.raises(UserError, match=told):
        Predictor(copy)


def test_a_run_is_no_export(made: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="resurge export"):
        read_export(made["run"])


@pytest.mark.parametrize("format, module", [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_runtime_names_the_extra(
    format: str, module: str, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{module} is needed.*pip install 'resurge\[export\]'"):
        Predictor(made[format])


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_device_that_is_not_there(format: str, made: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="cpu"):
        Predictor(made[format], device="mps")


def test_a_processor_without_bf16(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Core:
        def __init__(self) -> None:
            self.real = openvino.Core()

        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8"]

        def read_model(self, path: Path, **settings: Any) -> Any:
            return self.real.read_model(path, **settings)

        def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
            asked.append(settings)
            return self.real.compile_model(model, device, settings)

    monkeypatch.setattr(openvino_engine, "need", lambda name: SimpleNamespace(Core=Core))
    predictor = Predictor(made["openvino"])
    assert predictor.precision == "fp32"
    assert "no bf16" in predictor.notes[0]
    assert asked[0]["INFERENCE_PRECISION_HINT"] == "f32"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("able", [True, False])
def test_torch_says_that_a_precision_is_emulated(
    precision: str, able: bool, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {"avx2": True, f"avx512_{precision}": able}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    exported = read_export(made["torch"])
    told = {**exported.meta["export"], "precision": precision}  # of the description only: the program is in bf16
    engine = open_engine(replace(exported, meta={**exported.meta, "export": told}), "cpu")
    assert engine.precision == precision
    assert [f"no {precision} arithmetic: torch emulates it" in note for note in engine.notes] == [True] * (not able)


def test_an_older_torch_does_not_know_the_processor(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert Predictor(made["torch"], "cpu").notes == ()


def overwritten(path: Path) -> None:
    """Other bytes in the same file, as a copy over it leaves them: half of them, all of them another."""
    content = np.fromfile(path, dtype=np.uint8)
    with path.open("r+b") as file:
        file.write((~content).tobytes())
        file.truncate(len(content) // 2)


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_a_file_overwritten_while_it_is_loaded(format: str, made: dict[str, Path], tmp_path: Path) -> None:
    sizes = ((1, 40, 50), (2, 33, 32), (1, 40, 50), (1, 32, 32))
    questions = [np.random.default_rng(0).standard_normal((n, 3, h, w)).astype(np.float32) for n, h, w in sizes]
    whole = Predictor(made[format], "cpu").engine
    expected = [whole.run(images)["logits"] for images in questions]
    folder = Path(shutil.copytree(made[format], tmp_path / "copy"))
    predictor = Predictor(folder, "cpu")
    for path in folder.glob("model.[!j]*"):
        overwritten(path)
    for images, answer in zip(questions, expected, strict=True):
        if format == "onnx" and images.shape[2:] != (32, 32):
            with pytest.raises(UserError, match=r"model.onnx has changed since"):
                predictor.engine.run(images)
        else:
            np.testing.assert_allclose(predictor.engine.run(images)["logits"], answer, rtol=0, atol=0.02)
    (folder / "model.onnx").unlink(missing_ok=True)
    if format == "onnx":
        with pytest.raises(UserError, match="cannot read"):
            predictor.engine.run(questions[0])


def test_images_that_do_not_fit(made: dict[str, Path]) -> None:
    for format in ("onnx", "openvino"):
        with pytest.raises(UserError, match="cannot take images of shape"):
            Predictor(made[format]).engine.run(np.zeros((1, 2, 32, 32), dtype=np.float32))


def test_bf16_is_near_fp32(made: dict[str, Path]) -> None:
    images = pictures(8)
    whole, half = (Predictor(made[name]).predict(images) for name in ("run", "openvino"))
    for mine, theirs in zip(half, whole, strict=True):
        assert abs(float(mine.scores[0]) - float(theirs.scores[0])) < 0.1


def test_onnx_runtime_has_the_expected_side_fixed_and_takes_others(made: dict[str, Path]) -> None:
    engine = open_engine(read_export(made["onnx"]), "cpu")
    side = engine._side[0]
    model = load_run(made["run"]).model
    assert list(engine._sessions) == [(side, side)]
    for count, height, width in ((1, side, side), (3, side, side), (2, side + 9, side + 4), (1, side, side)):
        images = np.random.default_rng(count).standard_normal((count, 3, height, width)).astype(np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(engine.run(images)["logits"], expected, atol=1e-4 * np.abs(expected).max())
    assert list(engine._sessions) == [(side, side), None]
