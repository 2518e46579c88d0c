"""Where the time of a network goes in OpenVINO or ONNX Runtime, by kind of layer and layer by layer.

    python benchmarks/layers.py resnest50 skresnext50_32x4d --precision int8 --form groups_of_16
    python benchmarks/layers.py resnest50 --peer                     # timm's network of the same name
    python benchmarks/layers.py res2net50_26w_4s --runtime onnx --precision fp32,int8

The runtime's own counters, the median over runs. Counting costs a little, so the sum is more than a run without it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resurge.bench.baselines import Baseline, baseline_of
from resurge.bench.files import Files
from resurge.bench.output import Rows
from resurge.bench.subjects import Subject, open_subject
from resurge.export.settings import form_of
from resurge.infer.engines.openvino import openvino_core, openvino_settings
from resurge.machine import described as machine

Counted = tuple[str, str, float]
"""Kind, name and seconds of a layer."""


def main() -> None:
    options = _options()
    rows = Rows(options.json, machine("openvino", "onnxruntime"))
    for name in options.networks:
        subject = open_subject(name, options.size)
        with tempfile.TemporaryDirectory() as place:
            files = Files(Path(place))
            for precision in options.precision.split(","):
                side, path = _file(subject, files, precision, options)
                count = _in_openvino if options.runtime == "openvino" else _in_onnxruntime
                counted = _medians(count(path, subject.images(options.batch), precision, options))
                rows.add(*_row(name, side, precision, counted, options))


def _row(
    name: str, side: str, precision: str, counted: list[Counted], options: argparse.Namespace
) -> tuple[dict[str, Any], str]:
    """What is written down, and what is printed."""
    whole = sum(seconds for _, _, seconds in counted)
    kinds: dict[str, list[float]] = defaultdict(list)
    for kind, _, seconds in counted:
        kinds[kind].append(seconds)
    shares = sorted(((sum(each) / whole, kind, len(each)) for kind, each in kinds.items()), reverse=True)
    lines = [
        f"\n{name}, {side}, {options.runtime} {precision}, batch {options.batch}: {1000 * whole:.1f} ms, "
        f"{len(counted)} layers",
        *(f"  {share:>6.1%}  {count:>4}  {kind}" for share, kind, count in shares if share >= 0.005),
        *(
            f"    {1000 * seconds:>7.2f} ms  {kind:<44}  {layer}"
            for kind, layer, seconds in sorted(counted, key=lambda each: -each[2])[: options.layers]
        ),
    ]
    told = [{"kind": kind, "layers": count, "share": round(share, 4)} for share, kind, count in shares]
    row = {"network": name, "side": side, "runtime": options.runtime, "precision": precision, "batch": options.batch,
           "size": options.size, "threads": options.threads, "rounds": options.rounds, "ms": round(1000 * whole, 2),
           "kinds": told}  # fmt: skip
    return row, "\n".join(lines)


def _file(subject: Subject, files: Files, precision: str, options: argparse.Namespace) -> tuple[str, Path]:
    """Whose network it is and in which form, and where it lies."""
    if not options.peer:
        form = form_of(options.runtime, precision, options.form)
        return " ".join(("ours", *form)), files.ours(subject, options.runtime, precision, form).file
    peer = baseline_of(subject, "timm")
    if not isinstance(peer, Baseline):
        raise SystemExit(f"error: {peer}")
    return "timm", files.theirs(subject, peer.net, options.runtime, precision)


def _medians(counted: Iterator[Counted]) -> list[Counted]:
    """Of every layer that takes time the median over the runs."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kind, name, seconds in counted:
        found[kind, name].append(seconds)
    medians = [(kind, name, statistics.median(times)) for (kind, name), times in found.items()]
    return [each for each in medians if each[2] > 0]


def _in_openvino(path: Path, images: Any, precision: str, options: argparse.Namespace) -> Iterator[Counted]:
    core = openvino_core()
    settings = {**openvino_settings(precision, options.threads), "PERF_COUNT": True}
    model = core.read_model(path)
    model.reshape(list(images.shape))
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    for _ in range(options.rounds):
        request.infer([images])
        for each in request.profiling_info:
            yield f"{each.node_type} {each.exec_type}", each.node_name, each.real_time.total_seconds()


def _in_onnxruntime(path: Path, images: Any, precision: str, options: argparse.Namespace) -> Iterator[Counted]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.enable_profiling = True
    with tempfile.TemporaryDirectory() as place:
        settings.profile_file_prefix = str(Path(place) / "profile")
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        for _ in range(options.rounds):
            session.run(None, {session.get_inputs()[0].name: images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    for each in events:
        if each["cat"] == "Node" and each["name"].endswith("_kernel_time"):
            yield each["args"]["op_name"], each["name"].removesuffix("_kernel_time"), each["dur"] / 1e6


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["resnest50"], help="names or spec texts")
    parser.add_argument("--runtime", default="openvino", choices=("openvino", "onnx"))
    parser.add_argument("--precision", default="fp32", help="with commas between: fp32, int8, in openvino bf16")
    parser.add_argument("--form", nargs="*", help="passes beside those always applied (default: an export's)")
    parser.add_argument("--peer", action="store_true", help="timm's network")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels on a side")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=15, help="of the slowest layers, how many to list")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
