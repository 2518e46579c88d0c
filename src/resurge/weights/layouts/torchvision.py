"""torchvision's names of its classifiers. Source: torchvision `models/resnet.py`."""

from __future__ import annotations

from resurge.arch import shortcuts, stems, transforms
from resurge.weights.layouts.tables import DOWN, ONE_CONV, PLAIN, Layout

LAYOUT = Layout(
    name="torchvision",
    stems={stems.Conv7x7: ONE_CONV},
    transforms={transforms.Conv3x3: PLAIN},
    shortcuts={shortcuts.Projection: DOWN},
)
