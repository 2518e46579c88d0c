"""Where the time of a network goes in OpenVINO, by kind of layer and layer by layer.

    python benchmarks/layers.py resnest50 skresnext50_32x4d --precision int8 --form groups_of_16
    python benchmarks/layers.py resnest50 --peer                     # timm's network of the same name

OpenVINO's own counters, the median over runs. Counting costs a little, so the sum is more than a run without it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from resurge.deploy.bench.files import Files
from resurge.deploy.bench.peers import Peer, peer_of
from resurge.deploy.bench.record import Rows, machine
from resurge.deploy.bench.subjects import Subject, open_subject
from resurge.deploy.engines import openvino_core, openvino_settings
from resurge.deploy.forms import form_of


def main() -> None:
    options = _options()
    rows = Rows(options.json, machine("openvino")) if options.json else None
    for name in options.networks:
        subject = open_subject(name, options.size)
        with tempfile.TemporaryDirectory() as place:
            path = _file(subject, Files(Path(place)), options)
            counted = _counted(path, subject, options)
        whole = sum(seconds for _, _, seconds in counted)
        side = "timm" if options.peer else " ".join(("ours", *_form(options)))
        print(
            f"\n{name}, {side}, {options.precision}, batch {options.batch}: {1000 * whole:.1f} ms, "
            f"{len(counted)} layers"
        )
        kinds: dict[str, list[float]] = defaultdict(list)
        for kind, _, seconds in counted:
            kinds[kind].append(seconds)
        shares = sorted(((sum(each) / whole, kind, len(each)) for kind, each in kinds.items()), reverse=True)
        for share, kind, count in shares:
            if share >= 0.005:
                print(f"  {share:>6.1%}  {count:>4}  {kind}")
        for kind, layer, seconds in sorted(counted, key=lambda each: -each[2])[: options.layers]:
            print(f"    {1000 * seconds:>7.2f} ms  {kind:<44}  {layer}")
        if rows is not None:
            rows.add(
                {"network": name, "side": side, "precision": options.precision, "batch": options.batch,
                 "size": options.size, "threads": options.threads, "rounds": options.rounds,
                 "ms": round(1000 * whole, 2),
                 "kinds": [{"kind": kind, "layers": count, "share": round(share, 4)} for share, kind, count in shares]},
                "",
            )  # fmt: skip


def _file(subject: Subject, files: Files, options: argparse.Namespace) -> Path:
    if not options.peer:
        return files.ours(subject, "openvino", options.precision, _form(options)).file
    peer = peer_of(subject, "timm")
    if not isinstance(peer, Peer):
        raise SystemExit(f"error: {peer}")
    return files.peer(subject, peer.net, "openvino", options.precision)


def _form(options: argparse.Namespace) -> tuple[str, ...]:
    return form_of("openvino", options.precision, options.form)


def _counted(path: Path, subject: Subject, options: argparse.Namespace) -> list[tuple[str, str, float]]:
    """(kind, name, seconds) of every layer that takes time."""
    core = openvino_core()
    settings = {**openvino_settings(options.precision, options.threads), "PERF_COUNT": True}
    model = core.read_model(path)
    images = subject.images(options.batch)
    model.reshape(list(images.shape))
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    runs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        request.infer([images])
        for each in request.profiling_info:
            runs[f"{each.node_type} {each.exec_type}", each.node_name].append(each.real_time.total_seconds())
    found = [(kind, name, statistics.median(times)) for (kind, name), times in runs.items()]
    return [each for each in found if each[2] > 0]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["resnest50"], help="names or spec texts")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "int8"))
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
