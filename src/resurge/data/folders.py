"""Folders with one subfolder of images a class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from resurge.data.bundle import FileImages, Split
from resurge.data.images import MAX_PIXELS, ending, is_image_name
from resurge.errors import UserError, suggest

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", "testing")

SIDECARS = frozenset(
    (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".ini", ".db", ".py", ".log",
     ".pdf", ".npy", ".npz", ".sha256", ".md5")
)  # fmt: skip
"""Endings of files that may lie beside images and are passed over without a word."""

_SIDECAR_NAMES = frozenset(("license", "licence", "readme", "checksums", "desktop.ini", "thumbs.db"))


@dataclass(frozen=True)
class Listing:
    """Image files by class, paths relative to the root and sorted; `ignored` are files of unknown kind."""

    root: Path
    files: dict[str, tuple[str, ...]]
    ignored: tuple[str, ...]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's or a version control's business, not an image."""
    return name.startswith((".", "__")) or name.lower() in ("@eadir", "$recycle.bin", "lost+found")


def is_sidecar(name: str) -> bool:
    """Whether a file of this name is a known companion of images (notes, annotations), and no image."""
    lower = name.lower()
    return ending(name) in SIDECARS or lower in _SIDECAR_NAMES or is_hidden(name)


def user_path(place: str | os.PathLike[str]) -> Path:
    """What the user calls a file or folder as a path, with `~` resolved.

    Raises:
        UserError: it is empty, longer than any file's name, or begins with the `~` of an unknown user.
    """
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


def find_images(root: Path, below: str) -> tuple[list[str], list[str]]:
    """(images, ignored) in root/below and all folders under it, as sorted paths relative to `root` with slashes.

    Symbolic links are followed, each real folder once.

    Raises:
        UserError: a folder may not be listed.
    """

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
            if is_hidden(name):
                continue
            if is_image_name(name):
                images.append((relative / name).as_posix())
            elif not is_sidecar(name):
                ignored.append((relative / name).as_posix())
    return sorted(images), sorted(ignored)


def list_classes(root: Path, below: str = "") -> Listing:
    """The class folders of root/below; classes without images are kept, with no files.

    Raises:
        UserError: the folder is missing, may not be read, or has no class folders.
    """
    folder = root / below
    names = subfolders(folder)
    if not names:
        images, _ = find_images(root, below)
        if images:
            raise UserError(
                f"{folder} has {len(images)} images but no class folders. Expected one subfolder a class, such as "
                f"{folder.name}/cat/*.jpg and {folder.name}/dog/*.jpg, or a .csv file with the columns path and label."
            )
        raise UserError(f"{folder} is empty. Expected one subfolder a class with images in it.")
    files: dict[str, tuple[str, ...]] = {}
    ignored: list[str] = [
        (Path(below) / item.name).as_posix()
        for item in sorted(folder.iterdir())
        if item.is_file() and not is_sidecar(item.name)
    ]
    for name in names:
        images, others = find_images(root, (Path(below) / name).as_posix())
        files[name] = tuple(images)
        ignored.extend(others)
    if not any(files.values()):
        raise UserError(f"{folder} has no image in any of its {len(names)} folders. Expected files such as cat/1.jpg.")
    return Listing(root, files, tuple(ignored))


def split_folders(root: Path) -> dict[str, str]:
    """Which subfolders of `root` hold the splits: {"train": "train", "val": "valid", ...}; {} for class folders.

    A folder counts as a split only when it has class folders in it, so that a class may be called "train".

    Raises:
        UserError: there are only folders such as train/ and val/, with images but no class folders in them; or there
            is a split train/ beside a val/ without class folders.
    """
    found: dict[str, str] = {}
    by_lower = {name.lower(): name for name in subfolders(root)}
    for split, options in (("train", TRAIN_NAMES), ("val", VAL_NAMES), ("test", TEST_NAMES)):
        for option in options:
            name = by_lower.get(option)
            if name is not None and split not in found and subfolders(root / name):
                found[split] = name
    used = set(found.values())
    flat = [name for lower, name in by_lower.items() if lower in (*TRAIN_NAMES, *VAL_NAMES) and name not in used]
    only_splits = all(lower in (*TRAIN_NAMES, *VAL_NAMES, *TEST_NAMES) for lower in by_lower)
    if flat and (found or only_splits):
        raise UserError(
            f"{root / flat[0]} has no class folders. Expected one subfolder a class, such as {flat[0]}/cat/*.jpg."
        )
    return found


def to_split(listing: Listing, classes: tuple[str, ...], what: str, max_pixels: int = MAX_PIXELS) -> Split:
    """The images of `listing` with labels that are indices into `classes`.

    Raises:
        UserError: the listing has images of a class that `classes` lacks.
    """
    index = {name: i for i, name in enumerate(classes)}
    unknown = [name for name, files in listing.files.items() if files and name not in index]
    if unknown:
        raise UserError(
            f"{what} has the class {unknown[0]!r}{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''} that "
            f"training does not have ({', '.join(classes[:6])}{', …' if len(classes) > 6 else ''})."
            f"{suggest(unknown[0], classes)} Rename or remove it, or add training images of it."
        )
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = listing.files.get(name, ())
        names.extend(files)
        labels.extend([label] * len(files))
    return Split(tuple(names), tuple(labels), FileImages(listing.root, tuple(names), max_pixels))


def require_full_classes(listing: Listing, what: str) -> tuple[str, ...]:
    """The class names, sorted.

    Raises:
        UserError: a class folder has no images.
    """
    empty = [name for name, files in listing.files.items() if not files]
    if empty:
        raise UserError(
            f"{what}: the class folder{'s' if len(empty) > 1 else ''} {', '.join(map(repr, empty[:5]))} "
            f"ha{'ve' if len(empty) > 1 else 's'} no images. Put images there or remove the folder."
        )
    return tuple(sorted(listing.files))
