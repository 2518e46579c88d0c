"""A small classifier's run with live weights, pictures for it, and its exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from alive import enliven, structured_images
from PIL import Image

from resurge.arch.zoo import get_spec
from resurge.data.preprocessing import Preprocessing
from resurge.runs import save_run_model
from resurge.tasks.table import build_task_model

MODEL = "resnet20_cifar depths=(1,1,1) planes=(8,8,16) stem=conv3x3(8) shortcut=avg transform=avgdown(split(radix=2))"
CLASSES = ("cat", "dog", 'é"<', "cow")
SEEN = Preprocessing(32, 0.875, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


def write_classifier(folder: Path, model: str = MODEL) -> Path:
    """A finished run without data."""
    torch.manual_seed(0)
    network = build_task_model("classify", get_spec(model), len(CLASSES))
    enliven(network, structured_images(8, size=32))
    with torch.no_grad():
        network.get_parameter("head.fc.weight").normal_(std=1.0)
        logits = network(structured_images(8, size=32))
        network.get_parameter("head.fc.bias").sub_(logits.mean(0))  # so that no class wins always
    folder.mkdir(parents=True)
    save_run_model(
        folder, network.eval(), task="classify", classes=CLASSES, preprocessing=SEEN, norm="batch", scores={}, data={}
    )
    return folder


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Pictures of several sizes and modes."""
    values = structured_images(count, size=48, seed=seed).numpy()
    values = np.clip(128 + 50 * values, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    images = [Image.fromarray(np.ascontiguousarray(value)) for value in values]
    shapes = [(48, 48), (60, 40), (33, 70)]
    images = [image.resize(shapes[index % 3]) for index, image in enumerate(images)]
    return [image.convert("L") if index % 4 == 3 else image for index, image in enumerate(images)]


def write_files(folder: Path, count: int, seed: int = 0) -> Path:
    """`pictures` as files."""
    folder.mkdir(parents=True)
    for index, image in enumerate(pictures(count, seed)):
        image.save(folder / f"{index}.png")
    return folder
