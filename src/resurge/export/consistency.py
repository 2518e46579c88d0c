"""Whether an exported network has the same outputs in two processes on one machine."""

from __future__ import annotations

import numpy as np

from resurge.export.fidelity import Outputs, largest_difference
from resurge.export.fidelity_objects import ObjectComparison
from resurge.files import Json
from resurge.tasks.detect.predict import Found, Suppression, found_in

# What is let pass is arithmetic whose order may differ: of a logit as a share of the largest one, of a probability or
# score as it is, of a box as a share of the image's longer side.
APART = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 2e-2, "int8": 5e-2}
# Where two classes are equally likely, and at thresholds of scores and overlaps, the last digit decides.
SAME_PIXELS = {"fp32": 0.999, "bf16": 0.95, "fp16": 0.98, "int8": 0.95}
SAME_OBJECTS = 0.9
SAME_MASK = 0.9


def differing(here: Outputs, alone: Outputs, precision: str, made: Json, sizes: np.ndarray | None = None) -> str | None:
    """What differs between the outputs of two processes for the same images, in words; None where nothing does.

    Args:
        made: the `export` part of model.json.
        sizes: of a detector's images (N, 2), without their padding.
    """
    shapes = [{name: values.shape for name, values in outputs.items()} for outputs in (here, alone)]
    if "boxes" in here and sizes is not None:
        if list(shapes[0]) != list(shapes[1]):
            return f"it puts out {', '.join(shapes[1])}, not {', '.join(shapes[0])}"
        return _objects(here, alone, APART[precision], made, sizes)
    if shapes[0] != shapes[1]:
        return f"it puts out {shapes[1]}, not {shapes[0]}"
    for name, values in here.items():
        if name == "classes":
            same = float((values == alone[name]).mean())
            if same < SAME_PIXELS[precision]:
                return f"{100 * (1 - same):.3g} % of the pixels are of another class"
            continue
        peak = max(float(values.max()), -float(values.min()), 1e-6)
        apart = largest_difference(values, alone[name])
        if not apart <= APART[precision] * peak:  # so that what is no number fails
            return f"{name} are {apart:.3g} apart, with outputs up to {peak:.3g}"
    return None


def _objects(here: Outputs, alone: Outputs, limit: float, made: Json, sizes: np.ndarray) -> str | None:
    """Objects are matched: their order is that of scores, of which two may be as good as equal."""
    rest = Suppression.of(made)
    if rest is not None:
        here, alone = rest(here), rest(alone)
    found = ObjectComparison(sure=0.0)
    for row, (height, width) in enumerate(sizes.tolist()):
        size = (height, width)
        ours, theirs = (_with_area(found_in(outputs, row, size, size)) for outputs in (here, alone))
        found.add(ours, theirs, size, None)
    if found.agreement is not None and found.agreement < SAME_OBJECTS:
        return f"{found.before} objects here and {found.after} there, of which {found.kept} are the same"
    if found.score > limit:
        return f"scores of objects are {found.score:.3g} apart"
    if found.box > limit * float(sizes.max()):
        return f"boxes of objects are {found.box:.3g} pixels apart"
    if found.mask is not None and found.mask < SAME_MASK:
        return f"masks of an object overlap by {found.mask:.3g}"
    return None


def _with_area(found: Found) -> Found:
    """Without boxes that have no side, which overlap with nothing, not even with themselves."""
    rows = np.flatnonzero((found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1))
    masks = None if found.masks is None else [found.masks[row] for row in rows]
    return Found(found.boxes[rows], found.scores[rows], found.labels[rows], masks)
