"""What `resurge show` says of a network, as text, as JSON and as drawings; one network, or several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from resurge.arch.spec import Spec
from resurge.arch.zoo import ALIASES, canonical_name, get_spec
from resurge.errors import UserError
from resurge.explain.cost import CostReport, cost
from resurge.explain.diagram import block_scene, network_scene

SHOWN_CLASSES = 10
SHARES = ("top1", "top5", "ece", "ap", "ap50", "miou", "accuracy")  # how the names of scores in 0..1 end


@dataclass(frozen=True)
class Trained:
    """What a run directory says of its network.

    Attributes:
        task, head: by name, as `resurge.tasks.table` has them.
        classes: their names.
        parameters: weights and biases of each part, in order, such as backbone, fpn and head.
        scores: as model.json has them.
        fixed_cost: whether the work beyond the backbone does not depend on what is in the image.
        classifies: whether it is a classifier, like the networks by name.
    """

    task: str
    head: str
    classes: tuple[str, ...]
    parameters: Mapping[str, int]
    scores: Mapping[str, Any]
    fixed_cost: bool = True
    classifies: bool = True

    def to_json(self) -> dict[str, Any]:
        parts = {**self.parameters, "total": sum(self.parameters.values())}
        found = {"task": self.task, "head": self.head, "classes": list(self.classes)}
        return {**found, "parameters": parts, "scores": dict(self.scores)}

    def to_rows(self) -> list[list[str]]:
        """A fact a row: its name, and what it is."""
        shown = ", ".join(self.classes[:SHOWN_CLASSES]) + (", …" if len(self.classes) > SHOWN_CLASSES else "")
        parts = " + ".join(f"{name} {count:,}" for name, count in self.parameters.items())
        rows = [
            ["task", f"{self.task}, with the head {self.head}"],
            ["classes", f"{len(self.classes)}: {shown}"],
            ["parameters", f"{sum(self.parameters.values()):,} = {parts}"],
        ]
        if self.scores:
            rows.append(["scores", ", ".join(f"{name} {_result(name, value)}" for name, value in self.scores.items())])
        return rows


@dataclass(frozen=True)
class Summary:
    """A network, what it costs, what is published of it, and what a run that was trained with it says.

    `costs` are those of the backbone alone where the cost of a run is not fixed. `output_stride` is that of
    the backbone as it was built.

    `entry` is the catalogue's entry as plain values (`dataclasses.asdict`): top1, top1_source, top1_size, sources, each
    with kind, location, label, licence, top1 and size. None for a network of one's own; any key may be missing.
    """

    spec: Spec
    costs: CostReport
    entry: Mapping[str, Any] | None = None
    run: Trained | None = None
    output_stride: int = 32

    @property
    def name(self) -> str:
        return canonical_name(self.spec) or str(self.spec)

    @property
    def of_backbone(self) -> bool:
        """Whether the costs leave out pyramid and heads."""
        return self.run is not None and not self.run.fixed_cost

    @property
    def parameters(self) -> int:
        """Of the whole network."""
        return self.costs.parameters if self.run is None else sum(self.run.parameters.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values: name, text, spec, aliases, cost, published score, weights, and the run or None."""
        other = {"of": "backbone", "other_parameters": self.parameters - self.costs.parameters}
        return {
            "name": canonical_name(self.spec),
            "text": str(self.spec),
            "aliases": self._aliases(),
            "spec": self.spec.to_json(),
            "cost": self.costs.to_json() | (other if self.of_backbone else {}),
            "published": self._published(),
            "weights": self._weights(),
            "run": None if self.run is None else self.run.to_json(),
        }

    def to_text(self) -> str:
        """The table and the facts around it, plain text in aligned columns."""
        head = [self.name]
        aliases = self._aliases()
        if aliases:
            head.append(f"also called {', '.join(aliases)}")
        if self.run is not None:
            head += ["", *_columns(self.run.to_rows())]
        lines = [*head, "", *_axes(self.spec), ""]
        channels, height, width = self.costs.input
        alone = ", the backbone alone" if self.of_backbone else ""
        lines.append(f"for one input of {channels} x {height} x {width}{alone}:")
        lines += _columns(_cost_cells(self.costs, "backbone" if self.of_backbone else "total"), right=(2, 3, 4, 5))
        published = self._published()
        if published:
            lines += [
                "",
                "published: " + _score(published, "CIFAR-10" if default_classes(self.spec) == 10 else "ImageNet"),
            ]
        weights = self._weights()
        if weights:
            lines += ["", "weights:", *_columns([["  " + place, about] for place, about in map(_place, weights)])]
        return "\n".join(lines) + "\n"

    def _aliases(self) -> list[str]:
        name = canonical_name(self.spec)
        return [alias for alias, real in ALIASES.items() if real == name]

    def _published(self) -> dict[str, Any] | None:
        entry = self.entry or {}
        if entry.get("top1") in (None, ""):
            return None
        return {key: entry[key] for key in ("top1", "top1_source", "top1_size") if entry.get(key) not in (None, "")}

    def _weights(self) -> list[dict[str, Any]]:
        sources = (self.entry or {}).get("sources") or ()
        wanted = ("kind", "location", "label", "licence", "top1", "size")
        return [{key: source[key] for key in wanted if source.get(key) not in (None, "")} for source in sources]


