"""Detectors and segmenters against torchvision's own: same weights, same images, fp32, interleaved rounds.

    python benchmarks/tasks.py                        # the table of docs/results and the README
    python benchmarks/tasks.py --only faster_rcnn --size 480 --rounds 15 --json tasks.json
    python benchmarks/tasks.py --only mask_rcnn:train deeplabv3:test

A round runs ours and torchvision's once each, the order alternating; the figure is the median over rounds of the ratio
torchvision's time / ours (above 1: ours is faster), with the quartiles beside it. `train` is one step, forward and
backward; `test` is from images to boxes, masks or logits. Before timing, the outputs of the two are compared. Memory is
the peak of a fresh process during its second step, above what it held before the network was built; both sides have the
same weights there too, since the number of proposals depends on them, and the proposals take most of the memory.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from side_by_side import RATIO_HEAD, Race, Rows, machine, race, ratio_cells
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.models.segmentation import deeplabv3_resnet50

import resurge
from resurge.tasks.detect.predict import found_in
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.table import get_task

CLASSES = 20
MODES = ("train", "test")
TASKS = {"faster_rcnn": "detect", "mask_rcnn": "instances", "deeplabv3": "segment"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
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
        if head == "deeplabv3":
            return model(x)
        outputs = get_task("instances").outputs(model, x, torch.tensor(sizes, device=x.device))
        arrays = {name: values.cpu().numpy() for name, values in outputs.items()}
        return [found_in(arrays, row, size, size) for row, size in enumerate(sizes)]

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


def build_pair(head: str, batch: int, size: int) -> tuple[nn.Module, nn.Module]:
    """(ours, theirs) with the same weights, which find something in these scenes."""
    images, targets = scenes(batch, size)
    theirs = build_theirs(head, size)
    enliven(theirs, images, targets, head)
    ours = build_ours(head)
    resurge.load_weights(ours, theirs.state_dict(), layout="torchvision")
    return ours, theirs


def compare(
    pair: tuple[nn.Module, nn.Module], head: str, mode: str, layout: torch.memory_format, batch: int, size: int,
    rounds: int,
) -> tuple[Race, float]:  # fmt: skip
    """The rounds of one network in one mode, and how far the outputs of the two are apart."""
    images, targets = scenes(batch, size)
    # copies: training changes the running statistics, and with dropout not of both sides alike
    ours, theirs = (copy.deepcopy(model).to(memory_format=layout).eval() for model in pair)

    def steps(mode: str) -> tuple[Step, Step]:
        arguments = (head, mode, images, targets, layout)
        return our_step(ours, *arguments), their_step(theirs, *arguments)

    own, their = steps("test")
    apart = difference(own(), their())
    if apart > 1e-3:
        raise SystemExit(f"{head}: the outputs differ by {apart:.1e}; nothing was timed.")
    for model in (ours, theirs):
        model.train(mode == "train")
    return race(*steps(mode), rounds, warm_up=1), apart


def peak_memory(
    who: str, head: str, mode: str, layout_name: str, batch: int, size: int, weights: str | None = None
) -> float | None:
    """MiB that the network and a step of it add to this process, at the peak of the step; None where it is not known.

    The network may be loaded from a file. Reading it, and what a first step sets up, is not counted.
    """
    layout = LAYOUTS[layout_name]
    images, targets = scenes(batch, size)
    _ = resurge.create_model  # imports what it needs, which is not counted
    before = status("VmRSS")
    model = build_ours(head) if who == "ours" else build_theirs(head, size)
    if weights is not None:
        model.load_state_dict(load_file(weights))
    model = model.to(memory_format=layout).train(mode == "train")
    step = (our_step if who == "ours" else their_step)(model, head, mode, images, targets, layout)
    step()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    except OSError:
        return None
    step()
    peak = status("VmHWM")
    return None if before is None or peak is None else (peak - before) / 1024


def status(name: str) -> int | None:
    """KiB: a figure of this process as Linux counts it. getrusage's peak would include the parent's, from the fork."""
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def peaks(
    pair: tuple[nn.Module, nn.Module], head: str, mode: str, layout_name: str, batch: int, size: int
) -> list[int | None]:
    """Peak memory of ours and theirs, MiB, each in a process of its own."""
    found: list[int | None] = []
    for who, model in zip(("ours", "theirs"), pair, strict=True):
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
            file = f"{folder}/weights.safetensors"
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
            peak = pool.apply(peak_memory, (who, head, mode, layout_name, batch, size, file))
            found.append(None if peak is None else round(peak))
    return found


def chosen(word: str) -> tuple[str, str | None]:
    """An argparse `type`: HEAD or HEAD:MODE."""
    head, _, mode = word.partition(":")
    if head not in TASKS or mode not in ("", *MODES):
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(TASKS)}, perhaps with :train or :test")
    return head, mode or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", type=chosen, metavar="HEAD[:MODE]", help=f"of {', '.join(TASKS)}; train or test"
    )
    parser.add_argument("--layouts", nargs="+", default=["contiguous"], choices=list(LAYOUTS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=320, help="side of the images, pixels")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the rows to this file, after each")
    args = parser.parse_args()
    wanted = args.only or [(head, None) for head in TASKS]
    rows = Rows(args.json, machine("torch", "torchvision"))
    print(f"{'head':<13}{'mode':<7}{'layout':<14}{RATIO_HEAD}{'s':>7}{'theirs':>8}{'MiB':>7}{'theirs':>8}")
    for head in TASKS:
        modes = [mode for mode in MODES if (head, None) in wanted or (head, mode) in wanted]
        pair = build_pair(head, args.batch, args.size) if modes else None
        for mode, name in ((mode, name) for mode in modes for name in args.layouts):
            timed, apart = compare(pair, head, mode, LAYOUTS[name], args.batch, args.size, args.rounds)
            own, their = peaks(pair, head, mode, name, args.batch, args.size)
            row = {
                "head": head,
                "mode": mode,
                "layout": name,
                "batch": args.batch,
                "size": args.size,
                "rounds": args.rounds,
                **timed.ratio(),
                "seconds": round(timed.seconds, 3),
                "their_seconds": round(timed.their_seconds, 3),
                "peak_mib": own,
                "their_peak_mib": their,
                "output_difference": apart,
            }
            cells = f"{row['seconds']:>7.2f}{row['their_seconds']:>8.2f}{own or '?':>7}{their or '?':>8}"
            rows.add(row, f"{head:<13}{mode:<7}{name:<14}{ratio_cells(row)}{cells}")


if __name__ == "__main__":
    main()
