"""Which of the equivalent forms of a network runs fastest here: found by measuring, and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from resurge import __version__
from resurge.errors import UserError
from resurge.files import atomic_write_text
from resurge.machine import processor
from resurge.optimize import timing
from resurge.optimize.passes.layers import group_counts, regroup
from resurge.optimize.rewrite import ALWAYS, PASSES, Certificate, certify, rewrite

Prepare = Callable[[nn.Module, Tensor], Callable[[], object]]
"""Makes a network ready to be run on images of this shape, and returns what runs it once."""

GAIN = 1.03  # another form is taken from here on: a smaller gain is not worth another graph, and may be noise

AS_IT_IS = "as it is"
STARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"rewritten": ALWAYS},
    "cuda": {
        AS_IT_IS: (),
        "norms kept": tuple(name for name in ALWAYS if name != "fold_norms"),
        "norms folded": ALWAYS,
        "fused convolutions": (*ALWAYS, "fuse_convolutions"),
        "fused dense convolutions": (*ALWAYS, "fuse_dense_convolutions"),
    },
}
"""By type of device: the passes to begin with. Where there are several, the fastest is found by measuring.

On a GPU no pass is free in eager mode: a folded norm leaves a bias, which is a slow kernel of its own in bf16.
"""


@dataclass(frozen=True)
class Choice:
    """The form that was taken for a part of the network; `seconds` of one run by form, none if `remembered`."""

    what: str
    form: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    remembered: bool = False


@dataclass(frozen=True)
class Optimized:
    """A rewritten model, how far it is from the one it was made from, and what was chosen on the way."""

    model: nn.Module
    certificate: Certificate
    choices: tuple[Choice, ...]


def optimize(
    model: nn.Module,
    example: Tensor,
    *,
    device: str | torch.device | None = None,
    prepare: Prepare | None = None,
    runtime: str = "eager",
    memory: str | os.PathLike[str] | None = None,
    rounds: int = 7,
) -> Optimized:
    """Rewrite a model exactly, in the forms that are fastest on this machine.

    On a processor the passes that are always worth it are applied. On a GPU they are tried too, with folded norms and
    without, and the model comes back as it is where nothing is faster. Of the other passes, and of the numbers of
    groups that a grouped convolution can be written in, each is tried against what there is, in turns, on the example,
    and taken where it is faster by three per cent.

    Args:
        model: any model of this project; it stays as it is. Its outputs are the same afterwards, up to rounding.
        example: images (N, C, H, W) of the size and number that will be used, with real values if there are any: they
            also make the certificate.
        device: where the model will run; None for where the example is.
        prepare: how a network is run; None for PyTorch as it is, in the channels-last layout, in which the model then
            comes back: give it channels-last images.
        runtime: the name under which measurements with `prepare` are remembered.
        memory: a JSON file of what was measured before; None for resurge/forms.json in the user's cache folder.
        rounds: measurements of each form.

    Raises:
        UserError: the example is no batch of images.
    """
    if example.dim() != 4 or 0 in example.shape or not example.is_floating_point():
        raise UserError(f"expected an example of floats (N, C, H, W); got {tuple(example.shape)} of {example.dtype}.")
    place = example.device if device is None else torch.device(device)
    example = example.to(place)
    moved = rewrite(model, ()).to(place, example.dtype)
    trial = _Trial(prepare or _eager, example, rounds, _Memory(memory, _machine(place, runtime)))
    starts = STARTS.get(place.type, STARTS["cpu"])
    built = {name: partial(rewrite, moved, passes) for name, passes in starts.items()}
    chosen = list(starts[trial.pick("passes to begin with", _signature(moved), built)])
    best = rewrite(moved, chosen)
    for name in (name for name, each in PASSES.items() if each.when in ("measured", place.type)):
        other = rewrite(moved, [*chosen, name])
        forms = {AS_IT_IS: partial(_given, best), name: partial(_given, other)}
        if _signature(best) != _signature(other) and trial.pick(name, _signature(best), forms) == name:
            chosen.append(name)
            best = other
    best = _with_chosen_groups(best, trial)
    if AS_IT_IS in starts and _signature(moved) != _signature(best):  # groups were measured outside the network
        forms = {AS_IT_IS: partial(_given, moved), "rewritten": partial(_given, best)}
        best = moved if trial.pick("the whole", _signature(best), forms) == AS_IT_IS else best
    if prepare is None:
        best = best.to(memory_format=torch.channels_last)  # as it was measured, also where a choice was remembered
    return Optimized(best, certify(moved, best, example), tuple(trial.choices))


def _given(model: nn.Module) -> nn.Module:
    return model


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class _Trial:
    """Forms against each other on one example."""

    prepare: Prepare
    example: Tensor
    rounds: int
    known: _Memory
    choices: list[Choice] = field(default_factory=list)

    def pick(
        self, what: str, signature: str, forms: Mapping[str, Callable[[], nn.Module]], example: Tensor | None = None
    ) -> str:
        """The fastest form, the first one unless another is faster by `GAIN`; of several it is noted in `choices`."""
        first = next(iter(forms))
        if len(forms) == 1:
            return first
        images = self.example if example is None else example
        key = hashlib.sha256(f"{signature} {tuple(images.shape)} {images.dtype} {sorted(forms)}".encode()).hexdigest()
        remembered = self.known.get(key)
        if remembered in forms:
            self.choices.append(Choice(what, str(remembered), remembered=True))
            return str(remembered)
        runs = {}
        for name, build in forms.items():
            try:
                run = self.prepare(build(), images)
                run()
            except Exception:  # a form that cannot be run here, for want of a compiler say, is only not chosen
                if name == first:
                    raise
            else:
                runs[name] = run
        seconds = race(runs, self.rounds)
        fastest = min(seconds, key=lambda name: seconds[name])
        form = fastest if seconds[first] >= GAIN * seconds[fastest] else first
        self.known.put(key, form)
        self.choices.append(Choice(what, form, seconds))
        return form


def race(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of a run of each, run in turns after one run each that does not count."""
    raced = timing.race(runs, rounds, slot=timing.SLOT, pause=timing.PAUSE)
    return {name: raced.seconds(name) for name in runs}