def summarize(
    model: str | Spec,
    *,
    size: tuple[int, int] = (224, 224),
    in_channels: int = 3,
    num_classes: int | None = None,
    entry: Mapping[str, Any] | None = None,
) -> Summary:
    """Count a network. `entry` is the catalogue's entry for it as plain values; see `Summary`.

    `num_classes` None takes 10 for the networks of CIFAR, which have no pool in their stem, and else 1000.

    Raises:
        UserError: there is no such model, or it cannot take this size.
    """
    spec = get_spec(model)
    classes = num_classes if num_classes is not None else default_classes(spec)
    return Summary(spec, cost(spec, size, in_channels, classes), entry)


def default_classes(spec: Spec) -> int:
    """Classes that the published figures of a network count: CIFAR's 10 or ImageNet's 1000."""
    return 10 if spec.stem.stride == 1 else 1000


def compare(summaries: Sequence[Summary]) -> str:
    """Networks side by side: a column each, the figures and the choices in which they differ in rows.

    Raises:
        UserError: there are none.
    """
    if not summaries:
        raise UserError("there is nothing to compare: name at least one model.")
    rows: list[list[str]] = [["", *(summary.name for summary in summaries)]]
    rows += [[name, *values] for name, values in _differences([summary.spec for summary in summaries])]
    if any(summary.run is not None and not summary.run.classifies for summary in summaries):
        rows.append(["task", *(summary.run.task if summary.run else "classify" for summary in summaries)])
        rows.append(["head", *(summary.run.head if summary.run else "linear" for summary in summaries)])
    figures = (
        ("input", lambda s: " x ".join(map(str, s.costs.input))),
        ("parameters", lambda s: f"{s.parameters:,}"),
        ("multiply-adds", lambda s: _big(s.costs.macs) + (" (backbone)" if s.of_backbone else "")),
        ("activations", lambda s: _mebibytes(s.costs.activation_bytes) + (" (backbone)" if s.of_backbone else "")),
        ("receptive field", lambda s: f"{s.costs.receptive_field}"),
        ("published top-1", lambda s: f"{published['top1']} %" if (published := s._published()) else "-"),
        ("files of weights", lambda s: f"{len(s._weights())}"),
    )
    rows += [[name, *(write(summary) for summary in summaries)] for name, write in figures]
    stages = max(len(summary.costs.rows) for summary in summaries)
    for i in range(stages):
        names = [summary.costs.rows[i].name if i < len(summary.costs.rows) else "" for summary in summaries]
        label = next(name for name in names if name)
        if label.startswith("stage") or label == "stem":
            rows.append([f"{label} multiply-adds", *(_stage_macs(summary, label) for summary in summaries)])
    return "\n".join(_columns(rows, right=tuple(range(1, len(summaries) + 1)))) + "\n"


