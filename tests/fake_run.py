"""A run directory of the documented layout, made without training anything."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><rect width="40" height="20"/></svg>'


def picture(seed: int, warm: bool = False) -> bytes:
    """A small PNG with a blob in it."""
    draw_from = random.Random(seed)
    image = Image.new("RGB", (64, 64), (40, 20, 90) if warm else (draw_from.randrange(120, 220),) * 3)
    pen = ImageDraw.Draw(image)
    x, y = draw_from.randrange(10, 40), draw_from.randrange(10, 40)
    pen.ellipse((x, y, x + 22, y + 22), fill=(250, 180, 40) if warm else (30, 30, 30))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def evaluation_of(classes: list[str], seed: int = 0, each: int = 36) -> dict:
    """A plausible evaluation.json."""
    draw_from = random.Random(seed)
    n = len(classes)
    confusion = [[0] * n for _ in range(n)]
    for i in range(n):
        confusion[i][i] = each
        for _ in range(draw_from.randrange(0, 4)):
            j = draw_from.randrange(n)
            if i != j and confusion[i][i]:
                confusion[i][i] -= 1
                confusion[i][j] += 1
    columns = [sum(row[j] for row in confusion) for j in range(n)]
    per_class = []
    for i, name in enumerate(classes):
        recall = confusion[i][i] / each
        precision = confusion[i][i] / columns[i] if columns[i] else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        per_class.append({"class": name, "n": each, "precision": precision, "recall": recall, "f1": f1})
    mistakes = [
        {
            "id": f"{classes[i]}/{k:05d}.png",
            "path": None,
            "true": i,
            "predicted": (i + 3) % n,
            "confidence": 0.99 - 0.07 * k,
            "thumbnail": f"explain/mistake_{k}.png",
            "overlay": f"explain/mistake_{k}_cam.png",
        }
        for k, i in enumerate(draw_from.sample(range(n), min(6, n)))
    ]
    return {
        "top1": sum(confusion[i][i] for i in range(n)) / (each * n),
        "top5": 0.999,
        "ece": 0.0123,
        "nll": 0.0711,
        "split": "test",
        "per_class": per_class,
        "confusion": confusion,
        "mistakes": mistakes,
        "examples": [dict(m, predicted=m["true"]) for m in mistakes[:4]],
        "reliability": [
            {"confidence": 0.05 + 0.1 * b, "accuracy": max(0.0, 0.1 * b - 0.02), "n": 2**b} for b in range(10)
        ],
    }


def make_run(folder: Path, classes: list[str] | None = None, epochs: int = 30) -> Path:
    """Write a complete run directory and return it."""
    classes = classes or [str(i) for i in range(10)]
    (folder / "explain").mkdir(parents=True, exist_ok=True)
    model = {
        "format": 1,
        "task": "classify",
        "spec": "resnest14 stem=conv3x3 planes=16,32,64,128",
        "in_channels": 1,
        "num_classes": len(classes),
        "classes": classes,
        "preprocessing": {
            "size": 32,
            "crop_pct": 1.0,
            "mean": [0.305],
            "std": [0.376],
            "channels": 1,
            "interpolation": "bilinear",
        },
        "scores": {"top1": 0.98},
        "versions": {"resurge": "0.1.0", "torch": "2.10.0", "python": "3.12.1"},
        "parameters": 2_345_678,
        "data": {
            "name": "digits",
            "how": "the embedded digits, a fixed split",
            "seed": 0,
            "train": 1257,
            "val": 180,
            "test": 360,
        },
    }
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "recipe.yaml").write_text(
        "# demo\nmodel: resnest14\nepochs: 30\nlr: 0.1\nlabel_smoothing: 0.1\nprecision: fp32\n"
    )
    rows = ["epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,images_per_s,seconds"]
    for e in range(epochs):
        lr = 0.05 * (1 + math.cos(math.pi * e / epochs)) if e > 2 else 0.03 * (e + 1)
        fit = math.exp(-e / 6)
        rows.append(
            f"{e},{e * 40},{lr},{0.12 + 2.2 * fit},{0.995 - 0.8 * fit},{0.2 + 2 * fit + 0.05 * math.sin(e)},"
            f"{0.985 - 0.75 * fit},{0.999 - 0.3 * fit},{1100 + 30 * math.sin(e)},{4.1 * (e + 1)}"
        )
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    evaluation = evaluation_of(classes)
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    for k in range(len(evaluation["mistakes"])):
        (folder / f"explain/mistake_{k}.png").write_bytes(picture(k))
        (folder / f"explain/mistake_{k}_cam.png").write_bytes(picture(k, warm=True))
    write_costs(folder)
    return folder


def write_costs(folder: Path, **more: object) -> None:
    """The diagram and the table of costs, with `more` fields."""
    (folder / "explain" / "network.svg").write_text(SVG)
    stages = [
        ("stem", 16, 32, 432),
        ("stage 1", 64, 32, 51_000),
        ("stage 2", 128, 16, 210_000),
        ("stage 3", 256, 8, 820_000),
    ]
    cost = {
        "input": [1, 32, 32],
        "rows": [
            {
                "name": name,
                "shape": [c, s, s],
                "parameters": p,
                "macs": p * s * s,
                "activation_bytes": 4 * c * s * s * 7,
                "receptive_field": 3 + 14 * i,
            }
            for i, (name, c, s, p) in enumerate(stages)
        ],
        "total": {"parameters": 2_345_678, "macs": 171_000_000, "activation_bytes": 5_100_000},
        **more,
    }
    (folder / "explain" / "cost.json").write_text(json.dumps(cost))


# ------------------------------------------------------------------------------------------------- the dense tasks

COLUMNS = {
    "detect": ("box_ap", "box_ap50"),
    "instances": ("mask_ap", "mask_ap50", "box_ap", "box_ap50"),
    "segment": ("miou", "pixel_accuracy"),
}
TERMS = {
    "detect": ("loss_objectness", "loss_rpn_box", "loss_class", "loss_box"),
    "instances": ("loss_objectness", "loss_rpn_box", "loss_class", "loss_box", "loss_mask"),
    "segment": ("loss_main", "loss_aux"),
}


def average_precision_of(classes: list[str], draw_from: random.Random) -> dict:
    """Plausible figures of boxes or masks; there are no large objects, and none of the last class."""
    curves, per_class = [], []
    for i, name in enumerate(classes):
        last = i == len(classes) - 1 and len(classes) > 1
        end, top = draw_from.uniform(0.7, 1.0), draw_from.uniform(0.9, 1.0)
        precision = [top * (1 - (r / 100) ** 6 * 0.4) if r / 100 < end else 0.0 for r in range(101)]
        ap50 = None if last else sum(precision) / 101
        per_class.append(
            {"class": name, "n": 0 if last else 20 + i, "ap": None if last else 0.7 * (ap50 or 0), "ap50": ap50}
        )
        if not last:
            curves.append({"class": name, "precision": precision})
    figures = {key: draw_from.uniform(0.4, 0.9) for key in ("ap", "ap50", "ap75", "ap_small", "ap_medium")}
    figures |= {key: draw_from.uniform(0.4, 0.9) for key in ("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium")}
    return {**figures, "ap_large": None, "ar_large": None, "per_class": per_class, "curves": curves}


def label_map_scores_of(classes: list[str], draw_from: random.Random) -> dict:
    """Plausible figures of label maps; the last class is nowhere."""
    n = len(classes)
    confusion = [[draw_from.randrange(4000) if i != j else 200_000 for j in range(n)] for i in range(n)]
    if n > 1:
        confusion[-1] = [0] * n
    per_class = []
    for i, name in enumerate(classes):
        there, told = sum(confusion[i]), sum(row[i] for row in confusion)
        right = confusion[i][i]
        per_class.append(
            {
                "class": name,
                "pixels": there,
                "iou": right / (there + told - right),
                "accuracy": right / there if there else None,
            }
        )
    return {
        "miou": 0.8123,
        "pixel_accuracy": 0.95,
        "mean_accuracy": 0.9,
        "per_class": per_class,
        "confusion": confusion,
    }


def scene_evaluation_of(task: str, classes: list[str], examples: int = 3) -> dict:
    """A plausible evaluation.json of detect, instances or segment."""
    draw_from = random.Random(0)
    kinds = {"detect": ("box",), "instances": ("box", "mask"), "segment": ()}[task]
    scores: dict = {kind: average_precision_of(classes, draw_from) for kind in kinds}
    if not kinds:
        scores = label_map_scores_of(classes, draw_from)
        scores["colours"] = {name: f"#{40 * i % 256:02x}8030" for i, name in enumerate(classes)}
    else:
        scores["objects"] = sum(row["n"] for row in scores["box"]["per_class"])
    named = {}
    for kind in ("best", "worst", "wrong"):
        named[kind] = [
            {
                "id": f"scene-{kind}-{i}",
                "path": None,
                "score": {"best": 1.0 - i / 100, "worst": i / 100, "wrong": 0.5}[kind],
                **({"weight": 0.9, "wrong": f"{classes[0]} 0.93 where no object is"} if kind == "wrong" else {}),
                "overlay": f"explain/{kind}_{i:03d}.jpg",
                "thumbnail": f"explain/{kind}_{i:03d}_truth.jpg",
            }
            for i in range(examples)
        ]
    return {"task": task, "split": "test", "count": 120, **scores, "examples": named}


def make_scene_run(folder: Path, task: str, classes: list[str] | None = None, epochs: int = 12) -> Path:
    """Write a complete run directory of detect, instances or segment and return it."""
    classes = classes or ["cat", "dog", "street lamp", "bicycle"]
    (folder / "explain").mkdir(parents=True, exist_ok=True)
    evaluation = scene_evaluation_of(task, classes)
    model = {
        "format": 1,
        "task": task,
        "head": {"detect": "faster_rcnn", "instances": "mask_rcnn", "segment": "deeplabv3"}[task],
        "spec": "resnest14",
        "num_classes": len(classes),
        "classes": classes,
        "preprocessing": {"kind": "scene", "short_side": 96, "max_size": 160, "mean": [0.5], "std": [0.2]},
        "scores": dict.fromkeys(COLUMNS[task], 0.5),
        "versions": {"resurge": "0.1.0"},
        "parameters": 12_345_678,
        "data": {"name": "scenes", "how": "a fixed split", "seed": 0},
    }
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "recipe.yaml").write_text(f"task: {task}\nlr: 0.02\n")
    terms = [f"train_{name}" for name in TERMS[task]]
    rows = [",".join(["epoch,step,lr,train_loss", *terms, *(f"val_{name}" for name in COLUMNS[task]), "seconds"])]
    for e in range(1, epochs + 1):
        fit = math.exp(-e / 4)
        values = [e, e * 40, 0.02, len(terms) * (0.1 + fit), *(0.1 * (i + 1) * (0.2 + fit) for i in range(len(terms)))]
        values += [0.5 + 0.1 * i - 0.5 * fit for i in range(len(COLUMNS[task]))]
        rows.append(",".join(map(str, [*values, 9.5 * e])))
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    for entries in evaluation["examples"].values():
        for i, entry in enumerate(entries):
            for key in ("overlay", "thumbnail"):
                image = Image.open(io.BytesIO(picture(i, warm=key == "overlay"))).resize((96, 64))
                image.save(folder / entry[key])
    write_costs(folder, **({} if task == "segment" else {"of": "backbone", "other_parameters": 10_000_000}))
    return folder
