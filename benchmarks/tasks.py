"""Detectors and segmenters against torchvision's own: same weights, same images, fp32, interleaved rounds.

    python benchmarks/tasks.py                        # the table of docs/results and the README
    python benchmarks/tasks.py --heads faster_rcnn --size 480 --rounds 15 --json tasks.json

A round runs ours and torchvision's once each, the order alternating; the figure is the median over rounds of the ratio
torchvision's time / ours (above 1: ours is faster), with the quartiles beside it. `train` is one step, forward and
backward; `test` is from images to boxes, masks or logits. Before timing, the outputs of the two are compared. Memory is
the peak of a fresh process that does one step, above what it held before the network was built.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.models.segmentation import deeplabv3_resnet50

import resurge
from resurge.tasks.settings import Detector, Segmenter

CLASSES = 20
TASKS = {"faster_rcnn": "detect", "mask_rcnn": "instances", "deeplabv3": "segment"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Step = Callable[[], Any]


def scenes(batch: int, size: int, objects: int = 8) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """(N, 3, size, size) images in 0..1 with bright rectangles, and their boxes, labels (from 0) and masks."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((batch, 3, size, size), generator=generator) * 0.3
    targets = []
    for image in images:
        corner = torch.rand((objects, 2), generator=generator) * size * 0.7
        side = size * (0.08 + 0.2 * torch.rand((objects, 2), generator=generator))
        boxes = torch.cat([corner, corner + side], 1).round()
        masks = torch.zeros((objects, size, size), dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
            image[:, y1:y2, x1:x2] = torch.rand((3, 1, 1), generator=generator)
        labels = torch.randint(0, CLASSES, (objects,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    return images, targets


def label_maps(targets: list[dict[str, Tensor]]) -> Tensor:
    """(N, H, W) from the objects' masks; 0 where there is none."""
    return torch.stack(
        [(t["masks"] * (1 + t["labels"][:, None, None])).amax(0).clamp(max=CLASSES - 1) for t in targets]
    )


def build_theirs(head: str, size: int) -> nn.Module:
    """torchvision's network with random weights; its own resizing does nothing at this size."""
    torch.manual_seed(0)
    if head == "deeplabv3":
        return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    build = {"faster_rcnn": fasterrcnn_resnet50_fpn, "mask_rcnn": maskrcnn_resnet50_fpn}[head]
    return build(weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=size, max_size=size)


def build_ours(head: str) -> nn.Module:
    """Our network of the same structure."""
    settings = {"segmenter": Segmenter(output_stride=8)} if head == "deeplabv3" else {"detector": Detector()}
    return resurge.create_model("resnet50", CLASSES, task=TASKS[head], head=head, **settings)


def normalised(images: Tensor, layout: torch.memory_format) -> Tensor:
    """What torchvision's detectors do inside."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return ((images - mean) / std).contiguous(memory_format=layout)


def our_step(model: nn.Module, head: str, mode: str, images: Tensor, targets: Any, layout: Any) -> Step:
    sizes = [tuple(image.shape[-2:]) for image in images]

    def train() -> None:
        wanted = (label_maps(targets),) if head == "deeplabv3" else (targets, sizes)
        torch.manual_seed(0)
        sum(model.losses(normalised(images, layout), *wanted).values()).backward()
        model.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def test() -> Any:
        x = normalised(images, layout)
        return model(x) if head == "deeplabv3" else model.postprocess(model(x, sizes), sizes, sizes)

    return train if mode == "train" else test


def their_step(model: nn.Module, head: str, mode: str, images: Tensor, targets: Any, layout: Any) -> Step:
    listed = list(images)
    counted = [t | {"labels": t["labels"] + 1} for t in targets]

    def train() -> None:
        torch.manual_seed(0)
        if head == "deeplabv3":
            found, wanted = model(normalised(images, layout)), label_maps(targets)
            loss = nn.functional.cross_entropy(found["out"], wanted)
            loss = loss + 0.5 * nn.functional.cross_entropy(found["aux"], wanted)
        else:
            loss = sum(model(listed, counted).values())
        loss.backward()
        model.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def test() -> Any:
        return model(normalised(images, layout))["out"] if head == "deeplabv3" else model(listed)

    return train if mode == "train" else test


def seconds(step: Step) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of logits, or of boxes in pixels, relative to the largest value."""
    pairs = [(ours, theirs)] if isinstance(ours, Tensor) else [
        (a["boxes"], b["boxes"]) for a, b in zip(ours, theirs, strict=True) if len(b["boxes"])
    ]  # fmt: skip
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max((float((a - b).abs().max() / b.abs().max()) for a, b in pairs), default=0.0)


def enliven(theirs: nn.Module, images: Tensor, targets: Any, head: str) -> None:
    """Statistics of these images and livelier predictors, so that there is something to find and to paste."""
    theirs.train()
    for norm in theirs.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    with torch.no_grad():
        step = their_step(theirs, head, "train", images, targets, torch.contiguous_format)
        for _ in range(2):
            with torch.enable_grad():
                step()
        if head != "deeplabv3":
            theirs.roi_heads.box_predictor.cls_score.weight.mul_(30)


def compare(head: str, mode: str, layout_name: str, batch: int, size: int, rounds: int) -> dict[str, Any]:
    """One row: the ratio of one network in one mode, and what it was measured on."""
    layout = getattr(torch, {"contiguous": "contiguous_format"}.get(layout_name, layout_name))
    images, targets = scenes(batch, size)
    theirs = build_theirs(head, size)
    enliven(theirs, images, targets, head)
    ours = build_ours(head)
    resurge.load_weights(ours, theirs.state_dict(), layout="torchvision")
    ours, theirs = (model.to(memory_format=layout).eval() for model in (ours, theirs))
    own_test, their_test = (
        step(model, head, "test", images, targets, layout) for step, model in ((our_step, ours), (their_step, theirs))
    )
    apart = difference(own_test(), their_test())
    if apart > 1e-3:
        raise SystemExit(f"{head}: the outputs differ by {apart:.1e}; nothing was timed.")
    for model in (ours, theirs):
        model.train(mode == "train")
    own, their = (
        step(model, head, mode, images, targets, layout) for step, model in ((our_step, ours), (their_step, theirs))
    )
    for step in (own, their):
        step()
    times: list[tuple[float, float]] = []
    for i in range(rounds):
        if i % 2:
            theirs_, own_ = seconds(their), seconds(own)
        else:
            own_, theirs_ = seconds(own), seconds(their)
        times.append((own_, theirs_))
    ratios = [theirs_ / own_ for own_, theirs_ in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "head": head,
        "mode": mode,
        "layout": layout_name,
        "batch": batch,
        "size": size,
        "ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "seconds": round(statistics.median(own_ for own_, _ in times), 3),
        "their_seconds": round(statistics.median(their_ for _, their_ in times), 3),
        "output_difference": apart,
    }


def peak_memory(who: str, head: str, mode: str, layout_name: str, batch: int, size: int) -> float:
    """MiB that one step adds to a fresh process, at its peak."""
    layout = getattr(torch, {"contiguous": "contiguous_format"}.get(layout_name, layout_name))
    images, targets = scenes(batch, size)
    before = high_water()
    model = build_ours(head) if who == "ours" else build_theirs(head, size)
    model = model.to(memory_format=layout).train(mode == "train")
    step = (our_step if who == "ours" else their_step)(model, head, mode, images, targets, layout)
    step()
    return (high_water() - before) / 1024


def high_water() -> int:
    """KiB: the most memory this process has held. getrusage's figure would include the parent's, from the fork."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _in_fresh_process(*arguments: Any) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_memory, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--modes", nargs="+", default=["train", "test"], choices=["train", "test"])
    parser.add_argument("--layouts", nargs="+", default=["contiguous"], choices=["contiguous", "channels_last"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    rows = []
    print(
        f"{'head':<13}{'mode':<7}{'layout':<15}{'ratio':>7}  {'quartiles':<15}"
        f"{'s':>7}{'theirs':>8}{'MiB':>7}{'theirs':>8}"
    )
    for head in args.heads:
        for mode in args.modes:
            for layout in args.layouts:
                row = compare(head, mode, layout, args.batch, args.size, args.rounds)
                for key, who in (("peak_mib", "ours"), ("their_peak_mib", "theirs")):
                    row[key] = round(_in_fresh_process(who, head, mode, layout, args.batch, args.size))
                rows.append(row)
                low, high = row["quartiles"]
                print(
                    f"{head:<13}{mode:<7}{layout:<15}{row['ratio']:>6.2f}x  {f'{low:.2f} to {high:.2f}':<15}"
                    f"{row['seconds']:>7.2f}{row['their_seconds']:>8.2f}{row['peak_mib']:>7}{row['their_peak_mib']:>8}",
                    flush=True,
                )
    if args.json:
        from resurge.files import atomic_write_text

        machine = {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "capability": torch.backends.cpu.get_cpu_capability(),
        }
        atomic_write_text(args.json, json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