def write_diagrams(
    model: str | Spec,
    path: str | Path,
    *,
    size: tuple[int, int] = (224, 224),
    in_channels: int = 3,
    num_classes: int | None = None,
    output_stride: int = 32,
    classifier: bool = True,
) -> list[Path]:
    """Draw the network into `path` (.svg or .png) and the blocks of each stage beside it, `NAME_stage1.svg` and so on.

    `num_classes` None takes that of the published figures; without `classifier` the backbone alone is drawn.

    Raises:
        UserError: no such model, another suffix, or a file cannot be written.
    """
    spec, target = get_spec(model), Path(path)
    classes = (num_classes or default_classes(spec)) if classifier else None
    how: dict[str, Any] = {"size": size, "in_channels": in_channels, "output_stride": output_stride}
    written = [network_scene(spec, num_classes=classes, **how).save(target)]
    for stage in range(1, len(spec.depths) + 1):
        beside = target.with_name(f"{target.stem}_stage{stage}{target.suffix}")
        written.append(block_scene(spec, stage, **how).save(beside))
    return written


# ---------------------------------------------------------------------------------------------------------- text


def _axes(spec: Spec) -> list[str]:
    return _columns([[field.name, _choice(getattr(spec, field.name))] for field in fields(Spec)])


def _choice(value: object, brief: bool = False) -> str:
    """A choice with its settings: `Deep(width=32)`, or the numbers of a tuple. Brief: only what is not the default."""
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        pairs = [(field, getattr(value, field.name)) for field in fields(value)]
        settings = [
            f"{field.name}={_choice(setting, brief)}"
            for field, setting in pairs
            if not brief or setting != field.default or is_dataclass(setting)
        ]
        return f"{type(value).__name__}({', '.join(settings)})" if settings else type(value).__name__
    return str(value)


def _differences(specs: Sequence[Spec]) -> list[tuple[str, list[str]]]:
    """The axes on which not all specs agree."""
    rows = []
    for field in fields(Spec):
        values = [_choice(getattr(spec, field.name), brief=True) for spec in specs]
        if len(set(values)) > 1:
            rows.append((field.name, values))
    return rows


def _cost_cells(costs: CostReport, whole: str = "total") -> list[list[str]]:
    cells = [["", "output", "parameters", "multiply-adds", "activations", "receptive field"]]
    for row in costs.rows:
        cells.append(
            [
                row.name,
                " x ".join(str(n) for n in row.shape),
                f"{row.parameters:,}",
                _big(row.macs),
                _mebibytes(row.activation_bytes),
                "" if row.receptive_field is None else str(row.receptive_field),
            ]
        )
    total = [whole, "", f"{costs.parameters:,}", _big(costs.macs), _mebibytes(costs.activation_bytes), ""]
    return [*cells, total]


def _stage_macs(summary: Summary, name: str) -> str:
    return next((_big(row.macs) for row in summary.costs.rows if row.name == name), "-")


def _columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows of cells as lines; the columns named by `right` are flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _big(value: float) -> str:
    return f"{value / 1e9:.3f} G" if value >= 1e8 else f"{value / 1e6:.3f} M"


def _result(name: str, value: Any) -> str:
    """A score as text: a share in per cent, another number as it is."""
    if isinstance(value, float) and name.endswith(SHARES):
        return f"{100 * value:.2f} %"
    return "undefined" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:.1f} MiB"


def _score(published: Mapping[str, Any], data: str) -> str:
    text = f"{published['top1']} % top-1 on {data}"
    if "top1_size" in published:
        text += f" at {published['top1_size']} x {published['top1_size']}"
    return text + (f" ({published['top1_source']})" if "top1_source" in published else "")


def _place(source: Mapping[str, Any]) -> tuple[str, str]:
    """Where a file of weights is, as `--weights` takes it, and what is known of it."""
    place = ("hub:" if source.get("kind") == "hub" else "") + str(source.get("location", ""))
    score = f"{source['top1']} %" if "top1" in source else None
    size = f"at {source['size']}" if "size" in source else None
    return place, ", ".join(str(fact) for fact in (source.get("label"), score, size, source.get("licence")) if fact)
