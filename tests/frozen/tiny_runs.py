"""A training of each task that takes seconds, and all that is recorded of its run and of the commands on it."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
from frozen.commands import output, resurge, visible_text, without_paths
from frozen.goldens import digest
from PIL import Image

CLASSIFIER = (
    "resnet20_cifar depths=(1,1,1) planes=(8,16,16) stem=conv3x3(8) gate=se(reduction=4) "
    "transform=avgdown(split(radix=2)) shortcut=avg"
)
SPLIT = "resnet20_cifar depths=(1,1,1) planes=(8,16,24) stem=deep(4) transform=split(radix=2) shortcut=avg"
PLAIN = "resnet18 depths=(1,1,1,1) planes=(8,8,16,16) stem=conv7x7(8)"
SCENES = "--size 40 --max-size 64 --batch-size 16 --steps 130 --warmup 0.1 --lr 0.1 --ema 0.9 --eval-every 1"
OBJECTS = (
    f"{SCENES} --fpn-channels 16 --box-channels 32 --max-detections 10 --rpn-proposals-train 50 "
    "--rpn-proposals-test 20 --rpn-batch 32 --roi-batch 16 --score-threshold 0.01"
)
# Two passes over the embedded images (the second one is cut short for scenes), with something random in each.
TRAININGS = {
    "classify": (
        CLASSIFIER,
        "--size 16 --epochs 2 --batch-size 64 --lr 0.3 --lr-per 0 --warmup 0.5 --crop-scale none --hflip 0 "
        "--affine-degrees 12 --label-smoothing 0.05 --mixup 0.2 --dropout 0.1 --ema 0.9 --nesterov",
    ),
    "segment": (SPLIT, f"{SCENES} --head fcn --output-stride 8 --head-channels 16 --aux-weight 0.4 --precision fp32 "
                       "--scale-jitter none --crop-size none --hflip 0.5 --class-weights 0.1,1,1,1,1,1,1,1,1,1,1"),
    "detect": (SPLIT, OBJECTS),
    "instances": (PLAIN, f"{OBJECTS} --mask-channels 8"),
}  # fmt: skip
IMAGES = ("0.png", "1.png", "2.png", "grey.png", "clear.png", "wide.png")
SURE = "0.1"  # least score of the objects that are looked at
TIMES = ("images_per_s", "seconds")


def train(task: str, folder: Path) -> None:
    """`folder`/run and `folder`/images."""
    model, options = TRAININGS[task]
    words = ["train", "--task", task, "--data", "digits", "--model", model, *options.split(), "--out", folder / "run"]
    output(*words, "--device", "cpu", "--threads", "1", "--workers", "0")
    write_images(folder / "images", task)
    if task in ("detect", "instances"):
        sharpen(folder / "run", folder / "sure")


def write_images(folder: Path, task: str) -> None:
    """Pictures of digits in several modes and sizes, and one that is broken."""
    from sklearn.datasets import load_digits

    folder.mkdir()
    digits, draw = load_digits().images, np.random.RandomState(5)
    for index, name in enumerate(IMAGES):
        if task == "classify":
            pixels = np.kron(digits[index] * 15, np.ones((3, 3))).astype(np.uint8)
        else:
            pixels = draw.randint(0, 60, (96, 96, 3)).astype(np.uint8)
            for top, left in ((2, 4), (22, 40)):
                ink = np.kron(digits[draw.randint(len(digits))] > 6, np.ones((7, 6))) > 0
                pixels[top : top + 56, left : left + 48][ink] = draw.randint(150, 255, 3)
        image = Image.fromarray(pixels)
        image = {"grey.png": image.convert("L"), "clear.png": image.convert("RGBA")}.get(name, image)
        (image.resize((80, 50)) if name == "wide.png" else image).save(folder / name)
    (folder / "broken.png").write_text("no image")


def sharpen(run: Path, target: Path) -> None:
    """A copy of a detector's run that is sure of what it finds: its class scores are too even after so few steps."""
    shutil.copytree(run, target)
    file = target / "model.safetensors"
    with safetensors.safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = safetensors.torch.load_file(file)
    layers = [name for name in tensors if ".cls_score." in name]
    assert len(layers) == 2
    for name in layers:
        tensors[name] = tensors[name] * 4
    safetensors.torch.save_file(tensors, file, metadata)


def rows(path: Path) -> list[dict[str, float | None]]:
    """metrics.csv without the columns of time; an empty cell is None."""
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    return [{key: float(cell) if cell else None for key, cell in row.items() if key not in TIMES} for row in found]


