"""The named models, each one line: its difference from a parent."""

from __future__ import annotations

import fnmatch

from resurge.arch.blocks import Basic, Bottleneck
from resurge.arch.gates import SqueezeExcite
from resurge.arch.shortcuts import AvgProjection, Projection, ZeroPad
from resurge.arch.spec import NAMED, Spec
from resurge.arch.stems import Conv3x3 as CifarStem
from resurge.arch.stems import Deep
from resurge.arch.text import read_line
from resurge.arch.transforms import AvgDown, Res2, SelectiveKernel, SplitAttention
from resurge.errors import UserError, suggest

# ResNet, arXiv:1512.03385, table 1
R18 = Spec(depths=(2, 2, 2, 2), block=Basic())
R34 = R18.but(depths=(3, 4, 6, 3))
R50 = Spec(depths=(3, 4, 6, 3))
R101 = R50.but(depths=(3, 4, 23, 3))
R152 = R50.but(depths=(3, 8, 36, 3))
R200 = R50.but(depths=(3, 24, 36, 3))
R269 = R50.but(depths=(3, 30, 48, 8))
R20_CIFAR = Spec(depths=(3, 3, 3), planes=(16, 32, 64), block=Basic(), stem=CifarStem(16), shortcut=ZeroPad())
X29_CIFAR = Spec(depths=(3, 3, 3), planes=(64, 128, 256), stem=CifarStem(64))

# Tweaks, arXiv:1812.01187
A = {"block": Bottleneck(stride_in="reduce")}
C = {"stem": Deep(32)}
D = {"stem": Deep(32), "shortcut": AvgProjection()}

X32X4D = {"groups": 32, "base_width": 4}
X32X8D = {"groups": 32, "base_width": 8}
X64X4D = {"groups": 64, "base_width": 4}
SE = {"gate": SqueezeExcite()}
SENET = {"stem": Deep(64), "block": Bottleneck(reduce_first=2), "shortcut": Projection(kernel=3)}
SK_SMALL = SelectiveKernel(reduction=8, divisor=16, split_input=True)
SK_SPLIT = SelectiveKernel(divisor=8, split_input=True)

# ResNeSt, arXiv:2004.08955; "1s4x24d" is radix 1, cardinality 4, base width 24
S = {"stem": Deep(32), "shortcut": AvgProjection(dilated="drop"), "transform": AvgDown(SplitAttention(radix=2))}
S_WIDE = S | {"stem": Deep(64)}


def _fast(radix: int) -> dict[str, AvgDown]:
    return {"transform": AvgDown(SplitAttention(radix=radix), before=True)}


