"""A mended copy of a data set's annotations: what `checks` found is cut, removed or set to "ignored".

Only annotation, mask and list files are written; the images stay where they are. The copy appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from resurge.data.formats import FORMATS
from resurge.data.mending import Look, Mending
from resurge.errors import UserError

_COPIED = ("classes.txt", "labels.txt", "obj.names", "objectInfo150.txt", "sceneCategories.txt", "data.yaml",
           "data.yml", "dataset.yaml", "dataset.yml")  # fmt: skip


def mend(look: Look, out: str | os.PathLike[str]) -> list[str]:
    """Write a mended copy of the annotations of `look` into the new or empty folder `out`: what was changed, a line
    per file, and last what to do with the copy.

    Boxes are cut to their images; objects without area, outside, of unknown categories or with masks that do not fit
    are removed, as are images that are missing or cannot be read, and training images that validation or test has too
    (where lists or one file per part say what is in it); indices out of range are set to the ignored one.

    Raises:
        UserError: `out` has something in it, or cannot be written.
    """
    target, source = Path(out).expanduser(), look.source
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} is there already and not empty. Name a new folder for the mended annotations.")
    format = FORMATS[source.format]
    if target.resolve().is_relative_to(source.root.resolve()) and format.searched:
        raise UserError(
            f"{target} lies inside {source.root}, where it would become part of the data. Name another folder."
        )
    if format.write is None:
        raise UserError(f"annotations in the format {source.format} cannot be mended. Correct them by hand.")
    with _whole(target) as place:
        mending = Mending(look, place)
        format.write(mending)
        for name in _COPIED:
            if (source.root / name).is_file() and not (place / name).exists():
                shutil.copyfile(source.root / name, place / name)
    lines = [f"{name}: {', '.join(f'{count} {what}' for what, count in counted.items())}"
             for name, counted in sorted(mending.changes.items()) if counted]  # fmt: skip
    if not lines:
        lines = ["nothing needed mending; the annotations were copied as they are"]
    names = {Path(record.name).parent.as_posix() for records in source.parts.values() for record in records}
    folders = sorted({name.split("/")[0] for name in names if not name.startswith("/")} - {"."})
    beside = ", ".join(f"{name}/" for name in folders[:4]) + (" and others" if len(folders) > 4 else "")
    return [*lines, f"the images were not copied: put those of {source.root} ({beside or 'beside the annotations'}) or "
                    f"links to them into {target} to use it"]  # fmt: skip


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A temporary neighbour of `target` that becomes `target` when the block ends well, and is removed otherwise."""
    place: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
        yield place
        umask = os.umask(0)
        os.umask(umask)
        place.chmod(0o777 & ~umask)
        if target.is_dir():
            target.rmdir()
        os.replace(place, target)
        place = None
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}. Free some space or choose another place."
        ) from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
