"""What `resurge show` prints of a network, as text and as JSON; one network, or several side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import torch

from resurge.arch.backbone import backbone_of
from resurge.arch.spec import Spec
from resurge.arch.surgery import convert_norm
from resurge.arch.zoo import ALIASES, canonical_name, get_spec
from resurge.explain.cost import CostReport, cost
from resurge.explain.diagram import Diagrams
from resurge.files import Json, require_free
from resurge.quantities import table
from resurge.run_files import folder_of, read_model_json
from resurge.tasks.table import DEFAULT, build_task_model, get_task, pick_head
from resurge.tasks.task import Task
from resurge.weights.catalog import Entry, entries
from resurge.weights.download import Source

SHOWN_CLASSES = 10
SHARES = ("top1", "top5", "ece", "ap", "ap50", "miou", "accuracy")  # how the names of scores in 0..1 end


@dataclass(frozen=True)
class Summary:
    """A network, what it costs, and what is published of it.

    Attributes:
        costs: those of the backbone alone where the cost of a run is not fixed.
        run: of a run, its task, head, classes, scores, and the parameters of each part and in total, as plain values.
        output_stride: that of the backbone as it was built.
    """

    spec: Spec
    costs: CostReport
    entry: Entry | None = None
    run: Json | None = None
    output_stride: int = 32

    @property
    def name(self) -> str:
        return canonical_name(self.spec) or str(self.spec)

    @property
    def task(self) -> Task:
        return get_task(self.run["task"] if self.run else DEFAULT)

    @property
    def of_backbone(self) -> bool:
        """Whether the costs leave out pyramid and heads."""
        return self.task.takes_sizes

    @property
    def parameters(self) -> int:
        """Of the whole network."""
        return int(self.run["parameters"]["total"]) if self.run else self.costs.total.parameters

    @property
    def sources(self) -> Sequence[Source]:
        """Files of trained weights."""
        return self.entry.sources if self.entry else ()

    @property
    def aliases(self) -> list[str]:
        return [alias for alias, real in ALIASES.items() if real == canonical_name(self.spec)]

    def to_json(self) -> dict[str, object]:
        """Plain values: name, text, spec, aliases, cost, published score, weights, and the run or None."""
        published = None
        if self.entry and self.entry.top1 is not None:
            published = _known(self.entry, "top1", "top1_source", "top1_size")
        return {
            "name": canonical_name(self.spec),
            "text": str(self.spec),
            "aliases": self.aliases,
            "spec": self.spec.to_json(),
            "cost": self.costs.to_json(self.parameters if self.of_backbone else None),
            "published": published,
            "weights": [_known(s, "kind", "location", "label", "licence", "top1", "size") for s in self.sources],
            "run": self.run,
        }

    def to_text(self) -> str:
        """The table and the facts around it, plain text in aligned columns."""
        channels, height, width = self.costs.input
        alone = ", the backbone alone" if self.of_backbone else ""
        lines = [self.name, *([f"also called {', '.join(self.aliases)}"] if self.aliases else [])]
        if self.run is not None:
            lines += ["", _columns(list(_run_facts(self.run)))]
        lines += ["", _columns([[field.name, _choice(getattr(self.spec, field.name))] for field in fields(Spec)])]
        lines += ["", f"for one input of {channels} x {height} x {width}{alone}:", self._cost_table()]
        if self.entry and self.entry.top1 is not None:
            size = f" at {self.entry.top1_size} x {self.entry.top1_size}" if self.entry.top1_size else ""
            by = f" ({self.entry.top1_source})" if self.entry.top1_source else ""
            lines += ["", f"published: {self.entry.top1} % top-1 on {_usual(self.spec)[0]}{size}{by}"]
        if self.sources:
            lines += ["", "weights:", _columns([[f"  {source}", _about(source)] for source in self.sources])]
        return "\n".join(lines) + "\n"

    def _cost_table(self) -> str:
        rows = [
            [
                row.name,
                " x ".join(map(str, row.shape)),
                f"{row.parameters:,}",
                _big(row.macs),
                _mebibytes(row.activation_bytes),
                "" if row.receptive_field is None else str(row.receptive_field),
            ]
            for row in (*self.costs.rows, self.costs.total)
        ]
        rows[-1][0] = "backbone" if self.of_backbone else "total"
        return table(rows, ["", "output", "parameters", "multiply-adds", "activations", "receptive field"], "<<>>>>")

    def macs_of(self, stage: str) -> str:
        return next((_big(row.macs) for row in self.costs.rows if row.name == stage), "-")

    def draw(self, path: Path) -> list[Path]:
        """Draw the network into `path` (.svg or .png) and the blocks of each stage beside it: `NAME_stage1.svg` …"""
        channels, height, width = self.costs.input
        classes = self.costs.rows[-1].shape[0] if self.task.in_catalog else None
        beside = [path.with_name(f"{path.stem}_stage{i + 1}{path.suffix}") for i in range(len(self.spec.depths))]
        for file in (path, *beside):
            require_free(file)
        drawn = Diagrams(self.spec, (height, width), channels, self.output_stride).all(classes)
        return [scene.save(file) for scene, file in zip(drawn, [path, *beside], strict=True)]


def examine(model: str, options: argparse.Namespace) -> Summary:
    """A network by name, text or run directory, at the size and with the classes it is meant for or `options` say."""
    folder = folder_of(model)
    if folder is not None:
        return _examine_run(folder, options)
    spec = get_spec(model)
    entry = entries().get(canonical_name(spec) or "")
    _, classes, side = _usual(spec)
    side = options.size or (entry.cost_size if entry else side)
    return Summary(spec, cost(spec, (side, side), options.in_channels, options.num_classes or classes), entry)


def _examine_run(folder: Path, options: argparse.Namespace) -> Summary:
    meta = read_model_json(folder)
    task, spec, classes = get_task(meta.get("task", DEFAULT)), get_spec(meta["spec"]), meta.get("classes", ())
    head, settings = pick_head(task.name, meta.get("head")), task.read_settings(meta.get("head_settings"))
    count = options.num_classes or len(classes) or (_usual(spec)[1] if task.in_catalog else 1)
    channels = options.in_channels or meta.get("in_channels", 3)
    # of a square image, or the shorter side of a scene
    sides = [meta.get("preprocessing", {}).get(name) for name in ("size", "short_side")]
    side = options.size or next((side for side in sides if type(side) is int and side > 0), _usual(spec)[2])
    with torch.device("meta"):
        network = build_task_model(task.name, spec, count, channels, head, settings)
        if meta.get("norm") in ("frozen", "group"):
            convert_norm(network, meta["norm"])
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    parts = {name: own for name, own in parts.items() if own}
    backbone = backbone_of(network)
    costs = cost(backbone if task.takes_sizes else network, (side, side))
    entry = entries().get(canonical_name(spec) or "") if task.in_catalog else None
    run = {
        "task": task.name,
        "head": head,
        "classes": list(map(str, classes)),
        "parameters": {**parts, "total": sum(parts.values())},
        "scores": meta.get("scores", {}),
    }
    return Summary(spec, costs, entry, run, backbone.output_stride)


def compare(summaries: Sequence[Summary]) -> str:
    """Networks side by side: a column each, the figures and the choices in which they differ in rows."""
    rows: list[list[str]] = []

    def add(name: str, value: Callable[[Summary], str]) -> None:
        rows.append([name, *map(value, summaries)])

    for field in fields(Spec):
        values = [_choice(getattr(summary.spec, field.name), brief=True) for summary in summaries]
        if len(set(values)) > 1:
            rows.append([field.name, *values])
    if not all(summary.task.in_catalog for summary in summaries):
        add("task", lambda s: s.task.name)
        add("head", lambda s: str(s.run["head"]) if s.run else s.task.heads[0])
    add("input", lambda s: " x ".join(map(str, s.costs.input)))
    add("parameters", lambda s: f"{s.parameters:,}")
    add("multiply-adds", lambda s: _big(s.costs.total.macs) + " (backbone)" * s.of_backbone)
    add("activations", lambda s: _mebibytes(s.costs.total.activation_bytes) + " (backbone)" * s.of_backbone)
    add("receptive field", lambda s: f"{s.costs.receptive_field}")
    add("published top-1", lambda s: f"{s.entry.top1} %" if s.entry and s.entry.top1 is not None else "-")
    add("files of weights", lambda s: f"{len(s.sources)}")
    stages = max(len(summary.spec.depths) for summary in summaries)
    for stage in ("stem", *(f"stage {i}" for i in range(1, stages + 1))):
        rows.append([f"{stage} multiply-adds", *(summary.macs_of(stage) for summary in summaries)])
    return table(rows, ["", *(summary.name for summary in summaries)], "<" + ">" * len(summaries)) + "\n"


def _usual(spec: Spec) -> tuple[str, int, int]:
    """The data that published figures of a network are of, its number of classes and the side of its images. Networks
    of CIFAR have no pool in their stem."""
    return ("CIFAR-10", 10, 32) if spec.stem.stride == 1 else ("ImageNet", 1000, 224)


def _choice(value: object, brief: bool = False) -> str:
    """A choice with its settings: `Deep(width=32)`, or the numbers of a tuple. Brief: only what is not the default."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if not is_dataclass(value) or isinstance(value, type):
        return str(value)
    pairs = [(field, getattr(value, field.name)) for field in fields(value)]
    settings = [
        f"{field.name}={_choice(setting, brief)}"
        for field, setting in pairs
        if not brief or setting != field.default or is_dataclass(setting)
    ]
    return f"{type(value).__name__}({', '.join(settings)})" if settings else type(value).__name__


