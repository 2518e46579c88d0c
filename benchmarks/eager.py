"""Eager inference against timm and torchvision: same weights, same precision, same layout, interleaved rounds.

    python benchmarks/eager.py                        # the table of the README
    python benchmarks/eager.py --models resnest50 --batch 1 --rounds 20 --json eager.json

A round runs ours and the peer's once each, the order alternating; the figure is the median over rounds of the ratio
peer's time / ours (above 1: ours is faster), with the quartiles beside it. Before timing, the outputs of the two are
compared: a fast network that computes something else would be of no interest.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from side_by_side import RATIO_HEAD, Rows, machine, race, ratio_cells

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


@torch.inference_mode()
def compare(
    name: str, precision: str, batch: int, size: int, rounds: int, memory_format: torch.memory_format
) -> dict[str, Any]:
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
    timed = race(partial(ours, images), partial(peer, images), rounds, warm_up=2)
    return {
        "model": name,
        "precision": precision,
        "batch": batch,
        "size": size,
        "layout": "channels_last" if memory_format is torch.channels_last else "contiguous",
        **timed.ratio(),
        "images_per_s": round(batch / timed.seconds, 1),
        "peer_images_per_s": round(batch / timed.their_seconds, 1),
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
    parser.add_argument("--json", type=Path, help="also write the rows to this file, after each")
    args = parser.parse_args()
    memory_format = torch.contiguous_format if args.contiguous else torch.channels_last
    rows = Rows(args.json, machine("torch", "torchvision", "timm"))
    print(f"{'model':<20}{'precision':<10}{RATIO_HEAD}{'images/s':>9}{'peer':>8}")
    for name in args.models:
        for precision in args.precision:
            row = compare(name, precision, args.batch, args.size, args.rounds, memory_format)
            speeds = f"{row['images_per_s']:>9.1f}{row['peer_images_per_s']:>8.1f}"
            rows.add(row, f"{name:<20}{precision:<10}{ratio_cells(row)}{speeds}")


if __name__ == "__main__":
    main()
