"""What the values of masks mean: decided once for a data set, by a table of classes or by the values that occur.

The rules, where nothing but values is known: two values, 0 and any other, are background and foreground; so are 0 and 1
beside 255, which is ignored; 0, 1, 2, … without gaps are classes, and 255 beside them is ignored. Anything else is an
error that shows the values and says how to name them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resurge.data.class_names import ClassTable
from resurge.data.findings import some
from resurge.data.images import StoredMask, UnreadableImage, read_mask
from resurge.data.splits import IGNORE
from resurge.errors import UserError
from resurge.files import Json
from resurge.quantities import number_of

UNKNOWN = -1
"""The index of a value or colour that means nothing."""

_SOFT = 8
"""More values than this with gaps between them are taken for soft edges, and not for classes that are not numbered."""
_MANY = 64
"""More classes than this have to be named: as many values without gaps are more likely grey levels."""


@dataclass(frozen=True)
class Coding:
    """What values mean: `indices[value]` is a class or IGNORE; any other value is unknown, but 255 is ignored.

    colours: the values are colours, red * 65536 + green * 256 + blue. threshold: values from here on are class 1,
    others class 0, whatever `indices` says.
    """

    indices: Mapping[int, int]
    colours: bool = False
    threshold: int | None = None

    def labels(self, mask: StoredMask) -> np.ndarray:
        """int16, of the shape of its values: class indices, IGNORE and UNKNOWN."""
        values = mask.values
        if self.threshold is not None:
            return np.asarray(values >= self.threshold, dtype=np.int16)
        if self.colours:
            labels = self._of(mask.as_colours())
            if mask.palette is not None:
                labels[(labels == UNKNOWN) & (values == IGNORE)] = IGNORE
            return labels
        return np.full(values.shape, UNKNOWN, dtype=np.int16) if mask.coloured else self._of(values)

    def _of(self, values: np.ndarray) -> np.ndarray:
        usual = {} if self.colours or IGNORE in self.indices else {IGNORE: IGNORE}
        known = dict(sorted({**self.indices, **usual}.items()))
        keys, targets = (np.array(list(each), dtype=np.int32) for each in (known.keys(), known.values()))
        if not self.colours:
            table = np.full(max(256, int(keys[-1]) + 2), UNKNOWN, dtype=np.int16)
            table[keys] = targets
            return np.asarray(table[values if values.dtype == np.uint8 else np.minimum(values, len(table) - 1)])
        at = np.searchsorted(keys, values).clip(max=len(keys) - 1)
        return np.where(keys[at] == values, targets[at], UNKNOWN).astype(np.int16)

    def moved(self, to: Sequence[int]) -> Coding:
        """The coding whose class i is `to[i]`."""
        return replace(self, indices={value: i if i == IGNORE else to[i] for value, i in self.indices.items()})

    def shown(self, value: int) -> str:
        """A value as users write it: 128, or #20b7fa."""
        return f"#{value:06x}" if self.colours else str(value)

    def to_json(self, names: Sequence[str]) -> Json:
        """What a run keeps: the name of the class of each value, None for what is ignored."""
        return {self.shown(value): None if index == IGNORE else names[index] for value, index in self.indices.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, str | None], names: Sequence[str]) -> Coding:
        """What `to_json` gave. Raises ValueError when it has other classes."""
        order = list(names)
        indices = {
            int(text[1:], 16) if text.startswith("#") else int(text): IGNORE if name is None else order.index(name)
            for text, name in plain.items()
        }
        return cls(indices, any(text.startswith("#") for text in plain))

    def known(self) -> str:
        """ "0 to 10 and 255 (ignored)": the values that mean something."""
        classes = sorted(value for value, index in self.indices.items() if index != IGNORE)
        ignored = {value for value, index in self.indices.items() if index == IGNORE} | ({IGNORE} - set(classes))
        whole = not self.colours and classes == list(range(classes[0], classes[-1] + 1)) and len(classes) > 2
        text = f"{classes[0]} to {classes[-1]}" if whole else some(map(self.shown, classes), 8)
        if self.colours or not ignored:
            return text
        return f"{text} and {', '.join(map(str, sorted(ignored)))} (ignored)"


@dataclass(frozen=True)
class Known:
    """What a trained network, or the training part, knows: its classes, and the coding of its masks."""

    classes: tuple[str, ...]
    coding: Coding | None = None

    @property
    def table(self) -> ClassTable:
        coding = self.coding or Coding({})
        values, colours = (None, coding.indices) if coding.colours else (coding.indices, None)
        return ClassTable(self.classes, "the run", values or None, colours)


