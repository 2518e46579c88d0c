"""models, show, check-data, convert: commands that train nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scene_runs import CLASSES, write_run
from torch import Tensor
from two_classes import write_images

import resurge
from resurge.arch.zoo import ALIASES, MODELS
from resurge.cli import main
from resurge.quantities import plain_percent, table
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.table import TASKS
from resurge.weights import catalog


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that succeeds prints."""
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_models_lists_the_zoo(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(asked(capsys, "models", "--json"))
    assert {entry["name"] for entry in found} == set(MODELS)
    by_name = {entry["name"]: entry for entry in found}
    assert {entry["alias"]: name for name, entry in by_name.items() if entry["alias"]} == ALIASES
    assert by_name["resnest50"]["parameters"] == 27_483_240


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("resnest2*", {"resnest26", "resnest200", "resnest269"}),
        ("nest26", {"resnest26", "resnest269"}),
        ("resnest26d", {"resnest26"}),
        ("*_cifar", {name for name in MODELS if name.endswith("_cifar")}),
    ],
)
def test_models_pattern(pattern: str, names: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert {entry["name"] for entry in json.loads(asked(capsys, "models", pattern, "--json"))} == names
    lines = asked(capsys, "models", pattern).splitlines()
    assert {line.split()[0] for line in lines[1:]} == names


def test_show_counts_what_the_network_has(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(asked(capsys, "show", "resnet20_cifar", "--json"))
    assert found["cost"]["total"]["parameters"] == 269_722
    assert found["cost"]["input"] == [3, 32, 32]
    text = asked(capsys, "show", "resnet20_cifar")
    assert "269,722" in text
    assert "stage 3" in text
    assert "91.73" in text


def test_show_takes_spec_text_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["show", "resnet18 stem=deep(32)", "--size", "64", "--in-channels", "1", "--num-classes", "7", "--json"]
    found = json.loads(asked(capsys, *words))
    assert found["cost"]["input"] == [1, 64, 64]
    assert found["cost"]["rows"][-1]["shape"] == [7]
    model = resurge.create_model("resnet18 stem=deep(32)", num_classes=7, in_channels=1)
    assert found["cost"]["total"]["parameters"] == sum(p.numel() for p in model.parameters())


def test_show_compares(capsys: pytest.CaptureFixture[str]) -> None:
    head = asked(capsys, "show", "resnet18", "--compare", "seresnet18", "resnet34", "--size", "64").splitlines()[0]
    assert head.split() == ["resnet18", "seresnet18", "resnet34"]
    found = json.loads(asked(capsys, "show", "resnet18", "--compare", "seresnet18", "--size", "64", "--json"))
    assert [one["name"] for one in found] == ["resnet18", "seresnet18"]


@pytest.mark.parametrize("task", ["detect", "instances", "segment"])
def test_show_of_a_run_says_its_task_and_counts_its_parts(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", task)
    described = json.loads((run / "model.json").read_text())
    described["scores"] = {"val_box_ap": 0.25, "box_ap50": None, "epoch": 7, "split": "val"}
    (run / "model.json").write_text(json.dumps(described))
    network = resurge.load_run(run).model
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    found = json.loads(asked(capsys, "show", str(run), "--json"))
    head, scores = TASKS[task].heads[0], described["scores"]
    total = {**parts, "total": described["parameters"]}
    assert found["run"] == {
        "task": task, "head": head, "classes": list(CLASSES), "parameters": total, "scores": scores,
    }  # fmt: skip
    assert set(parts) == ({"backbone", "head", "auxiliary"} if task == "segment" else {"backbone", "fpn", "head"})
    assert (found["cost"]["input"], found["published"], found["weights"]) == ([3, 48, 48], None, [])
    counted = found["cost"]["total"]["parameters"]
    if task == "segment":
        assert counted == described["parameters"]
        assert found["cost"]["rows"][-1]["shape"] == [3, 48, 48]
        assert found["cost"]["rows"][-2]["shape"][1:] == [3, 3]  # dilated: stride 16
    else:
        assert (found["cost"]["of"], counted) == ("backbone", parts["backbone"])
        assert found["cost"]["other_parameters"] == parts["fpn"] + parts["head"]
    text = asked(capsys, "show", str(run))
    for line in (f"{task}, with the head {head}", "3: disc, ", f"= backbone {parts['backbone']:,} + ",
                 "val_box_ap 25.00 %, box_ap50 undefined, epoch 7, split val"):  # fmt: skip
        assert line in text
    assert ("the backbone alone" in text) == (task != "segment")
    assert "ImageNet" not in text
    beside = asked(capsys, "show", "resnet18", "--compare", str(run), "--size", "64")
    rows = {line.split()[0]: line.split()[1:] for line in beside.splitlines()[1:]}
    assert rows["task"] == ["classify", task]
    assert rows["parameters"] == ["11,689,512", f"{described['parameters']:,}"]
    asked(capsys, "show", str(run), "--diagram", str(tmp_path / "net.svg"))
    assert "linear" not in (tmp_path / "net.svg").read_text()


def test_show_of_a_classifier_s_run_has_its_scores(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = json.loads((trained / "model.json").read_text())
    found = json.loads(asked(capsys, "show", str(trained), "--json"))
    assert found["run"]["scores"] == described["scores"]
    assert found["run"]["parameters"]["total"] == found["cost"]["total"]["parameters"] == described["parameters"]
    assert found["run"]["head"] == "linear"
    assert json.loads(asked(capsys, "show", "resnet18", "--json"))["run"] is None
    asked(capsys, "show", str(trained), "--diagram", str(trained.parent / "net.svg"))
    assert "8 → 2" in (trained.parent / "net.svg").read_text()


def test_show_has_the_table_the_score_and_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    text = asked(capsys, "show", "resnest50", "--size", "224")
    lines = text.splitlines()
    assert lines[:2] == ["resnest50", "also called resnest50d"]
    for expected in ("27,483,240", "5.371 G", "81.03 % top-1 on ImageNet at 224 x 224 (ResNeSt authors)",
                     "hub:timm/resnest50d.in1k", "https://github.com/zhanghang1989/"):  # fmt: skip
        assert expected in text
    stage = next(line for line in lines if line.startswith("stage 3"))
    assert "1024 x 14 x 14" in stage
    assert stage.split()[-1] == "295"
    start = next(i for i, line in enumerate(lines) if "parameters" in line)
    columns = lines[start : start + 6]
    edge = columns[0].index("parameters") + len("parameters")
    assert all(line[edge - 1] != " " and line[edge] == " " for line in columns)


def test_show_says_nothing_of_scores_that_are_not_published(capsys: pytest.CaptureFixture[str]) -> None:
    text = asked(capsys, "show", "resnet50 transform=split(radix=2) gate=se", "--size", "64")
    assert text.startswith("seresnet50 transform=split(radix=2)\n")
    assert "published" not in text
    assert "weights:" not in text
    found = json.loads(asked(capsys, "show", "resnet18 planes=(8,16,24,32)", "--size", "64", "--json"))
    assert (found["name"], found["published"], found["weights"]) == (None, None, [])


def test_show_of_published_weights_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(asked(capsys, "show", "resnest14", "--size", "64", "--json"))
    entry = catalog.entry("resnest14")
    assert entry.top1 is not None
    assert found["published"]["top1"] == entry.top1
    assert [source["location"] for source in found["weights"]] == [source.location for source in entry.sources]
    assert found["spec"]["depths"] == [1, 1, 1, 1]
    assert "91.73 % top-1 on CIFAR-10 at 32 x 32" in asked(capsys, "show", "resnet20_cifar")


def test_show_compares_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = asked(capsys, "show", "resnest14", "--compare", "resnet18", "resnet20_cifar").splitlines()
    rows = {line[:24].strip(): line for line in lines}
    assert "11,689,512" in rows["parameters"]
    assert rows["stage 4 multiply-adds"].split()[-1] == "-"
    assert any(line.startswith("transform") for line in lines)
    same = asked(capsys, "show", "resnet18", "--compare", "resnet18", "--size", "64")
    assert not any(line.startswith("transform") for line in same.splitlines())


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_show_draws(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / f"net.{suffix}"
    text = asked(capsys, "show", "resnet20_cifar", "--diagram", str(picture))
    names = [f"net{part}.{suffix}" for part in ("", "_stage1", "_stage2", "_stage3")]
    assert [Path(line).name for line in text.splitlines()[-4:]] == names
    start = picture.read_bytes()[:8]
    assert start.startswith(b"<svg") if suffix == "svg" else start == b"\x89PNG\r\n\x1a\n"
    assert suffix == "png" or "64 → 10" in picture.read_text()


def test_check_data_of_a_sound_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(asked(capsys, "check-data", str(photos), "--json"))["ok"] is True


def test_check_data_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "data", 4, 0)
    (tmp_path / "data" / "left" / "broken.jpg").write_text("no image")
    (tmp_path / "data" / "empty").mkdir()
    assert main(["check-data", str(tmp_path / "data")]) == 1
    text = capsys.readouterr().out
    assert "broken.jpg" in text
    assert "empty" in text
    assert "remedy" in text


def test_check_data_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(tmp_path / "missing")]) == 2
    assert "missing" in capsys.readouterr().err


def saved(path: Path, tensors: dict[str, Tensor]) -> str:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}, path)
    return str(path)


