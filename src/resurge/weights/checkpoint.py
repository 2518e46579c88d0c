"""Weights into a model and out of it, with a report of what happened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone, backbone_of, uncompiled
from resurge.arch.deformable import undeformed
from resurge.arch.spec import Spec
from resurge.arch.zoo import MODELS, canonical_name, get_spec
from resurge.errors import UserError, first_line, nearest
from resurge.files import MARK, atomic_write_bytes
from resurge.run_files import FORMAT, read_model_json, write_model_json
from resurge.untrusted import shown
from resurge.weights.catalog import entries, names_with_parameters, pretrained_source
from resurge.weights.download import fetch
from resurge.weights.layouts import torchvision_tasks
from resurge.weights.layouts.naming import OWN, Value, detect_layout, find_part, from_resurge, to_resurge
from resurge.weights.reading import Checkpoint, read_checkpoint, some, unwrap

WEIGHTS_FILE = "model.safetensors"
CLASSIFIER = ("head.fc.weight", "head.fc.bias")
HEADS = ("head.", "fpn.", "auxiliary.")  # how the names begin of what stands on a backbone
OFFSET = ".conv.offset."  # in the names of what bends a `DeformableConv2d`; zero at first
NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")

Shapes = tuple[tuple[int, ...], tuple[int, ...]]  # in the source, in the model
Source = str | os.PathLike[str] | Mapping[str, object]


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did. Names are the model's own, except `unexpected`, which are the source's.

    Attributes:
        source: where the weights are from.
        layout: whose names they had.
        loaded: tensors that were copied.
        missing: tensors of the model that the source does not have; they keep their values.
        unexpected: names of the source that the model does not have.
        mismatched: name -> (shape in the source, shape in the model), not loaded; a classifier of another size.
        adapted: tensors that were converted, each with how.
        notes: anything else worth knowing, such as a wrapper the weights were taken out of.
    """

    source: str
    layout: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: Mapping[str, Shapes] = field(default_factory=dict)
    adapted: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded from {shown(self.source)} ({self.layout} names)"]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  adapted: {name}, {how}" for name, how in self.adapted.items()]
        lines += [f"  skipped: {_shapes(name, both)}" for name, both in self.mismatched.items()]
        lines += [f"  missing: {some(self.missing)}"] * bool(self.missing)
        lines += [f"  not used: {some(self.unexpected)}"] * bool(self.unexpected)
        return "\n".join(lines)


