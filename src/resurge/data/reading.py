"""How the user wants a data set to be read, where its files leave it open. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from resurge.config import Section, option
from resurge.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Reading(Section):
    """What the files of a data set cannot say, or say otherwise than the user means it. Kept in the recipe, so that a
    run's data is always read in the same way.

    Raises:
        UserError: a value that does not fit; names the field.
    """

    classes: tuple[str, ...] = option(
        (),
        "class names in the order of their indices, or a file of them (classes.txt); of masks also with values: "
        "0=background,128=crack,255=ignore; empty: what the data says",
    )
    rename: tuple[str, ...] = option((), "classes to call otherwise, or to join, as old=new")
    threshold: int | None = option(
        None,
        "segment: mask values from here on are the second of two classes, others the first; null: as they are",
        low=1,
        high=65535,
    )
    exif: str | None = option(
        None,
        "what an EXIF orientation turns: pictures alone, as the annotations are of upright pictures already, or "
        "annotations too, as they are of the stored pixels; null: what their sizes say",
        choices=("pictures", "annotations"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for pair in self.rename:
            old, separator, new = pair.partition("=")
            if not separator or not old.strip() or not new.strip():
                raise UserError(f"rename takes old=new (for example rename=[nucleus=cell]), not {pair!r}.")

    @property
    def new_names(self) -> dict[str, str]:
        """What classes are to be called otherwise, by their old names."""
        return {old.strip(): new.strip() for old, _, new in (pair.partition("=") for pair in self.rename)}


AS_IT_IS = Reading()
"""As the files have it."""