def test_convert_goes_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = resurge.create_model("resnet18", num_classes=7)
    torchvisions = resurge.export_weights(model, "torchvision")
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    source = saved(tmp_path / "source.pth", torchvisions)
    text = asked(capsys, "convert", source, str(there), "--model", "resnet18", "--to", "resurge")
    assert "torchvision" in text
    assert load_file(there).keys() == model.state_dict().keys()
    asked(capsys, "convert", str(there), str(back), "--model", "resnet18", "--to", "torchvision")
    found = load_file(back)
    assert found.keys() == torchvisions.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in torchvisions.items())


def test_convert_writes_nothing_that_was_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "target.safetensors"
    words = [str(target), "--model", "resnet18", "--to", "resurge", "--task"]
    classifier = saved(tmp_path / "classifier.pth", resurge.create_model("resnet18").state_dict())
    assert main(["convert", classifier, *words, "detect"]) == 2
    assert "random" in capsys.readouterr().err
    assert not target.exists()
    model = resurge.create_model("resnet18", 21, task="segment", head="fcn", segmenter=Segmenter(aux_weight=0))
    asked(capsys, "convert", saved(tmp_path / "fcn.pth", model.state_dict()), *words, "segment", "--head", "fcn")
    assert load_file(target).keys() == model.state_dict().keys()


