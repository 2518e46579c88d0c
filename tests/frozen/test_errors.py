"""Typical mistakes: what is said of them, and exit code 2."""

from __future__ import annotations

from pathlib import Path

from frozen.commands import resurge, without_paths
from frozen.goldens import Goldens
from scene_files import picture

MISTAKES = {
    "no command": ["modles"],
    "misspelt option": ["train", "--epochz", "3"],
    "misspelt model": ["show", "resnst50"],
    "misspelt axis": ["show", "resnet50 gaet=se"],
    "misspelt choice": ["show", "resnet50 gate=sse"],
    "misspelt recipe": ["train", "--recipe", "digts"],
    "misspelt field": ["train", "--set", "label_smothing=0.1"],
    "misspelt value": ["train", "--schedule", "cosin", "--print-recipe"],
    "misspelt task": ["train", "--task", "detct", "--print-recipe"],
    "misspelt head": ["train", "--task", "detect", "--head", "faster_rcn", "--print-recipe"],
    "head of another task": ["train", "--task", "detect", "--head", "mask_rcnn", "--print-recipe"],
    "value out of range": ["train", "--lr", "-1", "--print-recipe"],
    "not a number": ["train", "--epochs", "many"],
    "field without effect": ["train", "--task", "detect", "--mixup", "0.2", "--print-recipe"],
    "fields that disagree": ["train", "--schedule", "step", "--print-recipe"],
    "no data": ["train", "--data", "<tmp>/none", "--out", "<tmp>/new"],
    "out is not empty": ["train", "--data", "digits", "--out", "<tmp>/full"],
    "no weights file": [
        "train",
        "--data",
        "digits",
        "--model",
        "resnet20_cifar",
        "--weights",
        "<tmp>/none.pth",
        "--out",
        "<tmp>/new",
    ],
    "resume of nothing": ["train", "--resume", "<tmp>/none"],
    "resume of another folder": ["train", "--resume", "<tmp>/full"],
    "eval without weights": ["eval", "resnet50", "--data", "digits"],
    "eval without data": ["eval", "resnet50", "--weights", "<tmp>/none.pth"],
    "misspelt split": ["eval", "<tmp>/full", "--split", "tets"],
    "predict without a run": ["predict", "<tmp>/none", "<tmp>/image.png"],
    "predict of no run": ["predict", "<tmp>/full", "<tmp>/image.png"],
    "predict without images": ["predict", "<tmp>/full", "<tmp>/full"],
    "two forms of output": ["predict", "<tmp>/full", "<tmp>/image.png", "--json", "--csv"],
    "missing argument": ["report"],
    "report of no run": ["report", "<tmp>/full"],
    "misspelt format": ["export", "<tmp>/full", "--out", "<tmp>/new", "--format", "onxx"],
    "misspelt precision": ["export", "<tmp>/full", "--out", "<tmp>/new", "--precision", "fp8"],
    "export of no run": ["export", "<tmp>/full", "--out", "<tmp>/new"],
    "misspelt layout": ["convert", "<tmp>/a.pth", "<tmp>/b.safetensors", "--model", "resnet18", "--to", "torchvison"],
    "wrong ending": ["convert", "<tmp>/a.pth", "<tmp>/b.pth", "--model", "resnet18", "--to", "timm"],
    "check-data of nothing": ["check-data", "<tmp>/none"],
    "check-data of an empty folder": ["check-data", "<tmp>/empty"],
    "serve without a run": ["serve", "<tmp>/none"],
    "bench of nothing": ["bench", "resnst50"],
}


def test_mistakes(tmp_path: Path, goldens: Goldens) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "image.png")
    found = {}
    for name, words in MISTAKES.items():
        done = resurge(*(word.replace("<tmp>", str(tmp_path)) for word in words))
        assert (done.code, done.out) == (2, ""), name
        assert not (tmp_path / "new").exists(), name
        found[name] = [" ".join(words), *without_paths(done.err, {tmp_path: "<tmp>"}).splitlines()]
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["notes.txt"]
    goldens.same("errors", found)
