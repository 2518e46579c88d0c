"""The kinds of annotation. Data sets are asked for by the kind that is needed, not by what will be trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from resurge.errors import UserError, suggest

Annotation = Literal["labels", "maps", "boxes", "masks"]
"""What the data say of an image: one class; a class per pixel; objects with boxes; objects with boxes and masks."""

ANNOTATIONS: tuple[Annotation, ...] = get_args(Annotation)

Words = Mapping[Annotation, str]
"""How messages call the choice of an annotation, for example "--task detect" for boxes."""

WORDS: Words = {annotation: f"annotation={annotation!r}" for annotation in ANNOTATIONS}


def require_annotation(annotation: str) -> None:
    """Raises UserError when there is no such kind of annotation."""
    if annotation not in ANNOTATIONS:
        raise UserError(
            f"unknown annotation {annotation!r}; use one of {', '.join(ANNOTATIONS)}.{suggest(annotation, ANNOTATIONS)}"
        )
