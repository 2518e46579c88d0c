"""Training and inference on a GPU against timm: same networks, same weights, interleaved rounds.

    python benchmarks/gpu.py                                    # all of it, a JSON line per row
    python benchmarks/gpu.py --models resnest50 --what inference --modes eager --seconds 300
    python benchmarks/gpu.py --rehearse --json rehearsal.json   # tiny, on a CPU: does the script run?

Each network is measured in eager mode and compiled, in both memory layouts, in bf16: inference with the network cast,
training with autocast and SGD. In a round every candidate runs once, another one first each time. A ratio is the time
of timm's fastest layout / ours, the median over the rounds with its quartiles: above 1 ours is faster. `rewritten` is
`rewrite`, and `optimized` is `resurge.optimize`, which measures on the machine what it takes. Before anything is timed
the outputs of both packages are compared. A candidate that fails is named in `failed` and is not timed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from eager import PEERS
from side_by_side import machine
from torch import Tensor, nn

import resurge
from resurge.optimize import timing
from resurge.optimize.rewrite import rewrite

LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
KINDS = ("inference", "training")
MODES = ("eager", "compiled")
RESULT = Path(__file__).parent / "results" / "gpu.json"
Run = Callable[[], object]
Row = dict[str, Any]


def main() -> None:
    options = _options()
    if options.rehearse:
        device = torch.device("cpu")
    elif torch.cuda.is_available():
        device = torch.device("cuda")
    else:
        raise SystemExit("error: torch finds no CUDA device. Use --rehearse to try the script on a CPU.")
    about = machine("torch", "timm", "resurge")
    end = time.monotonic() + options.seconds
    for name in options.models:
        ours, theirs = pair(name, options.size)
        for kind in options.what:
            for mode in options.modes:
                if time.monotonic() > end:
                    raise SystemExit(f"the {options.seconds:g} seconds are over; {name}, {kind}, {mode}: not measured.")
                row = measured(kind, mode, ours, theirs, device, options)
                row = {"model": name, "kind": kind, "mode": mode, **row, "machine": about}
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(_line(row), flush=True)


def pair(name: str, size: int) -> tuple[nn.Module, nn.Module]:
    """Our network and timm's with the same weights, whose outputs are the same."""
    torch.manual_seed(0)
    theirs = timm.create_model(PEERS.get(name, f"{name}d")).eval()
    ours = resurge.create_model(name).eval()
    resurge.load_weights(ours, theirs.state_dict(), layout="timm")
    with torch.inference_mode():
        images = torch.randn(2, 3, size, size)
        expected = theirs(images)
        difference = float((ours(images) - expected).abs().max() / expected.abs().max())
    if not difference < 1e-4:
        raise SystemExit(f"error: {name}: the outputs differ by {difference:.1e} of the largest; nothing was timed.")
    return ours, theirs


def measured(
    kind: str, mode: str, ours: nn.Module, theirs: nn.Module, device: torch.device, options: argparse.Namespace
) -> Row:
    """Images per second of every candidate, and the ratios of ours to timm's fastest."""
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.size, options.size, device=device)
    make = candidates_training if kind == "training" else partial(candidates_inference, rounds=options.rounds)
    runs: dict[str, Run] = {}
    failed: dict[str, str] = {}
    for name, build in make(mode, ours, theirs, images):
        try:
            run = partial(_finished, build(), device)
            for _ in range(options.warm_up):
                run()
            runs[name] = run
        except Exception as error:  # a candidate may fail in any way, and the others are still worth measuring
            failed[name] = (str(error).splitlines() or [type(error).__name__])[0]
    row: Row = {"precision": "bf16", "batch": options.batch, "size": options.size, "rounds": options.rounds}
    row |= {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "failed": failed}
    race = timing.race(runs, options.rounds)
    row["images_per_s"] = {name: round(options.batch / race.seconds(name), 1) for name in runs}
    peers = [name for name in runs if name.startswith("timm")]
    best = race.fastest(peers) if peers else None
    row["peer"] = best
    row["ratios"] = {name: race.ratio(best, name).to_json() for name in runs if best and name not in peers}
    return row


def candidates_inference(
    mode: str, ours: nn.Module, theirs: nn.Module, images: Tensor, rounds: int
) -> Iterator[tuple[str, Callable[[], Run]]]:
    """The networks cast to bf16, in evaluation mode."""

    def plain(net: nn.Module, layout: torch.memory_format) -> Run:
        own = rewrite(net, ()).to(images.device, torch.bfloat16).to(memory_format=layout)
        return partial(_infer, torch.compile(own) if mode == "compiled" else own, _given(images, layout))

    def optimized() -> Run:
        with tempfile.TemporaryDirectory() as folder:  # nothing is remembered from an earlier run
            memory = Path(folder) / "forms.json"
            found = resurge.optimize(ours, images.bfloat16(), memory=memory, rounds=min(7, rounds))
        return partial(_infer, found.model, _given(images, torch.channels_last))

    for layout, order in LAYOUTS.items():
        yield f"timm {layout}", partial(plain, theirs, order)
        yield f"ours {layout}", partial(plain, ours, order)
    yield "ours rewritten", partial(plain, rewrite(ours), torch.channels_last)
    if mode == "eager":
        yield "ours optimized", optimized


def candidates_training(
    mode: str, ours: nn.Module, theirs: nn.Module, images: Tensor
) -> Iterator[tuple[str, Callable[[], Run]]]:
    """A step of SGD with momentum under autocast, the weights in fp32."""
    labels = torch.randint(1000, (len(images),), device=images.device)

    def step(net: nn.Module, layout: torch.memory_format) -> Run:
        own = rewrite(net, ()).requires_grad_(True).train().to(images.device).to(memory_format=layout)
        optimizer = torch.optim.SGD(own.parameters(), lr=1e-4, momentum=0.9)
        return partial(
            _train, torch.compile(own) if mode == "compiled" else own, optimizer, _order(images, layout), labels
        )

    for layout, order in LAYOUTS.items():
        yield f"timm {layout}", partial(step, theirs, order)
        yield f"ours {layout}", partial(step, ours, order)


def _order(images: Tensor, layout: torch.memory_format) -> Tensor:
    return images.contiguous(memory_format=layout)


def _given(images: Tensor, layout: torch.memory_format) -> Tensor:
    return _order(images.bfloat16(), layout)


def _infer(net: Callable[[Tensor], object], images: Tensor) -> None:
    with torch.inference_mode():
        net(images)


def _train(net: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    with torch.autocast(images.device.type, torch.bfloat16):
        loss = nn.functional.cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()


def _finished(run: Run, device: torch.device) -> None:
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _line(row: Row) -> str:
    ratios = ", ".join(f"{name} {each['ratio']:.2f}x" for name, each in row["ratios"].items())
    lost = "".join(f"\n    {name} failed: {why}" for name, why in row["failed"].items())
    return f"{row['model']:<20}{row['kind']:<10} {row['mode']:<9} against {row['peer']}: {ratios}{lost}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--what", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warm-up", type=int, default=3, help="runs of each candidate that are not timed")
    parser.add_argument("--seconds", type=float, default=3600, help="begin nothing more after so many seconds")
    parser.add_argument("--json", type=Path, default=RESULT, help="the file that rows are appended to")
    parser.add_argument("--rehearse", action="store_true", help="a small network in eager mode on a CPU")
    options = parser.parse_args()
    if options.rehearse:
        options.models, options.modes = ["resnest14"], ["eager"]
        options.batch, options.size, options.rounds, options.warm_up = 2, 32, 1, 1
    return options


if __name__ == "__main__":
    main()
