"""The names of weights as tables, read in both directions.

A layout is names and nothing else: no tensor changes its shape or order on the way. In every table the left name is
this project's, relative to its piece, and the right one theirs, relative to the block. In the right names `{n}` is
the number of the convolution in its block (the transform of a bottleneck is the second, that of a basic block the
first); `{i}`, in both, counts branches or scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from resurge.arch import gates, stems

Pairs = tuple[tuple[str, str], ...]
ONE_CONV: Pairs = (("convs.0.conv", "conv1"), ("convs.0.norm", "bn1"))
THREE_CONVS: Pairs = (
    ("convs.0.conv", "conv1.0"),
    ("convs.0.norm", "conv1.1"),
    ("convs.1.conv", "conv1.3"),
    ("convs.1.norm", "conv1.4"),
    ("convs.2.conv", "conv1.6"),
    ("convs.2.norm", "bn1"),
)
PLAIN: Pairs = (("conv", "conv{n}"), ("norm", "bn{n}"))
NESTED: Pairs = (("conv", "conv{n}.conv"), ("norm", "conv{n}.bn"))
RES2: Pairs = (("convs.{i}.conv", "convs.{i}"), ("convs.{i}.norm", "bns.{i}"))
SELECTIVE: Pairs = (
    ("branches.{i}.conv", "conv{n}.paths.{i}.conv"),
    ("branches.{i}.norm", "conv{n}.paths.{i}.bn"),
    ("attention.fc1", "conv{n}.attn.fc_reduce"),
    ("attention.norm", "conv{n}.attn.bn"),
    ("attention.fc2", "conv{n}.attn.fc_select"),
)
SPLIT: Pairs = (
    ("split.conv", "conv{n}.conv"),
    ("split.norm", "conv{n}.bn0"),
    ("attention.fc1", "conv{n}.fc1"),
    ("attention.norm", "conv{n}.bn1"),
    ("attention.fc2", "conv{n}.fc2"),
)
SQUEEZE: Pairs = (("fc1", "se.fc1"), ("fc2", "se.fc2"))
DOWN: Pairs = (("conv", "downsample.0"), ("norm", "downsample.1"))
DOWN_AFTER_POOL: Pairs = (("conv", "downsample.1"), ("norm", "downsample.2"))


@dataclass(frozen=True)
class Layout:
    """The names of one package: a table for every choice it has names for.

    `around` overrides, for a transform, the names of the convolutions before and behind it. `head` is the name of the
    classifier; `prefix` stands before all other names. Tensors whose names begin with one of `ignored` are of something
    else in the same file, such as a teacher, and are left out.
    """

    name: str
    stems: Mapping[type, Pairs]
    transforms: Mapping[type, Pairs]
    shortcuts: Mapping[type, Pairs]
    gates: Mapping[type, Pairs] = field(default_factory=lambda: {gates.NoGate: ()})
    around: Mapping[type, Pairs] = field(default_factory=dict)
    head: str = "fc"
    prefix: str = ""
    ignored: tuple[str, ...] = ()


IMAGENET_STEMS: Mapping[type, Pairs] = {stems.Conv7x7: ONE_CONV, stems.Deep: THREE_CONVS}