MODELS: dict[str, Spec] = {
    "resnet18": R18,
    "resnet18d": R18.but(**D),
    "resnet34": R34,
    "resnet34d": R34.but(**D),
    "resnet50": R50,
    "resnet50a": R50.but(**A),
    "resnet50c": R50.but(**C),
    "resnet50d": R50.but(**D),
    "resnet101": R101,
    "resnet101a": R101.but(**A),
    "resnet101c": R101.but(**C),
    "resnet101d": R101.but(**D),
    "resnet152": R152,
    "resnet152d": R152.but(**D),
    "resnet200": R200,
    "resnet200d": R200.but(**D),
    "wide_resnet50_2": R50.but(base_width=128),
    "wide_resnet101_2": R101.but(base_width=128),
    "resnext50_32x4d": R50.but(**X32X4D),
    "resnext50d_32x4d": R50.but(**D, **X32X4D),
    "resnext101_32x4d": R101.but(**X32X4D),
    "resnext101_32x8d": R101.but(**X32X8D),
    "resnext101_64x4d": R101.but(**X64X4D),
    "seresnet18": R18.but(**SE),
    "seresnet34": R34.but(**SE),
    "seresnet50": R50.but(**SE),
    "seresnet101": R101.but(**SE),
    "seresnet152": R152.but(**SE),
    "seresnext50_32x4d": R50.but(**SE, **X32X4D),
    "seresnext101_32x4d": R101.but(**SE, **X32X4D),
    "seresnext101_64x4d": R101.but(**SE, **X64X4D),
    "senet154": R152.but(**SE, **X64X4D, **SENET),
    "skresnet18": R18.but(transform=SK_SMALL),
    "skresnet34": R34.but(transform=SK_SMALL),
    "skresnet50": R50.but(transform=SK_SPLIT),
    "skresnet50d": R50.but(**D, transform=SK_SPLIT),
    "skresnext50_32x4d": R50.but(**X32X4D, transform=SelectiveKernel()),
    "res2net50_26w_4s": R50.but(base_width=26 * 4, transform=Res2(scale=4)),
    "res2net50_26w_6s": R50.but(base_width=26 * 6, transform=Res2(scale=6)),
    "res2net50_26w_8s": R50.but(base_width=26 * 8, transform=Res2(scale=8)),
    "res2net50_48w_2s": R50.but(base_width=48 * 2, transform=Res2(scale=2)),
    "res2net50_14w_8s": R50.but(base_width=14 * 8, transform=Res2(scale=8)),
    "res2net101_26w_4s": R101.but(base_width=26 * 4, transform=Res2(scale=4)),
    "res2next50": R50.but(groups=8, base_width=4 * 4, transform=Res2(scale=4)),
    "res2net50d": R50.but(**D, base_width=26 * 4, transform=Res2(scale=4)),
    "res2net101d": R101.but(**D, base_width=26 * 4, transform=Res2(scale=4)),
    "resnest14": R50.but(**S, depths=(1, 1, 1, 1)),
    "resnest26": R50.but(**S, depths=(2, 2, 2, 2)),
    "resnest50": R50.but(**S),
    "resnest101": R101.but(**S_WIDE),
    "resnest200": R200.but(**S_WIDE),
    "resnest269": R269.but(**S_WIDE),
    "resnest50_fast_1s4x24d": R50.but(**S | _fast(1), groups=4, base_width=24),
    "resnest50_fast_4s2x40d": R50.but(**S | _fast(4), groups=2, base_width=40),
    "resnest50_fast_1s1x64d": R50.but(**S | _fast(1)),
    "resnest50_fast_2s1x64d": R50.but(**S | _fast(2)),
    "resnest50_fast_4s1x64d": R50.but(**S | _fast(4)),
    "resnest50_fast_1s2x40d": R50.but(**S | _fast(1), groups=2, base_width=40),
    "resnest50_fast_2s2x40d": R50.but(**S | _fast(2), groups=2, base_width=40),
    "resnet20_cifar": R20_CIFAR,
    "resnet32_cifar": R20_CIFAR.but(depths=(5, 5, 5)),
    "resnet44_cifar": R20_CIFAR.but(depths=(7, 7, 7)),
    "resnet56_cifar": R20_CIFAR.but(depths=(9, 9, 9)),
    "resnet110_cifar": R20_CIFAR.but(depths=(18, 18, 18)),
    "resnext29_8x64d_cifar": X29_CIFAR.but(groups=8),
    "resnext29_16x64d_cifar": X29_CIFAR.but(groups=16),
}

NAMED.update(MODELS)

# timm's names, where they differ
ALIASES: dict[str, str] = {
    "resnest14d": "resnest14",
    "resnest26d": "resnest26",
    "resnest50d": "resnest50",
    "resnest101e": "resnest101",
    "resnest200e": "resnest200",
    "resnest269e": "resnest269",
    "resnest50d_1s4x24d": "resnest50_fast_1s4x24d",
    "resnest50d_4s2x40d": "resnest50_fast_4s2x40d",
}


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern, in the order of the table."""
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def get_spec(model: str | Spec) -> Spec:
    """The spec of a name, an alias, a line of text (a named model with changes, or every field), or a spec itself.

    Raises:
        UserError: a name, field, word or value is unknown; the nearest real one is suggested.
    """
    if isinstance(model, Spec):
        return model
    name, changes = read_line(model)
    if name is not None:
        name = ALIASES.get(name, name)
        if name not in MODELS:
            hint = suggest(name, [*MODELS, *ALIASES]) or " `resurge models` lists all of them."
            raise UserError(f"there is no model named {name!r}.{hint}")
        return MODELS[name].but(**changes) if changes else MODELS[name]
    if "depths" not in changes:
        raise UserError(
            f"expected a model name or at least depths=(..), got {model!r}. `resurge models` lists the names."
        )
    return Spec(**changes)  # type: ignore[arg-type]  # Spec checks every value


def canonical_name(spec: Spec) -> str | None:
    """The name a spec has in the table, or None."""
    return next((name for name, named in MODELS.items() if named == spec), None)
