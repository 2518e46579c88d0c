"""Paths of the user, folders and the images in them, files of lines."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from resurge.data.images import ending, is_image_name
from resurge.errors import UserError, suggest
from resurge.untrusted import open_regular, read_bytes

Place = str | os.PathLike[str]
T = TypeVar("T")

PARTS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The parts of a data set, and the names that folders and files of them have, in lower case."""

PART_OF = {name: part for part, names in PARTS.items() for name in names}

IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "leftimg8bit")
ANNOTATION_FOLDERS = ("annotations", "annotation", "masks", "mask", "labels", "label", "gt", "gtfine", "segmentation",
                      "segmentationclass", "ann", "ann_dir", "xml", "xmls")  # fmt: skip
"""The usual names of folders of images, and of annotations beside them, in lower case."""

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_SIDECARS = frozenset(
    (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".ini", ".db", ".py", ".log",
     ".pdf", ".npz", ".sha256", ".md5")
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


def is_archive(path: Path) -> bool:
    """Whether a file is one that others are packed in, by its name."""
    return path.suffix.lower() in _ARCHIVES and path.is_file()


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
    return sorted(item.name for item in os.scandir(folder) if item.is_dir() and not is_hidden(item.name))


def by_part(find: Callable[[str], T | None]) -> dict[str, T]:
    """What `find` gives for the first of a part's names that it gives something for, by part."""
    found = ((part, next((value for name in names if (value := find(name))), None)) for part, names in PARTS.items())
    return {part: value for part, value in found if value is not None}


def part_of(stem: str) -> str:
    """train, val or test from a file's name such as instances_train2017; "" when it says none of them."""
    words = "".join(letter if letter.isalpha() else " " for letter in stem.lower()).split()
    return next((part for part, names in PARTS.items() if any(name in words for name in names)), "")


def one_for_each_part(files: Iterable[Path], what: str) -> dict[str, Path]:
    """Files by the part that their names say; "" for all images, where none is of a part. Raises UserError when there
    are two for one part."""
    found: dict[str, Path] = {}
    for file in files:
        part = part_of(file.stem)
        if part in found:
            raise UserError(
                f"{file.parent} has two {what} for {part or 'all images'}: {found[part].name} and {file.name}. Name "
                "the one you mean as the data, or remove the other."
            )
        found[part] = file
    if len(found) > 1:
        found.pop("", None)
    return found


def part_folders(root: Path, holds: Callable[[Path], object]) -> dict[str, str]:
    """The folders in `root` that have the name of a part and hold what they should, by part."""
    by_lower = {name.lower(): name for name in subfolders(root)}
    return by_part(lambda name: by_lower[name] if name in by_lower and holds(root / by_lower[name]) else None)


def slashed(folders: Iterable[str]) -> str:
    """Folders in a message: "train/, val/"."""
    return ", ".join(f"{folder}/" for folder in folders)


def folder_of(root: Path, steps: Iterable[Iterable[str]]) -> str:
    """The folder below `root` that has one of the names (in lower case) of each step, whatever its case; "" for
    none, or for no steps."""
    place = root
    for names in steps:
        by_lower = {name.lower(): name for name in subfolders(place)}
        name = next((by_lower[name] for name in names if name in by_lower), None)
        if name is None:
            return ""
        place /= name
    return "" if place == root else below(root, place)


def walk(root: Path, below: str) -> Iterator[str]:
    """The files in root/below and all folders under it that are not hidden, as paths relative to `root` with slashes.

    Symbolic links are followed, each real folder once. Raises UserError when a folder may not be listed."""

    def fail(error: OSError) -> None:
        raise UserError(f"the folder {error.filename} cannot be listed: {error.strerror}. Change its permissions.")

    seen: set[str] = set()
    for place, folders, files in os.walk(root / below, followlinks=True, onerror=fail):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back up would go round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        relative = Path(place).relative_to(root)
        yield from ((relative / name).as_posix() for name in files)


def find_images(root: Path, below: str) -> tuple[list[str], list[str]]:
    """(images, ignored) in root/below and all folders under it, as sorted paths relative to `root` with slashes. NumPy
    arrays are images where there are no others. Raises UserError when a folder may not be listed."""
    images: list[str] = []
    ignored: list[str] = []
    for name in walk(root, below):
        last = name.rsplit("/", 1)[-1]
        if is_image_name(last) and not is_hidden(last):
            images.append(name)
        elif not is_sidecar(last):
            ignored.append(name)
    arrays = [name for name in images if ending(name) == ".npy"]
    if len(arrays) < len(images):  # beside pictures they are something else, such as features of them
        images, ignored = [name for name in images if name not in set(arrays)], ignored + arrays
    return sorted(images), sorted(ignored)


def images_in(folder: Path) -> list[str]:
    """The names of the images directly in a folder, sorted; none where there is no folder."""
    names = (item.name for item in os.scandir(folder)) if folder.is_dir() else ()
    return sorted(name for name in names if is_image_name(name) and not is_hidden(name))


def find_files(root: Path, below: str, ending: str) -> list[str]:
    """The files in root/below and all folders under it whose names have this ending, in whatever case, and are not
    hidden."""
    files = (name for name in walk(root, below) if name.lower().endswith(ending))
    return sorted(name for name in files if not is_hidden(name.rsplit("/", 1)[-1]))


def read_file(file: Path) -> bytes:
    """The content of a file. Raises UserError when it cannot be read."""
    try:
        return read_bytes(file)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}. Check the path.") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}. Give a file that you may read.") from error


def beginning(file: Path, length: int = 1 << 16) -> bytes:
    """The first bytes of a file; none when it cannot be read, or is no regular file."""
    try:
        with open_regular(file) as opened:
            return opened.read(length)
    except (OSError, ValueError):
        return b""


