"""A mended copy of a data set's annotations: what `checks` found is cut, removed or set to "ignored".

Only annotation, mask and list files are written; the images stay where they are. The copy appears whole or not at all.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from resurge.data.class_names import CLASS_FILES
from resurge.data.formats import FORMATS
from resurge.data.mending import Examined, Mending
from resurge.data.paths import Place
from resurge.errors import UserError
from resurge.files import atomic_folder, require_apart, writing

_COPIED = (*CLASS_FILES, "objectInfo150.txt", "sceneCategories.txt")


def mend(data: Examined, out: Place) -> list[str]:
    """Write a mended copy of the annotations of `data` into the new or empty folder `out`: what was changed, a line
    per file, and last what to do with the copy.

    What training changes when it reads the annotations is written so: scaled, turned, joined. Boxes are cut to their
    images; objects without area, outside, of unknown categories or with masks that do not fit
    are removed, as are images that are missing or cannot be read, and training images that validation or test has too
    (where lists or one file per part say what is in it); indices out of range are set to the ignored one.

    Raises:
        UserError: `out` has something in it, lies inside the data, or cannot be written; or the data names files
            outside its folder.
    """
    target, source = Path(out).expanduser(), data.source
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} is there already and not empty. Name a new folder for the mended annotations.")
    require_apart(target, (source.root,), "--fix")
    stray = next((found for found in source.findings if found.kind == "outside"), None)
    if stray is not None:  # a copy of such a file would be written outside the copy
        raise UserError(stray.stop)
    hint = "Free some space or choose another place."
    with writing(target, hint), atomic_folder(target, hint=hint) as place:
        mending = Mending(data, place)
        FORMATS[source.format].write(mending)
        for file in (found for name in _COPIED for found in (source.root / name, *source.root.glob(f"*/{name}"))):
            copy = place / file.relative_to(source.root)
            if file.is_file() and copy.parent.is_dir() and not copy.exists():
                shutil.copyfile(file, copy)
    lines = [f"{name}: {', '.join(f'{count} {what}' for what, count in counted.items() if count)}"
             for name, counted in sorted(mending.changes.items()) if counted.total()]  # fmt: skip
    if not lines:
        lines = ["nothing needed mending; the annotations were copied as they are"]
    names = {Path(record.name).parent.as_posix() for records in source.parts.values() for record in records}
    folders = sorted({name.split("/")[0] for name in names if not name.startswith("/")} - {"."})
    beside = ", ".join(f"{name}/" for name in folders[:4]) + (" and others" if len(folders) > 4 else "")
    return [*lines, f"the images were not copied: put those of {source.root} ({beside or 'beside the annotations'}) or "
                    f"links to them into {target} to use it"]  # fmt: skip
