"""The kinds of annotation. A data set is opened by the kind that is needed, not by the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Annotation = Literal["labels", "maps", "boxes", "masks"]
"""What is annotated per image: one class; a class per pixel; objects with boxes; objects with boxes and masks."""

ANNOTATIONS: tuple[Annotation, ...] = get_args(Annotation)

Words = Mapping[Annotation, str]
"""How messages call the choice of an annotation, for example "--task detect" for boxes."""

WORDS: Words = {annotation: f"annotation={annotation!r}" for annotation in ANNOTATIONS}
