"""Paths of the user, folders and the images in them, files of lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from resurge.data.images import ending, is_image_name
from resurge.errors import UserError, suggest
from resurge.untrusted import read_bytes

Place = str | os.PathLike[str]
T = TypeVar("T")

PARTS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The parts of a data set, and the names that folders and files of them have, in lower case."""

PART_OF = {name: part for part, names in PARTS.items() for name in names}

_SIDECARS = frozenset(
    (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".ini", ".db", ".py", ".log",
     ".pdf", ".npy", ".npz", ".sha256", ".md5")
)  # fmt: skip
_SIDECAR_NAMES = frozenset(("license", "licence", "readme", "checksums", "desktop.ini", "thumbs.db"))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's or a version control's business, not an image."""
    return name.startswith((".", "__")) or name.lower() in ("@eadir", "$recycle.bin", "lost+found")


def is_sidecar(name: str) -> bool:
    """Whether a file of this name may lie beside images (notes, annotations) and is passed over without a word."""
    return ending(name) in _SIDECARS or name.lower() in _SIDECAR_NAMES or is_hidden(name)


def user_path(place: Place) -> Path:
    """What the user calls a file or folder as a path, with `~` resolved. Raises UserError when it is empty, too long,
    or begins with the `~` of an unknown user."""
    text = os.fspath(place)
    if not text.strip():
        raise UserError("an empty name was given for the data. Expected a folder of images, a .csv file, or digits.")
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        shown = text if len(text) <= 100 else f"{text[:100]}…"
        raise UserError(f"{shown!r} is no path: {getattr(error, 'strerror', None) or error}. Check it.") from error
    return path


def require_folder(folder: Path) -> None:
    """Raises UserError when `folder` is missing, no folder, or may not be listed."""
    if not folder.exists():
        above = folder.parent
        siblings = [item.name for item in above.iterdir()] if above.is_dir() and os.access(above, os.R_OK) else []
        raise UserError(f"there is no folder {folder}.{suggest(folder.name, siblings)} Check the path.")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; expected a folder of images, or a .csv file with paths and labels.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"the folder {folder} may not be read by this user. Change its permissions (chmod +rx).")


def subfolders(folder: Path) -> list[str]:
    """Names of the folders directly in `folder`, sorted, hidden ones left out."""
    require_folder(folder)
    return sorted(item.name for item in folder.iterdir() if item.is_dir() and not is_hidden(item.name))


def by_part(find: Callable[[str], T | None]) -> dict[str, T]:
    """What `find` gives for the first of a part's names that it gives something for, by part."""
    found = ((part, next((value for name in names if (value := find(name))), None)) for part, names in PARTS.items())
    return {part: value for part, value in found if value is not None}


def slashed(folders: Iterable[str]) -> str:
    """Folders in a message: "train/, val/"."""
    return ", ".join(f"{folder}/" for folder in folders)


def find_images(root: Path, below: str) -> tuple[list[str], list[str]]:
    """(images, ignored) in root/below and all folders under it, as sorted paths relative to `root` with slashes.

    Symbolic links are followed, each real folder once. Raises UserError when a folder may not be listed."""

    def fail(error: OSError) -> None:
        raise UserError(f"the folder {error.filename} cannot be listed: {error.strerror}. Change its permissions.")

    images: list[str] = []
    ignored: list[str] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(root / below, followlinks=True, onerror=fail):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back up would go round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        relative = Path(place).relative_to(root)
        for name in files:
            if is_image_name(name) and not is_hidden(name):
                images.append((relative / name).as_posix())
            elif not is_sidecar(name):
                ignored.append((relative / name).as_posix())
    return sorted(images), sorted(ignored)


def read_file(file: Path) -> bytes:
    """The content of a file. Raises UserError when it cannot be read."""
    try:
        return read_bytes(file)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}. Check the path.") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}. Give a file that you may read.") from error


def read_lines(file: Path) -> list[str]:
    """The lines of a text file in UTF-8, blanks about them and empty ones left out. Names of files may be no text."""
    lines = read_file(file).decode("utf-8-sig", "surrogateescape").split("\n")
    return [line.strip() for line in lines if line.strip()]


def present(root: Path, names: Iterable[str]) -> set[str]:
    """Those of `names` (below `root`, or absolute) that are files; each folder is listed once."""
    listed: dict[Path, set[str]] = {}
    found = set()
    for name in names:
        path = root / name
        if path.parent not in listed:
            try:
                listed[path.parent] = {item.name for item in os.scandir(path.parent) if item.is_file()}
            except (OSError, ValueError):
                listed[path.parent] = set()
        if path.name in listed[path.parent]:
            found.add(name)
    return found


def below(root: Path, path: Path) -> str:
    """`path` as seen from `root`, with slashes; absolute when it lies elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()


def leads_out(name: str, *folders: Path) -> bool:
    """Whether the name of a file, as an annotation has it, leads out of all these folders; it is relative to the first.
    A symbolic link in a folder is its owner's own and may lead anywhere."""
    if not Path(name).is_absolute() and ".." not in Path(name).parts:
        return False
    path = Path(os.path.normpath((folders[0] / name).absolute()))
    return not any(path.is_relative_to(os.path.normpath(folder.absolute())) for folder in folders)