def text_of(data: bytes, errors: str = "replace") -> str:
    """Text in UTF-8, or UTF-16 or 32 as Windows writes them. What is not UTF-8 in it becomes surrogates, as in names of
    files. Raises UnicodeDecodeError when it is none of the others, and `errors` is "strict"."""
    encoding = json.detect_encoding(data)
    return (
        data.decode("utf-8-sig", "surrogateescape") if encoding.startswith("utf-8") else data.decode(encoding, errors)
    )


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, blanks about them and empty ones left out. Names of files may be no text."""
    lines = text_of(read_file(file)).split("\n")
    return [line.strip() for line in lines if line.strip()]


def is_file(path: Path) -> bool:
    """Whether there is such a file, whatever the name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False


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


_UPLOAD = re.compile(r"/data/(?:local-files/\?d=|upload/(?:\d+/)?)")
_ADDRESS = re.compile(r"[a-z0-9]+://[^/]*/", re.IGNORECASE)
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")


def listed_name(text: str) -> str:
    """What an annotation calls a file, as a path with slashes: without blanks and quotes about it, without ./ or an
    address before it; Label Studio's and other addresses have escapes such as %20."""
    name = text.strip().strip("\"'")
    if address := _UPLOAD.search(name) or _ADDRESS.search(name):
        name = unquote(name[address.end() :])
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def found_names(root: Path, names: Iterable[str]) -> dict[str, str]:
    """The image file below `root` that is meant by a name, for each of `names` that is no file itself.

    Such names have the separators of another system, another case, or more or fewer folders before them than there are:
    the one image is taken whose path ends in the name, or the name in it. Where no image is found so, other folders may
    stand before the names. Nothing is taken that another name has.
    """
    wanted = list(dict.fromkeys(names))
    there = present(root, wanted)
    missing = {name: listed_name(name) for name in wanted if name not in there}
    plain = present(root, missing.values())
    found = {name: text for name, text in missing.items() if text in plain}
    if len(found) == len(missing):
        return found
    taken = {os.path.normpath(below(root, root / name)) for name in (*there, *plain)}
    by_last: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
    try:
        files = find_images(root, "")[0]
    except UserError:  # a folder that may not be listed; whoever needs the images says that they are missing
        files = []
    for file in files:
        if file not in taken:
            steps = _steps(file)
            by_last[steps[-1]].append((steps, file))
    for whole in (True, False):
        if whole or not (found or there):
            found |= {name: match for name, text in missing.items()
                      if name not in found and (match := _only_match(_steps(text), by_last, whole))}  # fmt: skip
    counted = Counter(file for name, file in found.items() if missing[name] != file)
    # what is no regular file, such as a FIFO, is found by its own name
    return {name: file for name, file in found.items() if counted[file] < 2 and file != name}


def _steps(name: str) -> list[str]:
    """The parts of a path, the same for names that differ in case or in the composition of letters alone."""
    text = unicodedata.normalize("NFC", name).casefold()
    steps = (step.strip() for step in text.split("/"))
    return [step for step in steps if step not in ("", ".", "..")] or [""]


def _only_match(steps: list[str], by_last: dict[str, list[tuple[list[str], str]]], whole: bool) -> str | None:
    """The file that shares most of its last folders with a name, if there is only one: with `whole` all that both
    have."""
    if steps[-1] not in by_last:  # Label Studio puts eight digits before the names of uploaded files
        steps = [*steps[:-1], _UPLOADED.sub("", steps[-1], 1)]
    shared: dict[int, list[str]] = defaultdict(list)
    for other, file in by_last.get(steps[-1], ()):
        length = min(len(steps), len(other))
        if steps[-length:] == other[-length:] or not whole:
            shared[length if whole else 1].append(file)
    best = shared[max(shared)] if shared else []
    return best[0] if len(best) == 1 else None


def usual_folder(root: Path, folder: Path, part: str, listed: Sequence[str], also: Sequence[str] = ()) -> Path | None:
    """The first of the usual folders of images below `root` in which most of the first of these files are; None when
    none is. `folder` is that of the annotations, `part` the part of the data set that they belong to, or ""; `also` are
    other names that folders of the part may have."""
    known = (*also, *PARTS.get(part, ()))
    names = (*known, *(f"images/{name}" for name in known), *(f"{name}/images" for name in known), "", "images",
             "JPEGImages", "data", "images/default", "default")  # fmt: skip
    places = [base / name for base in (folder, root, folder.parent) for name in names]
    first = [*listed[:3], *listed[-1:]]
    found = {place: sum(is_file(place / name) for name in first) for place in places if place.is_relative_to(root)}
    best = max(found, key=found.__getitem__)
    return best if found[best] else None


def below(root: Path, path: Path) -> str:
    """`path` as seen from `root`, with slashes; absolute when it lies elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()


def stem_below(name: str, folder: str) -> str:
    """A name below `folder`, "" for none, without its ending."""
    rest = name.removeprefix(f"{folder}/") if folder else name
    return rest[: len(rest) - len(ending(rest.rsplit("/", 1)[-1]))]


def leads_out(name: str, *folders: Path) -> bool:
    """Whether the name of a file, as an annotation has it, leads out of all these folders; it is relative to the first.
    A symbolic link in a folder is its owner's own and may lead anywhere."""
    if not Path(name).is_absolute() and ".." not in Path(name).parts:
        return False
    path = Path(os.path.normpath((folders[0] / name).absolute()))
    return not any(path.is_relative_to(os.path.normpath(folder.absolute())) for folder in folders)
