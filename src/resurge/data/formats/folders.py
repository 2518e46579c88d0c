"""Folders with one subfolder of images per class, perhaps in train/, val/ and test/."""

from __future__ import annotations

from pathlib import Path

from resurge.data.findings import Finding, finding
from resurge.data.formats.format import Format
from resurge.data.label_source import LabelSource
from resurge.data.paths import PART_OF, find_images, is_sidecar, part_folders, require_folder, slashed, subfolders
from resurge.data.records import LabelRecord
from resurge.errors import UserError
from resurge.quantities import number_of


class Folders(Format):
    name = "folder"
    annotations = ("labels",)
    expected = "a folder with one subfolder of images per class, perhaps in train/ and val/"

    def recognise(self, path: Path) -> bool:
        return path.is_dir()

    def read(self, path: Path) -> LabelSource:
        require_folder(path)
        folders = split_folders(path) or {"": ""}
        parts: dict[str, tuple[LabelRecord, ...]] = {}
        classes: dict[str, tuple[str, ...]] = {}
        findings: list[Finding] = []
        for part, folder in folders.items():
            files, ignored = _class_files(path, folder)
            classes[part] = tuple(sorted(files))
            parts[part] = tuple(LabelRecord(name, label) for label in classes[part] for name in files[label])
            findings += _findings(part or "train", path / folder, files, ignored)
        trained = classes.get("train", classes.get("", next(iter(classes.values()))))
        inside = [name for name in folders.values() if name]
        unused = [name for name in subfolders(path) if name not in inside] if inside else []
        name = path.resolve().name
        how = f"the folders {slashed(inside)} of {name}" if inside else f"the folder {name}"
        return LabelSource(
            format=self.name, root=path, classes=trained, parts=parts, how=how, findings=tuple(findings),
            unused=tuple(unused), part_classes=classes,
        )  # fmt: skip


def _findings(part: str, folder: Path, files: dict[str, list[str]], ignored: list[str]) -> list[Finding]:
    findings = []
    empty = [name for name, images in files.items() if not images]
    if empty:
        stop = (
            f"{folder}: the class folder{'s' if len(empty) > 1 else ''} {', '.join(map(repr, empty[:5]))} "
            f"ha{'ve' if len(empty) > 1 else 's'} no images. Put images there or remove the folder."
        )
        findings.append(finding(
            "empty-class", empty, f"{part}: no images in the class folder {', '.join(empty)}",
            remedy="put images there, or remove the folder", stop=stop if part == "train" else "",
        ))  # fmt: skip
    if ignored:
        what = number_of(len(ignored), "file that is no image", "files that are no images")
        findings.append(finding("other-file", ignored, f"{part}: {what} of a class"))
    return findings


def _class_files(root: Path, below: str) -> tuple[dict[str, list[str]], list[str]]:
    """(images by class folder of root/below, files of unknown kind), as sorted paths relative to the root; classes
    without images are kept."""
    folder = root / below
    names = subfolders(folder)
    if not names:
        images, _ = find_images(root, below)
        if images:
            raise UserError(
                f"{folder} has {len(images)} images but no class folders. Expected one subfolder per class, such as "
                f"{folder.name}/cat/*.jpg and {folder.name}/dog/*.jpg, or a .csv file with the columns path and label."
            )
        raise UserError(f"{folder} is empty. Expected one subfolder per class with images in it.")
    files: dict[str, list[str]] = {}
    ignored = [
        (Path(below) / item.name).as_posix()
        for item in sorted(folder.iterdir())
        if item.is_file() and not is_sidecar(item.name)
    ]
    for name in names:
        files[name], others = find_images(root, (Path(below) / name).as_posix())
        ignored += others
    if not any(files.values()):
        raise UserError(f"{folder} has no image in any of its {len(names)} folders. Expected files such as cat/1.jpg.")
    return files, ignored


def split_folders(root: Path) -> dict[str, str]:
    """Which subfolders of `root` hold the parts: {"train": "train", "val": "valid", ...}; {} for class folders.

    A folder counts as a part only when it has class folders in it, so that a class may be called "train". Raises
    UserError when there are only folders such as train/ and val/ with images but no class folders in them, or a train/
    beside a val/ without class folders.
    """
    by_lower = {name.lower(): name for name in subfolders(root)}
    found = part_folders(root, subfolders)
    used = set(found.values())
    flat = [name for lower, name in by_lower.items() if PART_OF.get(lower) in ("train", "val") and name not in used]
    if flat and (found or all(lower in PART_OF for lower in by_lower)):
        raise UserError(f"{root / flat[0]} has no class folders. Expected one per class, such as {flat[0]}/cat/*.jpg.")
    return found
