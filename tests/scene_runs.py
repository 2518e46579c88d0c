"""Run directories of the dense tasks with tiny random networks, and images for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from resurge.arch.zoo import get_spec
from resurge.data.preprocessing import ScenePreprocessing
from resurge.runs import save_run_model
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.table import build_task_model

MODEL = "resnet18 depths=(1,1,1,1) planes=(8,8,16,16) stem=conv7x7(8)"
CLASSES = ("disc", 'a <b> & "c"', "bar")
DETECTOR = Detector(
    fpn_channels=8, box_channels=16, mask_channels=8, rpn_proposals_test=20, anchor_scale=4.0, max_detections=10
)
SEGMENTER = Segmenter(output_stride=16, head_channels=8)


def write_run(
    folder: Path, task: str, *, classes: tuple[str, ...] = CLASSES, head: str | None = None, recipe: str | None = None,
    model: str = MODEL, channels: int = 3, short_side: int | None = 48, max_size: int | None = 96,
) -> Path:  # fmt: skip
    """A finished run without a recipe unless its text is given; the network is random but its scores are not equal."""
    torch.manual_seed(0)
    network = build_task_model(
        task, get_spec(model), len(classes), channels, head, SEGMENTER if task == "segment" else DETECTOR
    )
    _wake(network, task, channels)
    seen = ScenePreprocessing(short_side, max_size, (0.5,) * channels, (0.25,) * channels, channels)
    folder.mkdir(parents=True, exist_ok=True)
    save_run_model(
        folder, network.eval(), task=task, classes=classes, preprocessing=seen, norm="batch", scores={}, data={}
    )
    if recipe is not None:
        (folder / "recipe.yaml").write_text(recipe)
    return folder


def _wake(network: torch.nn.Module, task: str, channels: int) -> None:
    """Statistics of real activations, and answers that are not all alike."""
    with torch.no_grad():
        for _ in range(30):
            network.get_submodule("backbone")(torch.randn(2, channels, 48, 48))
        for name, parameter in network.get_submodule("head").named_parameters():
            if task == "segment" and name.startswith("predict"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif task != "segment":
                parameter.mul_(3.0).add_(torch.randn_like(parameter) * 0.05)


def write_pictures(folder: Path) -> Path:
    """Images of several sizes and modes, one that is broken, and a file that is none."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    wide = Image.fromarray(noise.integers(0, 255, (60, 90, 3), dtype=np.uint8))
    ImageDraw.Draw(wide).ellipse((10, 10, 50, 50), fill=(250, 200, 20))
    wide.save(folder / "wide.jpg")
    wide.convert("L").resize((40, 70)).save(folder / "grey.png")
    wide.convert("RGBA").save(folder / "clear.png")
    Image.fromarray(noise.integers(0, 65535, (50, 50), dtype=np.uint16)).save(folder / "deep.tif")
    turned = wide.getexif()
    turned[0x0112] = 6
    wide.save(folder / "turned.jpg", exif=turned)
    (folder / "broken.jpg").write_text("no image")
    return folder
