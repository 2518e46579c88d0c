"""Eager inference against timm and torchvision: same weights, same precision, same layout, interleaved rounds.

    python benchmarks/eager.py                        # the table of the README
    python benchmarks/eager.py --models resnest50 --batch 1 --rounds 20 --json eager.json

A round runs ours and the peer's once each, the order alternating; the figure is the median over rounds of the ratio
peer's time / ours (above 1: ours is faster), with the quartiles beside it. Before timing, the outputs of the two are
compared: a fast network that computes something else would be of no interest.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import timm
import torch
import torchvision
from torch import Tensor, nn

import resurge

# name here -> name in timm; the ones the README speaks of
PEERS = {
    "resnet50": "resnet50",
    "resnet50d": "resnet50d",
    "resnext50_32x4d": "resnext50_32x4d",
    "seresnext50_32x4d": "seresnext50_32x4d",
    "skresnext50_32x4d": "skresnext50_32x4d",
    "res2net50_26w_4s": "res2net50_26w_4s",
    "resnest50": "resnest50d",
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(model: nn.Module, images: Tensor) -> float:
    begin = time.perf_counter()
    model(images)
    return time.perf_counter() - begin


@torch.inference_mode()
def compare(name: str, precision: str, batch: int, size: int, rounds: int, memory_format: torch.memory_format) -> dict:
    """One row: the ratio of one model at one precision, and what it was measured on."""
    torch.manual_seed(0)
    peer = timm.create_model(PEERS[name]).eval()
    ours = resurge.create_model(name).eval()
    resurge.load_weights(ours, peer.state_dict(), layout="timm")
    images = torch.randn(batch, 3, size, size)
    expected = peer(images)
    difference = float((ours(images) - expected).abs().max() / expected.abs().max())
    if difference > 1e-4:
        raise SystemExit(f"{name}: the outputs differ by {difference:.1e} of the peak; nothing was timed.")

    dtype = PRECISIONS[precision]
    ours, peer = (model.to(dtype=dtype, memory_format=memory_format) for model in (ours, peer))
    images = images.to(dtype=dtype, memory_format=memory_format)
    for model in (ours, peer):
        for _ in range(2):
            model(images)
    times: list[tuple[float, float]] = []
    for i in range(rounds):
        if i % 2:
            theirs, own = seconds(peer, images), seconds(ours, images)
        else:
            own, theirs = seconds(ours, images), seconds(peer, images)
        times.append((own, theirs))
    ratios = [theirs / own for own, theirs in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "model": name,
        "precision": precision,
        "batch": batch,
        "size": size,
        "layout": "channels_last" if memory_format is torch.channels_last else "contiguous",
        "ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "images_per_s": round(batch / statistics.median(own for own, _ in times), 1),
        "peer_images_per_s": round(batch / statistics.median(theirs for _, theirs in times), 1),
        "output_difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--contiguous", action="store_true", help="NCHW instead of channels-last")
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    memory_format = torch.contiguous_format if args.contiguous else torch.channels_last
    rows = []
    print(f"{'model':<20}{'precision':<11}{'ratio':>7}  {'quartiles':<16}{'images/s':>9}{'peer':>8}")
    for name in args.models:
        for precision in args.precision:
            row = compare(name, precision, args.batch, args.size, args.rounds, memory_format)
            rows.append(row)
            low, high = row["quartiles"]
            print(
                f"{name:<20}{precision:<11}{row['ratio']:>6.2f}x  {f'{low:.2f} to {high:.2f}':<16}"
                f"{row['images_per_s']:>9.1f}{row['peer_images_per_s']:>8.1f}",
                flush=True,
            )
    if args.json:
        from resurge.files import atomic_write_text

        machine = {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "capability": torch.backends.cpu.get_cpu_capability(),
        }
        atomic_write_text(args.json, json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
