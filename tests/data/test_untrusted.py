"""Data of somebody who means harm: files that are none or never end, names that lead elsewhere, numbers and nesting
without end. `check-data` and the reading of a training come back with a message."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bombs import ALIASES
from scene_files import (
    healthy_coco,
    kinds,
    mask,
    picture,
    voc_xml,
    write_camvid,
    write_pairs,
    write_voc,
    write_yolo,
)
from two_classes import write_images

from resurge.cli import main
from resurge.data.annotations import Annotation
from resurge.data.checks import check_data
from resurge.data.digests import write_digests
from resurge.data.images import UnreadableImage, open_image
from resurge.data.sources import open_data
from resurge.errors import UserError
from resurge.untrusted import read_bytes

DIGITS = "1" * 100_000
BOX = "0 0.5 0.5 0.2 0.2\n"


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """What waits for a writer, or reads on and on, fails here instead of stopping the suite."""

    def stop(*_: object) -> None:
        raise TimeoutError("it does not come back")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def voc(root: Path) -> Path:
    stems = [f"v{i}" for i in range(4)]
    return write_voc(root, {key: [("cat", 3, 3, 20, 20)] for key in stems}, {"train": stems[:3], "val": stems[3:]})


def yolo(root: Path) -> Path:
    write_yolo(root, {f"{part}/{i}": BOX for part in ("train", "val") for i in range(3)}, names=())
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root


def table(root: Path) -> Path:
    for i in range(6):
        picture(root / f"{i}.png", i)
    (root / "list.csv").write_text("path,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(6)))
    return root / "list.csv"


def folders(root: Path) -> Path:
    write_images(root, 4, 0)
    return root


DATA: dict[str, tuple[Annotation, Callable[[Path], Path], str, str]] = {
    # what for, how it is written, an annotation file, an image
    "coco": ("boxes", healthy_coco, "annotations/instances_train2017.json", "train2017/a1.png"),
    "voc": ("boxes", voc, "Annotations/v1.xml", "JPEGImages/v1.jpg"),
    "voc lists": ("boxes", voc, "ImageSets/Main/train.txt", "JPEGImages/v1.jpg"),
    "yolo": ("boxes", yolo, "labels/train/1.txt", "images/train/1.png"),
    "yolo description": ("boxes", yolo, "data.yaml", "images/train/1.png"),
    "maps": ("maps", write_pairs, "masks/train/p1.png", "images/train/p1.jpg"),
    "lists of maps": ("maps", write_camvid, "train.txt", "train/1.png"),
    "table": ("labels", table, "list.csv", "1.png"),
    "folders": ("labels", folders, "left/1.png", "left/1.png"),
}


def outcome(place: Path, annotation: Annotation) -> str:
    """What is said of the data, by `check-data` and by a training; anything but a `UserError` comes through."""
    said = ""
    try:
        report, _ = check_data(place, annotation=annotation)
        said += "\n".join(report.lines())
    except UserError as error:
        said += str(error)
    try:
        bundle = open_data(place, annotation=annotation)
        said += "\n".join(bundle.notes)
        write_digests(bundle, place.parent / "digests.csv")
        for index in range(len(bundle.train)):
            try:
                bundle.train.read(index)
            except UnreadableImage as error:
                said += str(error)
    except UserError as error:
        said += str(error)
    return said


@pytest.mark.parametrize("make", [fifo, endless])
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_what_is_no_file_is_not_waited_for(
    name: str, image: bool, make: Callable[[Path], None], tmp_path: Path
) -> None:
    annotation, write, file, picture_file = DATA[name]
    place = write(tmp_path / "data")
    before = outcome(place, annotation)
    victim = tmp_path / "data" / (picture_file if image else file)
    make(victim)
    said = outcome(place, annotation)
    assert said
    assert said != before


@pytest.mark.parametrize("make", [fifo, endless])
def test_digests_of_what_is_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    bundle = open_data(folders(tmp_path / "data"))
    make(Path(bundle.train.path(0)))
    write_digests(bundle, tmp_path / "digests.csv")
    lines = (tmp_path / "digests.csv").read_text().splitlines()
    assert lines[1] == ","
    assert len(set(lines[2:])) == len(lines[2:])


def test_files_without_an_end_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    with file.open("wb") as opened:
        opened.truncate(1 << 42)  # takes no room on the disk
    with pytest.raises(
        UserError, match=r"huge\.png: cannot be read \(it has more than 4,294,967,296 bytes, the limit\)"
    ):
        open_image(file)
    assert read_bytes("/proc/self/cmdline")  # has no size, and yet an end


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def deep(kind: str) -> Callable[[str], str]:
    return lambda text: kind * 100_000


NUMBERS = {
    "coco id": ("coco", replaced('"id": 10', f'"id": {DIGITS}')),
    "coco box": ("coco", replaced("[2, 2, 10, 10]", f"[{DIGITS}, 2, 10, 10]")),
    "coco size": ("coco", replaced('"width": 40', f'"width": {DIGITS}')),
    "coco nesting": ("coco", deep("[")),
    "coco objects": ("coco", deep('{"a":')),
    "voc box": ("voc", replaced("<xmin>3", f"<xmin>{DIGITS}")),
    "voc size": ("voc", replaced("<width>40", f"<width>{DIGITS}")),
    "voc nesting": ("voc", deep("<a>")),
    "voc entities": ("voc", lambda text: "<!DOCTYPE a [<!ENTITY b0 'x'>" + "".join(
        f"<!ENTITY b{i + 1} '{f'&b{i};' * 20}'>" for i in range(9)) + "]>" + voc_xml([("&b9;", 1, 1, 9, 9)])),
    "yolo class": ("yolo", replaced("0 0.5", f"{DIGITS} 0.5")),
    "yolo box": ("yolo", replaced("0 0.5", f"0 {DIGITS}")),
    "yolo names": ("yolo description", replaced("[cat, dog]", f"{{{DIGITS}: cat}}")),
    "yolo hexadecimal": ("yolo description", replaced("[cat, dog]", f"{{0x{DIGITS}: cat}}")),
    "yolo nesting": ("yolo description", replaced("[cat, dog]", "[" * 1000)),
    "yolo aliases": ("yolo description", lambda text: ALIASES + text.replace("[cat, dog]", "*i")),
    "yolo itself": ("yolo description", replaced("[cat, dog]", "&a [*a]")),
    "table": ("table", replaced("1.png,b", f"1.png,{DIGITS}")),
    "lists of maps": ("lists of maps", replaced("/SegNet", DIGITS)),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_and_nesting_without_end(name: str, tmp_path: Path) -> None:
    data, change = NUMBERS[name]
    annotation, write, file, _ = DATA[data]
    place = write(tmp_path / "data")
    victim = tmp_path / "data" / file
    victim.write_text(change(victim.read_text()))
    assert outcome(place, annotation)


def in_coco(name: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        file = healthy_coco(root) / "annotations/instances_train2017.json"
        document = json.loads(file.read_text())
        document["images"][1]["file_name"] = name
        file.write_text(json.dumps(document))
        return root

    return write


def in_yolo(line: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        (yolo(root) / "train.txt").write_text("".join(f"images/train/{i}.png\n" for i in range(3)) + f"{line}\n")
        (root / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [cat, dog]\n")
        return root

    return write


def in_voc(root: Path) -> Path:
    """The list names an image and its annotations elsewhere."""
    (voc(root) / "ImageSets/Main/train.txt").write_text("v1\nv2\n../../secret\n")
    (root.parent / "secret.xml").write_text(voc_xml([("cat", 3, 3, 20, 20)], name="secret.jpg"))
    picture(root.parent / "secret.jpg", 9)
    return root


def in_maps(root: Path) -> Path:
    mask(root.parent / "secret.mask.png", 1)
    with (write_camvid(root) / "train.txt").open("a") as file:
        file.write("../secret.png ../secret.mask.png\n")
    return root


def in_boxes(root: Path) -> Path:
    names = [*(file.name for file in folders(root).glob("left/*.png")), "../../secret.png"]
    lines = "".join(f"left/{name},3,3,9,9,cat\n" for name in names)
    (root / "boxes.csv").write_text(f"filename,xmin,ymin,xmax,ymax,class\n{lines}")
    return root


def in_cvat(root: Path) -> Path:
    names = [*(file.name for file in folders(root).glob("left/*.png")), "../../secret.png"]
    box = '<box label="cat" xtl="3" ytl="3" xbr="9" ybr="9"/>'
    images = "".join(f'<image name="left/{name}" width="40" height="30">{box}</image>' for name in names)
    label = "<meta><task><labels><label><name>cat</name></label></labels></task></meta>"
    (root / "annotations.xml").write_text(f"<annotations>{label}{images}</annotations>")
    return root


OUTSIDE: dict[str, tuple[Annotation, Callable[[Path], Path]]] = {
    "coco, up": ("boxes", in_coco("../../secret.png")),
    "coco, down and up": ("boxes", in_coco("x/../../../secret.png")),
    "coco, absolute": ("boxes", in_coco("{secret}")),
    "yolo, up": ("boxes", in_yolo("../secret.png")),
    "yolo, absolute": ("boxes", in_yolo("{secret}")),
    "voc": ("boxes", in_voc),
    "maps": ("maps", in_maps),
    "table of boxes": ("boxes", in_boxes),
    "cvat": ("boxes", in_cvat),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_files_outside_the_data_are_refused(name: str, tmp_path: Path) -> None:
    annotation, write = OUTSIDE[name]
    secret = picture(tmp_path / "secret.png", 9)
    root = write(tmp_path / "data")
    for file in (root / "annotations/instances_train2017.json", root / "train.txt"):
        if file.is_file():
            file.write_text(file.read_text().replace("{secret}", str(secret)))
    with pytest.raises(UserError, match=r"names . files? outside .*data, the first: .*secret.*\. Move the files into"):
        open_data(root, annotation=annotation)
    report, _ = check_data(root, annotation=annotation)
    assert "outside" in kinds(report)
    assert not report.ok
    task = "segment" if annotation == "maps" else "detect"
    assert main(["check-data", str(root), "--task", task, "--fix", str(tmp_path / "a/b/c")]) == 2
    assert not (tmp_path / "a").exists()


def test_links_in_the_folder_and_paths_that_come_back_are_fine(tmp_path: Path) -> None:
    assert len(open_data(in_coco("../train2017/./a1.png")(tmp_path / "data"), annotation="boxes").train) == 3
    root = healthy_coco(tmp_path / "linked")
    (root / "train2017").rename(tmp_path / "elsewhere")
    (root / "train2017").symlink_to(tmp_path / "elsewhere")
    assert len(open_data(root, annotation="boxes").train) == 3
    in_yolo(str(tmp_path / "yolo/images/train/0.png"))(tmp_path / "yolo")  # absolute, and inside
    assert len(open_data(tmp_path / "yolo", annotation="boxes").train) >= 3


def test_a_description_may_name_folders_elsewhere(tmp_path: Path) -> None:
    """A description is a file that a user writes; the folders in it are where the images are."""
    yolo(tmp_path / "pictures")
    text = f"path: {tmp_path / 'pictures'}\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
    (tmp_path / "own").mkdir()
    (tmp_path / "own/data.yaml").write_text(text)
    assert len(open_data(tmp_path / "own", annotation="boxes").train) == 3


def test_a_table_of_paths_keeps_absolute_ones(tmp_path: Path) -> None:
    file = table(tmp_path / "data")
    absolute = re.sub(r"^(?=\d)", f"{tmp_path}/data/", file.read_text(), flags=re.MULTILINE)
    (tmp_path / "own.csv").write_text(absolute)
    bundle = open_data(tmp_path / "own.csv")
    assert len(bundle.train) + len(bundle.val) == 6
