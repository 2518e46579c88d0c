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
    }
    (folder / "explain" / "cost.json").write_text(json.dumps(cost))
    return folder