def _eager(model: nn.Module, example: Tensor) -> Callable[[], object]:
    layout = torch.channels_last
    model, images = model.to(memory_format=layout), example.contiguous(memory_format=layout)

    def run() -> object:
        with torch.inference_mode():
            found = model(images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            return found

    return run


# -------------------------------------------------------------------------------------------------------------- groups


def _with_chosen_groups(model: nn.Module, trial: _Trial) -> nn.Module:
    example = trial.example
    shapes = _grouped_inputs(model, example)
    chosen: dict[str, int] = {}
    for conv, shape in shapes.items():
        signature = _conv_signature(conv, shape)
        if signature not in chosen:
            images = torch.randn(shape, dtype=example.dtype, device=example.device)
            built = {
                str(n): lambda n=n, conv=conv: regroup(nn.Sequential(conv), lambda _: n).eval()
                for n in group_counts(conv)
            }
            chosen[signature] = int(trial.pick(f"groups of {signature}", signature, built, images))
    return regroup(model, lambda conv: chosen[_conv_signature(conv, shapes[conv])])


def _grouped_inputs(model: nn.Module, example: Tensor) -> dict[nn.Conv2d, tuple[int, ...]]:
    """The grouped convolutions that are run, and the shape of what they are given first."""
    seen: dict[nn.Conv2d, tuple[int, ...]] = {}

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(conv, nn.Conv2d):
            seen.setdefault(conv, tuple(inputs[0].shape))

    layers = [layer for layer in model.modules() if type(layer) is nn.Conv2d and layer.groups > 1]
    with contextlib.ExitStack() as handles, torch.inference_mode():
        for layer in layers:
            handles.enter_context(layer.register_forward_pre_hook(note))
        model(example)
    return seen


def _conv_signature(conv: nn.Conv2d, shape: Sequence[int]) -> str:
    side = "x".join(map(str, shape[2:]))
    return (
        f"{conv.in_channels}->{conv.out_channels} in {conv.groups}, {conv.kernel_size[0]}x{conv.kernel_size[1]}, "
        f"stride {conv.stride[0]}, dilation {conv.dilation[0]}, on {side}"
    )


def _signature(model: nn.Module) -> str:
    """What the layers are, without their weights."""
    return f"{type(model).__name__} {model}"


# -------------------------------------------------------------------------------------------------------------- memory


class _Memory:
    """What was found faster, by machine and question, in a JSON file that may be lost without harm."""

    def __init__(self, path: str | os.PathLike[str] | None, machine: str) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.path = cache / "resurge" / "forms.json" if path is None else Path(path)
        self.machine = machine
        self.found: dict[str, dict[str, str]] = {}
        with contextlib.suppress(OSError, ValueError):
            plain = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(plain, dict):
                self.found = {str(key): dict(value) for key, value in plain.items() if isinstance(value, dict)}

    def get(self, key: str) -> str | None:
        form = self.found.get(self.machine, {}).get(key)
        return form if isinstance(form, str) else None

    def put(self, key: str, form: str) -> None:
        self.found.setdefault(self.machine, {})[key] = form
        with contextlib.suppress(UserError):  # a cache that cannot be written is done without
            atomic_write_text(self.path, json.dumps(self.found, indent=1) + "\n", mark=None)


def _machine(device: torch.device, runtime: str) -> str:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{processor()} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    return f"{runtime}, {name}, torch {torch.__version__}, resurge {__version__}"