def load_weights(
    model: nn.Module,
    source: Source,
    layout: str = "auto",
    *,
    strict: bool = True,
    adapt: bool = True,
    headless: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> LoadReport:
    """Copy trained weights into `model`, whatever package they are from.

    Args:
        model: the model of any task, a bare `Backbone` (a head in the source is then left out), or any model with a
            `Backbone` as its child `backbone`. A detector or segmenter also takes the weights of a classifier: its
            backbone is loaded and the rest keeps its values.
        source: a file (`.safetensors`, `.pth`, `.pt`, `.th`, `.bin`), a run directory, a state dict,
            `hub:owner/name`, an http(s) address, `catalog:NAME`, or `pretrained` (the catalogue's weights of the
            model's own name). A deformable network also takes those of the plain one; its offsets stay as they are.
        layout: one of `resurge.weights.layouts.naming.LAYOUTS`, or "auto".
        strict: a tensor that is missing, unexpected or misshapen is an error, except a last layer for another number
            of classes, which is skipped and reported. Otherwise whatever fits is loaded.
        adapt: convert the first convolution when the model takes another number of channels; see `adapt_input`.
        headless: the source may be a backbone alone, or with heads of other purposes, as self-supervised training
            leaves it; the model's head then keeps its values.
        cache_dir: where downloads are kept; see `resurge.weights.download`.

    Raises:
        UserError: the source cannot be had or read, or does not fit. The model is then unchanged.
    """
    model = uncompiled(model)
    spec = backbone_of(model).spec
    name, checkpoint, source_layout = _read(source, spec, cache_dir)
    stated = checkpoint.metadata.get("spec")
    if strict and stated and get_spec(stated) not in (spec, _plain(spec)):
        raise UserError(f"{name} holds weights of {stated!r}, but the model is {str(spec)!r}: use --model {stated!r}.")

    tensors, others, notes = _part_of(checkpoint.tensors, spec, layout if layout != "auto" else source_layout)
    if layout == "auto" and source_layout == "auto":
        layout = "torchvision" if torchvision_tasks.is_of_task(tensors) else detect_layout(tensors, spec)
    elif layout == "auto":
        layout = source_layout
    own = "backbone." if isinstance(model, Backbone) else ""
    theirs = {ours.removeprefix(own): key for ours, key in _named({key: key for key in tensors}, spec, layout).items()}
    found = {ours: tensors[key] for ours, key in theirs.items()}
    eps_free = torchvision_tasks.add_eps(found, name)

    expected = model.state_dict()
    fitting: dict[str, Tensor] = {}
    mismatched: dict[str, Shapes] = {}
    adapted: dict[str, str] = {}
    for key in (key for key in found if key in expected):
        shape, wanted = tuple(found[key].shape), tuple(expected[key].shape)
        if shape == wanted:
            fitting[key] = found[key]
        elif adapt and _is_other_input(key, (shape, wanted)):
            fitting[key] = adapt_input(found[key], wanted[1])
            adapted[key] = f"{shape[1]} input channels to {wanted[1]}"
        else:
            mismatched[key] = (shape, wanted)
    # Checkpoints older than PyTorch 0.4.1 and frozen norms do not count batches, and nothing here reads the count.
    counts = "num_batches_tracked"
    foreign = [key for key in found if key not in expected and not key.endswith(counts)]
    missing = [key for key in expected if key not in found and not key.endswith(counts)]
    bare = headless and not any(key in expected and not key.startswith("backbone.") for key in {*found} - {*CLASSIFIER})
    if strict:
        lost = [key for key in missing if key.startswith("backbone.") or not bare]
        extra = [key for key in foreign if key.startswith("backbone.") or not bare]
        problems = {
            "missing": [key for key in lost if not _may_miss(model, key, found)],
            "unexpected": [theirs[key] for key in extra if not _may_leave(model, key)],
            "of another shape": [_shapes(*item) for item in mismatched.items() if not _is_other_classes(*item)],
        }
        if any(problems.values()):
            raise UserError(_does_not_fit(name, spec, tensors, problems))
    if not fitting:
        raise UserError(f"{name}: not one of its {len(tensors)} tensors fits the model {str(spec)!r}.")
    model.load_state_dict(fitting, strict=False)
    stripped = [f"{checkpoint.prefix!r} was stripped from the names"] if checkpoint.prefix else []
    notes = [*(f"taken from {wrapper!r}" for wrapper in checkpoint.wrappers), *stripped, *notes]
    if bare and any(key in missing for key in CLASSIFIER):
        notes.append("the source has no classifier for this model: the last layer starts untrained")
    if eps_free:
        notes.append(f"{len(eps_free)} variances lowered by {torchvision_tasks.EPS}: trained without an eps")
    offsets = sum(OFFSET in key for key in missing)
    if offsets and not any(OFFSET in key for key in found):
        notes.append(f"{offsets} of the missing are offsets, missing by design: the source is not deformable")
    unexpected = (*(theirs[key] for key in foreign), *checkpoint.outside, *others)
    return LoadReport(name, layout, tuple(fitting), tuple(missing), unexpected, mismatched, adapted, tuple(notes))


def export_weights(model: nn.Module, layout: str = "resurge") -> dict[str, Tensor]:
    """The model's state dict under the names of a layout; the tensors are shared with the model.

    Raises:
        UserError: the layout has no names for this network; see `resurge.weights.layouts.naming.from_resurge`.
    """
    tensors, spec = uncompiled(model).state_dict(), backbone_of(model).spec
    if layout == "torchvision" and hasattr(uncompiled(model), "head_name"):
        return torchvision_tasks.from_resurge(tensors, spec)
    return from_resurge(tensors, spec, layout)


def adapt_input(weight: Tensor, channels: int) -> Tensor:
    """Convert a first convolution (O, C, k, k) to (O, channels, k, k).

    To one channel the weights are summed, which gives exactly the response to a grey image repeated C times and
    normalised alike in each. Otherwise they are repeated in turn and scaled by C / channels, which keeps the
    response to images whose channels are equal when `channels` is a multiple of C, and its scale when it is not.
    """
    have = weight.shape[1]
    if channels == 1:
        return weight.float().sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // have), 1, 1)[:, :channels]
    return repeated.float() * (have / channels)


def save_model(directory: str | os.PathLike[str], model: nn.Module, meta: Mapping[str, object]) -> None:
    """Write `model.safetensors` and `model.json` into `directory`; each file is replaced as a whole or not at all.

    `meta` goes into the JSON as it is; `format`, `spec`, `spec_json` and `parameters` are added from the model where
    it does not say them.

    Raises:
        UserError: the directory cannot be written, or the disk is full.
    """
    directory, described = Path(directory), {**describe_model(model), **meta}
    # Channels-last weights are stored in the ordinary order, which is the only one the file format knows.
    tensors = {key: value.detach().cpu().contiguous() for key, value in uncompiled(model).state_dict().items()}
    metadata = {"resurge_format": str(FORMAT), "spec": str(described["spec"])}
    atomic_write_bytes(directory / WEIGHTS_FILE, to_safetensors(tensors, metadata))
    write_model_json(directory, described)


def describe_model(model: nn.Module) -> dict[str, object]:
    """The fields of `model.json` that follow from the network alone."""
    spec = backbone_of(model).spec
    parameters = sum(p.numel() for p in model.parameters())
    return {"spec": str(spec), "spec_json": spec.to_json(), "parameters": parameters}


def to_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file: the same bytes for the same tensors and metadata, to which "format" and our mark are added.

    The library writes the metadata in an order that is another one in each process.
    """
    content = safetensors.torch.save(dict(tensors), {"format": "pt", "comment": MARK, **metadata})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def build_for(file: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """The network that `build` makes, for the weights in a file: what a description in words asks for may be of any
    size, what lies in a file is not, so that the memory is taken only when they agree.

    Raises:
        UserError: the file is missing or damaged, or the network has many more weights than the file.
    """
    if not file.is_file():
        read_checkpoint(file)  # says why not
    try:
        with torch.device("meta"):
            wanted = sum(tensor.numel() for tensor in build().state_dict().values())
    except RuntimeError as error:
        if "meta" not in str(error):  # a shape beyond all numbers
            raise UserError(f"no network can be as large as described ({first_line(error)}).") from error
        wanted = 0  # a part of a plugin computes with its own weights
    if wanted > (size := file.stat().st_size):  # less than a byte each
        raise UserError(f"the network described has {wanted:,} weights, and {file.name} has {size:,} bytes for them.")
    return build()


def _plain(spec: Spec) -> Spec:
    """The spec without the deformable convolutions around its transform, whose weights it may start from."""
    return spec.but(transform=undeformed(spec.transform))


def _read(source: Source, spec: Spec, cache_dir: str | os.PathLike[str] | None) -> tuple[str, Checkpoint, str]:
    """(what to call it, what it holds, its layout or "auto")"""
    if isinstance(source, Mapping):
        return "the state dict", unwrap(source, "the state dict"), "auto"
    text = os.fspath(source)
    if text == "pretrained":
        known = canonical_name(_plain(spec))
        if known is None:
            raise UserError(f"{str(spec)!r} is no named model, so no weights of it are published; pass --weights FILE.")
        text = f"catalog:{known}"
    if text.startswith("catalog:"):
        where = pretrained_source(text.removeprefix("catalog:"))
        return str(where), read_checkpoint(fetch(where, cache_dir)), where.layout
    if text.startswith(("hub:", "http://", "https://")):
        return text, read_checkpoint(fetch(text, cache_dir)), "auto"
    path = Path(text).expanduser()
    if path.is_dir():
        described = read_model_json(path)
        checkpoint = read_checkpoint(path / WEIGHTS_FILE)
        return text, Checkpoint(checkpoint.tensors, (), {"spec": described["spec"]}), "auto"
    if not path.exists() and (near := nearest(text, entries())):
        raise UserError(f"{text} is no file. For the published weights of a model, say catalog:{near}.")
    return text, read_checkpoint(path), "auto"


def _part_of(tensors: dict[str, Tensor], spec: Spec, layout: str) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors of the network in a file that holds other parts too; the names of those; and a note that says so."""
    whole = _without_model(tensors)
    if layout not in ("auto", "resurge") or torchvision_tasks.is_of_task(tensors):
        return whole, [], []
    part = find_part([*tensors], spec)
    if not part or not find_part([*whole], spec):  # as a whole it is one already
        return whole, [], []
    inside = {key.removeprefix(part): value for key, value in tensors.items() if key.startswith(part)}
    outside = [key for key in tensors if not key.startswith(part)]
    return inside, outside, [f"of the names, those that begin with {part!r} were taken, and that was stripped"]


def _without_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `backbone.` off their names if they are of a foreign backbone inside a foreign model."""
    ours = ("backbone.stem.", "backbone.stages.")
    if not any(key.startswith("backbone.") for key in tensors) or any(key.startswith(ours) for key in tensors):
        return tensors
    if torchvision_tasks.is_of_task(tensors):
        return tensors
    return {key.removeprefix("backbone.").replace("head.fc.", "fc."): value for key, value in tensors.items()}


def _named(tensors: Mapping[str, Value], spec: Spec, layout: str) -> dict[str, Value]:
    """The tensors under the names of a whole model here."""
    if layout == "torchvision" and torchvision_tasks.is_of_task(tensors):
        return torchvision_tasks.to_resurge(tensors, spec)
    found = to_resurge(tensors, spec, layout)
    if any(key.startswith("backbone.") for key in found):
        return found
    return {f"backbone.{key}" if key.startswith(OWN[:2]) else key: value for key, value in found.items()}


def _may_miss(model: nn.Module, key: str, found: Mapping[str, Tensor]) -> bool:
    """Whether the source need not have this tensor of the model.

    A backbone, with or without a classifier, is all that is needed for a model of another task; an auxiliary head is of
    use in training alone; and a deformable network starts as the plain one, of which it takes the weights.
    """
    if OFFSET in key:
        return not any(OFFSET in other for other in found)
    if isinstance(model, Backbone) or not hasattr(model, "head_name") or key.startswith("backbone."):
        return False
    return key.startswith("auxiliary.") or all(other.startswith("backbone.") or other in CLASSIFIER for other in found)


def _may_leave(model: nn.Module, key: str) -> bool:
    """Whether the model need not have this tensor of the source; `key` is its name here."""
    if isinstance(model, Backbone):
        return key.startswith(HEADS)
    return hasattr(model, "head_name") and (key in CLASSIFIER or key.startswith("auxiliary."))


def _is_other_input(key: str, shapes: Shapes) -> bool:
    in_source, in_model = shapes
    first = key.removeprefix("backbone.") == "stem.convs.0.conv.weight"
    return first and in_source[:1] + in_source[2:] == in_model[:1] + in_model[2:]


def _is_other_classes(key: str, shapes: Shapes) -> bool:
    in_source, in_model = shapes
    of_classes = key in CLASSIFIER or torchvision_tasks.OF_CLASSES.fullmatch(key) is not None
    return of_classes and len(in_source) == len(in_model) and in_source[1:] == in_model[1:]


def _does_not_fit(name: str, spec: Spec, tensors: Mapping[str, Tensor], problems: Mapping[str, list[str]]) -> str:
    listed = "; ".join(f"{len(names)} {what}: {some(names)}" for what, names in problems.items() if names)
    looks_like = [known for known in _models_of(tensors) if MODELS[known] != spec]
    if looks_like:
        advice = f" They look like {' or '.join(looks_like)}: use --model {looks_like[0]}."
    else:
        advice = " Use the model they were trained as, or load what fits with strict=False."
    return f"{name} does not fit the model {str(spec)!r}: {listed}.{advice}"


def _models_of(tensors: Mapping[str, Tensor]) -> list[str]:
    """Named models whose every tensor is in `tensors`, in any layout; the number of classes does not matter."""
    learned = {key: value for key, value in tensors.items() if not key.endswith(NOT_LEARNED)}
    total = sum(value.numel() for value in learned.values())
    matrices = [value for value in learned.values() if value.ndim == 2]  # every network here has one linear layer
    if len(matrices) != 1:
        return []
    rows, columns = matrices[0].shape
    sizes = {classes: total + (classes - rows) * (columns + 1) for classes in (1000, 10)}
    candidates = [name for classes, size in sizes.items() for name in names_with_parameters(size, classes)]
    return [candidate for candidate in candidates if _has_all(tensors, MODELS[candidate])]


def _has_all(tensors: Mapping[str, Tensor], spec: Spec) -> bool:
    with torch.device("meta"):
        wanted = Backbone(spec).state_dict()
    try:
        found = to_resurge(tensors, spec, detect_layout(tensors, spec))
    except UserError:
        return False
    shapes = {key.removeprefix("backbone."): value.shape for key, value in found.items()}
    counted = [key for key in wanted if not key.endswith("num_batches_tracked")]
    return all(shapes.get(key) == wanted[key].shape for key in counted)


def _shapes(name: str, both: Shapes) -> str:
    return f"{name} is {both[0]} in the source and {both[1]} in the model"