@dataclass(frozen=True)
class MaskFacts:
    """What reading a mask gave: its size (width, height), the values that occur, ascending, and how often each does."""

    size: tuple[int, int]
    stored: StoredMask
    counts: np.ndarray

    @property
    def values(self) -> list[int]:
        found: list[int] = self.stored.values.tolist()
        return found

    def coded(self, coding: Coding) -> Iterator[tuple[str, int, int]]:
        """(value as users write it, or the side of the threshold; class index or IGNORE or UNKNOWN; pixels) of each
        value that occurs."""
        values = self.stored.as_colours() if coding.colours else self.stored.values
        indices = coding.labels(self.stored)
        for value, index, count in zip(values.tolist(), indices.tolist(), self.counts.tolist(), strict=True):
            text = coding.shown(value)
            if coding.threshold is not None:
                text = f"{'below' if value < coding.threshold else 'from'} {coding.threshold}"
            yield text, index, count


def examine_mask(file: Path, lossy: bool = False) -> MaskFacts | UnreadableImage:
    """Read a mask, or why it cannot be read; with `lossy`, one in a format that changes values too."""
    try:
        mask = read_mask(file)
    except UnreadableImage as error:
        return error
    if mask.lossy and not lossy:
        message = (
            f"is a {mask.lossy}, which changes values; masks hold class indices. Save masks as PNG, or make two "
            "classes of them with --threshold 128."
        )
        return UnreadableImage("corrupt", str(file), message)
    size = (mask.values.shape[1], mask.values.shape[0])
    if mask.coloured:
        values, counts = np.unique(mask.values, return_counts=True)
    else:
        every = np.bincount(mask.values.reshape(-1))
        values = np.flatnonzero(every)
        counts = every[values]
    return MaskFacts(size, replace(mask, values=values), counts)


def find_coding(
    facts: Mapping[str, MaskFacts], table: ClassTable | None, threshold: int | None, where: str, trained: bool = False
) -> tuple[tuple[str, ...], Coding]:
    """The classes of a data set and the coding of its masks, of which `facts` has those that can be read, by name.

    With `trained`, the table is that of a trained network, whose two classes other data may have other values for.

    Raises:
        UserError: they cannot be told; the message shows the values and says what to do.
    """
    masks = _Masks(facts, where)
    if threshold is not None:
        names = ("background", "foreground") if table is None else table.names
        if len(names) != 2:
            shown = ", ".join(names[:6])
            raise UserError(f"--threshold makes two classes of the masks of {where}; there are {len(names)}: {shown}.")
        if masks.coloured:
            raise UserError(f"{masks.coloured[0]} holds colours, which have no threshold. Leave --threshold out.")
        if len(masks.values) > 1 and not masks.values[0] < threshold <= masks.values[-1]:
            side = f"below the threshold of {threshold}" if threshold <= masks.values[0] else f"from {threshold} on"
            remedy = f"Give a --threshold above {masks.values[0]}, and of {masks.values[-1]} at most."
            raise masks.refused(f"have no value {side}, where --threshold divides them", remedy)
        return names, Coding({0: 0, threshold: 1}, threshold=threshold)
    if table is not None and len(table.names) > IGNORE:
        raise UserError(f"{table.where} has {len(table.names)} classes; at most 255 can be in label maps.")
    if table is not None and table.colours is not None and masks.in_colours(table.colours):
        return table.names, Coding(table.colours, colours=True)
    if masks.coloured:
        raise masks.refused_colours(table)
    if table is None:
        return _counted(masks)
    indices = table.values
    two = len(table.names) == 2 and [value for value in masks.values if value]
    if two and len(two) == 1 and 0 in masks.values and (indices is None or (trained and two[0] not in indices)):
        indices = {0: 0, two[0]: 1}
    elif indices is None:
        indices = {index: index for index in range(len(table.names))}
    if IGNORE not in indices:
        masks.require_clear_255()
        if IGNORE in masks.values:
            indices = {**indices, IGNORE: IGNORE}
    return table.names, Coding(indices)


def _counted(masks: _Masks) -> tuple[tuple[str, ...], Coding]:
    """Classes by the values that occur."""
    values = masks.values
    classes = [value for value in values if value != IGNORE]
    if len(values) == 1:
        remedy = "Add masks with more, or name the classes with --classes or in classes.txt."
        raise masks.refused(f"hold the value {values[0]} only, so that there is nothing to tell apart", remedy)
    if len(values) == 2 and values[0] == 0:
        return ("background", "foreground"), Coding({0: 0, values[1]: 1})
    first = classes[0]
    gaps = first > 1 or classes != list(range(first, first + len(classes))) or len(classes) < 2
    if len(classes) > (_SOFT if gaps else _MANY):
        raise masks.refused("look like grey levels, as antialiased or compressed masks have them, or count objects")
    if gaps:
        raise masks.refused("have gaps, so that it is open what they mean")
    if palette := masks.palettes_that_differ():
        raise masks.refused(f"are indices into palettes that differ between the files ({palette})")
    masks.require_clear_255()
    ignored = {IGNORE: IGNORE} if IGNORE in values else {}
    names = ("background", "foreground") if classes == [0, 1] else tuple(f"class {value}" for value in classes)
    return names, Coding({value: value - first for value in classes} | ignored)