def tensors(path: Path) -> dict[str, Any]:
    """A digest over the names, types, shapes and bytes of all tensors, and the mean and deviation of each."""
    found, total = {}, hashlib.sha256()
    for name, value in sorted(safetensors.torch.load_file(path).items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.contiguous().numpy().tobytes())
        numbers = value.double()
        mean, deviation = float(numbers.mean()), float(numbers.std(correction=0))
        assert math.isfinite(mean + deviation), name
        found[name] = [str(value.dtype).removeprefix("torch."), list(value.shape), mean, deviation]
    return {"digest": total.hexdigest(), "tensors": found}


def pixels(folder: Path) -> list[list[Any]]:
    """[name, mode, width, height, digest of the decoded pixels] of each image in a folder."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".png", ".jpg"):
            image = Image.open(path)
            found.append([path.relative_to(folder).as_posix(), image.mode, *image.size, digest(image.tobytes())[:16]])
    return found


def described(path: Path) -> dict[str, Any]:
    """model.json without versions and what depends on them."""
    found: dict[str, Any] = json.loads(path.read_text())
    del found["versions"]
    if "export" in found:
        found["export"].pop("nodes", None)
        found["export"]["files"] = sorted(found["export"]["files"])
        found["export"]["made_with"] = sorted(found["export"]["made_with"])
    return found


def record(task: str, folder: Path) -> dict[str, Any]:
    """Everything that is frozen of a run, by name."""
    run, places = folder / "run", {folder: "<tmp>"}
    split = (run / "split.csv").read_text()
    found: dict[str, Any] = {
        "metrics": rows(run / "metrics.csv"),
        "tensors": tensors(run / "model.safetensors"),
        "recipe": (run / "recipe.yaml").read_text(),
        "split": {"lines": split.splitlines()[:3], "count": len(split.splitlines()), "digest": digest(split.encode())},
        "model": described(run / "model.json"),
        "evaluation": json.loads((run / "evaluation.json").read_text()),
        "report": visible_text((run / "report.html").read_text()),
        "pictures": pixels(run / "explain"),
        "files": sorted(
            p.relative_to(run).as_posix()
            for p in run.rglob("*")
            if p.is_file() and p.suffix != ".jpg" and p.parent.name != "tb"
        ),
        "eval": json.loads(output("eval", run, "--split", "val", "--json", "--device", "cpu")),
        "eval_text": output("eval", run, "--split", "val", "--device", "cpu"),
    }
    for values in (found["eval"], found["eval"].get("box", {}), found["eval"].get("mask", {})):
        values.pop("curves", None)  # long, and in the evaluation already
    found["predict"] = predict(task, folder)
    return {key: without_paths(value, {run: "<run>", **places}) for key, value in found.items()}


def predict(task: str, folder: Path) -> dict[str, Any]:
    """`resurge predict` in all its forms."""
    run, images, out = folder / ("sure" if (folder / "sure").exists() else "run"), folder / "images", folder / "out"
    base = ["predict", run, images, "--device", "cpu", "--threads", "1"]
    more = {
        "classify": ["--top", "3", "--explain", out / "explained"],
        "segment": ["--overlays", out / "drawn", "--out", out / "maps", "--explain", out / "explained"],
        "detect": ["--overlays", out / "drawn", "--coco-json", out / "coco.json", "--score", SURE],
        "instances": ["--overlays", out / "drawn", "--coco-json", out / "coco.json", "--score", SURE],
    }[task]
    text = resurge(*base, *more[: 2 * (task == "classify")])
    assert text.code == 1, "one image is broken"
    found: dict[str, Any] = {
        "json": json.loads(output(*base, *more, "--json", code=1)),
        "csv": output(*base, "--csv", code=1),
        "text": text.out,
        "stderr": text.err,
        "images": pixels(out) if out.exists() else [],
    }
    if (out / "coco.json").exists():
        found["coco"] = json.loads((out / "coco.json").read_text())
    if task == "segment":
        found["views"] = json.loads(output(*base, "--json", "--scales", "0.75,1.25", "--flip", code=1))
    return found


def export(task: str, format: str, folder: Path, target: Path) -> dict[str, Any]:
    """The certificate and model.json of an export, and what `resurge predict` says with it."""
    run = folder / ("sure" if (folder / "sure").exists() else "run")
    done = resurge("export", run, "--out", target, "--format", format, "--images", "12", "--json")
    assert done.code == 0, done.err
    certificate = json.loads((target / "certificate.json").read_text())
    words = ["predict", target, folder / "images", "--json", "--device", "cpu", "--threads", "1"]
    words += ["--top", "3"] if task == "classify" else ["--score", SURE] if (folder / "sure").exists() else []
    return {
        "files": sorted(path.name for path in target.iterdir()),
        "certificate": certificate,
        "printed": sorted(json.loads(done.out)),
        "model": described(target / "model.json"),
        "predict": without_paths(json.loads(output(*words, code=1)), {folder: "<tmp>"}),
    }