def test_convert_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "source.pth", resurge.export_weights(resurge.create_model("resnet18"), "torchvision"))
    target = tmp_path / "target.safetensors"
    same = ["--to", "resurge", "--model"]
    assert main(["convert", source, str(target), *same, "resnet34"]) == 2
    assert "resnet18" in capsys.readouterr().err
    assert not target.exists()
    assert main(["convert", source, str(tmp_path / "target.pth"), *same, "resnet18"]) == 2
    assert ".safetensors" in capsys.readouterr().err
    target.write_text("precious")
    assert main(["convert", source, str(target), *same, "resnet18"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_text() == "precious"


def test_cells() -> None:
    assert plain_percent(0.98765) == "98.77 %"
    assert table([("a", "1"), ("bb", "22")], ("x", "n"), "<>") == "x    n\na    1\nbb  22"


def test_convert_refuses_what_it_has_no_use_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", str(tmp_path), str(tmp_path / "new.safetensors"), "--model", "resnet18", "--to", "resurge"]
    assert main([*words, "--num-classes", "7"]) == 2
    assert "Leave --num-classes out" in capsys.readouterr().err
    (tmp_path / "model.json").write_text("{}")
    assert main([*words, "--task", "detect", "--head", "retinanet", "--in-channels", "1"]) == 2
    assert "is a run and has --head, --in-channels of its own" in capsys.readouterr().err
