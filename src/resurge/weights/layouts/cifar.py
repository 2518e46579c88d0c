"""The names of the CIFAR ResNets. Source: akamaster/pytorch_resnet_cifar10 `resnet.py`."""

from __future__ import annotations

from resurge.arch import shortcuts, stems, transforms
from resurge.weights.layouts.tables import ONE_CONV, PLAIN, Layout

LAYOUT = Layout(
    name="cifar",
    stems={stems.Conv3x3: ONE_CONV},
    transforms={transforms.Conv3x3: PLAIN},
    shortcuts={shortcuts.ZeroPad: (), shortcuts.Projection: (("conv", "shortcut.0"), ("norm", "shortcut.1"))},
    head="linear",
)