def _run_facts(run: Json) -> Iterator[tuple[str, str]]:
    """The name and the text of each fact about the network of a run."""
    classes, (*parts, (_, total)) = run["classes"], run["parameters"].items()
    yield "task", f"{run['task']}, with the head {run['head']}"
    yield "classes", f"{len(classes)}: {', '.join(classes[:SHOWN_CLASSES])}{', …' * (len(classes) > SHOWN_CLASSES)}"
    yield "parameters", f"{total:,} = {' + '.join(f'{name} {count:,}' for name, count in parts)}"
    if run["scores"]:
        yield "scores", ", ".join(f"{name} {_score(name, value)}" for name, value in run["scores"].items())


def _columns(rows: Sequence[Sequence[str]]) -> str:
    return table(rows[1:], rows[0], "<" * len(rows[0]))


def _known(entry: Entry | Source, *names: str) -> dict[str, object]:
    return {name: value for name in names if (value := getattr(entry, name)) not in (None, "")}


def _about(source: Source) -> str:
    score = None if source.top1 is None else f"{source.top1} %"
    return ", ".join(filter(None, (source.label, score, f"at {source.size}", source.licence)))


def _big(value: float) -> str:
    return f"{value / 1e9:.3f} G" if value >= 1e8 else f"{value / 1e6:.3f} M"


def _score(name: str, value: object) -> str:
    """A score as text: a share in per cent, another number as it is."""
    if isinstance(value, float):
        return f"{100 * value:.2f} %" if name.endswith(SHARES) else f"{value:g}"
    return "undefined" if value is None else str(value)


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:.1f} MiB"
