"""The names of MoCo's checkpoints (arXiv:1911.05722): torchvision's, inside the query encoder of a wrapped model.

Source: `main_moco.py` and `moco/builder.py` of the authors. The file also holds the key encoder and the queue.
"""

from __future__ import annotations

from resurge.arch import shortcuts, stems, transforms
from resurge.weights.layouts.tables import DOWN, ONE_CONV, PLAIN, Layout

ENCODER = "encoder_q."  # a "module." before it is taken off by the reader

LAYOUT = Layout(
    name="moco",
    stems={stems.Conv7x7: ONE_CONV},
    transforms={transforms.Conv3x3: PLAIN},
    shortcuts={shortcuts.Projection: DOWN},
    head=f"{ENCODER}fc",
    prefix=ENCODER,
    ignored=("encoder_k.", "queue"),
)