class _Masks:
    """The masks of a data set as a whole, for the rules and their messages."""

    def __init__(self, facts: Mapping[str, MaskFacts], where: str) -> None:
        self.facts, self.where = facts, where
        self.coloured = [name for name, found in facts.items() if found.stored.coloured]
        self.counts: Counter[int] = Counter()
        for found in facts.values():
            if not found.stored.coloured:
                self.counts.update(dict(zip(found.values, found.counts.tolist(), strict=True)))
        self.values = sorted(self.counts)

    def in_colours(self, colours: Collection[int]) -> bool:
        """Whether colours say what is what: some masks are coloured, or all their palettes and greys are of these."""
        coding = Coding(dict.fromkeys(colours, 0), colours=True)
        return bool(self.coloured) or all((coding.labels(each.stored) != UNKNOWN).all() for each in self.facts.values())

    def palettes_that_differ(self) -> str:
        """A value that has several colours, in words; "" for none."""
        seen: dict[int, int] = {}
        for found in self.facts.values():
            if found.stored.palette is None:
                continue
            for value, colour in zip(found.values, found.stored.as_colours().tolist(), strict=True):
                if seen.setdefault(value, colour) != colour:
                    return f"{value} is #{seen[value]:06x} and #{colour:06x}"
        return ""

    def require_clear_255(self) -> None:
        """Raises UserError when 255 may as well be a class: it stands alone with 0 wherever it occurs."""
        holds = {name: found.values for name, found in self.facts.items() if IGNORE in found.values}
        if holds and all(set(values) <= {0, IGNORE} for values in holds.values()):
            two = len(self.values) == 3 and self.values[:2] == [0, 1]
            raise self.refused(
                f"have 255 with nothing but 0 in {number_of(len(holds), 'file')} ({next(iter(holds))}), "
                "so that it may be a class there, or pixels to ignore",
                "Say which: --classes 0=background,1=name,255=name or --threshold 1 where both are the same class, "
                "--classes 0=background,1=name,255=ignore where not." if two else
                "Say which with --classes: 255=name, or 255=ignore, and the other values too.",
            )  # fmt: skip

    def refused(self, what: str, remedy: str = "") -> UserError:
        """The error about values whose meaning is open."""
        listed = [f"{value}={'background' if value == 0 else f'name{at}'}" for at, value in enumerate(self.values[:3])]
        middle = max((self.values[0] + self.values[-1] + 1) // 2, 1)
        remedy = remedy or (
            f"Name the values (--classes {','.join(listed)}{',…' if len(self.values) > 3 else ''}; =ignore for pixels "
            f"that do not count), or make two classes of them (--threshold {middle})."
        )
        return UserError(
            f"the masks of {self.where} {what}: {self._shares()}. Expected 0 and one other value, or 0, 1, 2, … for "
            f"the classes, with 255 for pixels to ignore. {remedy}"
        )

    def _shares(self) -> str:
        """ "0 (81.2 %), 255 (14.0 %) and 127 others (4.8 %)"."""
        total = max(self.counts.total(), 1)
        chosen = self.values if len(self.values) <= _SOFT else [value for value, _ in self.counts.most_common(4)]
        shown = ", ".join(f"{value} ({self.counts[value] / total:.1%})" for value in chosen)
        rest = [count for value, count in self.counts.items() if value not in chosen]
        return shown + (f" and {len(rest)} others ({sum(rest) / total:.1%})" if rest else "")

    def refused_colours(self, table: ClassTable | None) -> UserError:
        first = self.facts[self.coloured[0]]
        order = np.argsort(-first.counts)
        shown = some((f"#{value:06x} ({', '.join(map(str, value.to_bytes(3, 'big')))})"
                      for value in first.stored.values[order].tolist()), 4)  # fmt: skip
        named = "" if table is None else f"; {table.where} names classes but no colours"
        return UserError(
            f"the masks of {self.where} hold colours, not class indices ({self.coloured[0]} has {len(order):,}: "
            f"{shown}){named}. Add a "
            "file that says which colour is which class: labelmap.txt with lines such as crack:250,50,83:: (as CVAT "
            "writes it), label_colors.txt or class_dict.csv; or name them: --classes '#000000=sky,#fa3253=crack'."
        )


def look_like_ids(files: Sequence[Path]) -> bool:
    """Whether values number the objects of each mask rather than classes: 1 to n in each, for an n that varies and
    reaches 3, and each value one connected region. Looks at 24 masks at most."""
    from scipy import ndimage

    counts: list[int] = []
    whole = parts = strange = 0
    for file in files[:: max(1, len(files) // 24)][:24]:
        try:
            mask = read_mask(file)
        except UnreadableImage:
            continue
        values = np.unique(mask.values)
        values = values[values > 0]
        if mask.coloured or values.tolist() != list(range(1, len(values) + 1)):
            strange += 1
            if strange > 2:
                return False
            continue
        counts.append(len(values))
        for value, place in enumerate(ndimage.find_objects(mask.values), 1):
            regions = ndimage.label(mask.values[place] == value, np.ones((3, 3)))[1]
            whole, parts = whole + (regions == 1), parts + 1
    return len(set(counts)) > 1 and max(counts) >= 3 and whole * 10 >= parts * 9
