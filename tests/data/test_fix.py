import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scene_files import (
    broken_coco,
    healthy_coco,
    mask,
    picture,
    voc_xml,
    write_camvid,
    write_nuclei,
    write_pairs,
    write_voc,
    write_yolo,
)

from resurge.data.checks import check_data
from resurge.data.fix import mend
from resurge.data.sources import open_data
from resurge.errors import UserError


def mended(source: Path, out: Path, *images: str) -> tuple[str, set[str]]:
    """What `mend` says, and the kinds of errors that are left in the copy once the images are beside it."""
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    _, look = check_data(source)
    text = "\n".join(mend(look, out))
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    for name in images:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).symlink_to(source / name)
    report, _ = check_data(out)
    return text, {finding.kind for finding in report.findings if finding.severity == "error"}


def test_coco(tmp_path):
    text, left = mended(broken_coco(tmp_path / "set"), tmp_path / "out", "train2017", "val2017")
    assert left == set()
    for words in ("1 box(es) without area removed", "1 box(es) outside the image removed", "1 box(es) cut to the image",
                  "1 object(s) of unknown categories", "1 damaged object(s)", "1 mask(s) of another size",
                  "1 missing image(s)", "1 unreadable image(s)", "1 image(s) that their annotations do not fit",
                  "1 annotation(s) of no",
                  "1 image(s) removed that validation or test has too"):  # fmt: skip
        assert words in text
    document = json.loads((tmp_path / "out/annotations/instances_train2017.json").read_text())
    assert [entry["file_name"] for entry in document["images"]] == ["a0.png", "a1.png", "a2.png", "a7.png"]
    boxes = {entry["id"]: entry["bbox"] for entry in document["annotations"]}
    assert boxes == {1: [2, 2, 10, 10], 17: [2, 2, 10, 10], 2: [2, 2, 10, 10], 13: [30, 5, 10, 7],
                     3: [2, 2, 10, 10]}  # fmt: skip
    assert len(open_data(tmp_path / "out", annotation="boxes").train) == 4


def test_nothing_to_mend(tmp_path):
    root = healthy_coco(tmp_path / "set")
    text, left = mended(root, tmp_path / "out", "train2017", "val2017")
    assert "nothing needed mending" in text
    assert left == set()
    for name in ("train", "val"):
        file = f"annotations/instances_{name}2017.json"
        assert json.loads((tmp_path / "out" / file).read_text()) == json.loads((root / file).read_text())


def test_a_file_that_is_cut_short_is_left_out(tmp_path):
    root = healthy_coco(tmp_path / "set")
    file = root / "annotations/instances_val2017.json"
    file.write_bytes(file.read_bytes()[:50])
    text, left = mended(root, tmp_path / "out", "train2017", "val2017")
    assert "instances_val2017.json: 1 file that cannot be read left out" in text
    assert left == set()


def test_voc(tmp_path):
    objects = {stem: [("dog", 1, 1, 9, 9)] for stem in "abcdef"}
    write_voc(tmp_path / "set", objects, {"train": list("abcfx"), "val": list("de"), "trainval": list("abcdef")})
    annotations = tmp_path / "set/Annotations"
    (annotations / "a.xml").write_text(voc_xml([("dog", 4, 4, 4, 9), ("dog", -5, 1, 50, 9), ("", 1, 1, 9, 9)]))
    (annotations / "c.xml").write_text(voc_xml([("dog", 1, 1, 9, 9)])[:-30])
    (annotations / "d.xml").write_text(voc_xml([("dog", 1, 1, 9, 9)], size=(80, 60)))
    (tmp_path / "set/JPEGImages/e.jpg").unlink()
    (tmp_path / "set/JPEGImages/f.jpg").write_bytes((tmp_path / "set/JPEGImages/d.jpg").read_bytes())
    text, left = mended(tmp_path / "set", tmp_path / "out", "JPEGImages")
    assert left == set()
    lists = {file.stem: file.read_text().split() for file in (tmp_path / "out/ImageSets/Main").iterdir()}
    assert lists == {"train": ["a", "b"], "val": ["d"], "trainval": ["a", "b", "d"]}
    assert (tmp_path / "out/Annotations/b.xml").read_bytes() == (annotations / "b.xml").read_bytes()
    assert open_data(tmp_path / "out", annotation="boxes").train.target(0).boxes.tolist() == [[0, 0, 40, 9]]
    for words in ("Annotations/c.xml: 1 file that cannot be read", "Annotations/d.xml: 1 image size corrected",
                  "ImageSets/Main/train.txt: 3 line(s) removed"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("description", [False, True])
def test_yolo(tmp_path, description):
    lines = "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n0 0.5 0.5 0 0.5\n1 0.9 0.5 0.5 0.5\n0 0.5 0.5\n"
    outline = "1 0.1 0.1 1.2 0.1 1.2 0.9\n"
    root = write_yolo(tmp_path / "set", {"train/a": lines, "train/b": outline, "train/c": "0 0.5 0.5 0.2 0.2",
                                         "val/a": "1 0.5 0.5 0.2 0.2"})  # fmt: skip
    (root / "images/train/c.png").unlink()
    if description:
        (root / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [cat, dog]\n")
        (root / "train.txt").write_text("images/train/a.png\nimages/train/b.png\nimages/train/c.png\n")
    _, left = mended(root, tmp_path / "out", "images")
    assert left == set()
    kept = (tmp_path / "out/labels/train/a.txt").read_text()
    assert kept == "0 0.5 0.5 0.5 0.5\n1 0.825 0.5 0.35 0.5\n"
    assert (tmp_path / "out/labels/train/b.txt").read_text() == "1 0.1 0.1 1 0.1 1 0.9\n"
    assert not (tmp_path / "out/labels/train/c.txt").exists()
    if description:
        assert (tmp_path / "out/train.txt").read_text() == "images/train/a.png\nimages/train/b.png\n"
    assert open_data(tmp_path / "out", annotation="boxes").classes == ("cat", "dog")


def test_nuclei(tmp_path):
    root = write_nuclei(tmp_path / "set")
    mask(root / "id1/masks/empty.png", 0)
    mask(root / "id1/masks/other.png", 255, (20, 20))
    (root / "id2/images/id2.png").write_bytes(b"")
    _, left = mended(root, tmp_path / "out", *(f"id{i}/images" for i in (0, 1, 3, 4)))
    assert left == set()
    assert sorted(path.name for path in (tmp_path / "out/id1/masks").iterdir()) == ["m0.png", "m1.png"]
    assert not (tmp_path / "out/id2").exists()


def test_pairs(tmp_path):
    root = write_pairs(tmp_path / "set", classes=3)
    (root / "classes.txt").write_text("a\nb\nc\n")
    values = (np.arange(1200).reshape(30, 40) % 5).astype(np.uint8)
    image = Image.fromarray(values)
    image.putpalette([i for i in range(256) for _ in range(3)])
    image.save(root / "masks/train/p0.png")
    mask(root / "masks/train/p1.png", 1, (40, 35))
    text, left = mended(root, tmp_path / "out", "images")
    assert left == {"missing-mask"}  # the image itself stays where it is
    assert "480 pixels with an index out of range set to ignored" in text
    with Image.open(tmp_path / "out/masks/train/p0.png") as written:
        assert written.mode == "P"
        assert (np.asarray(written) == np.where(values > 2, 255, values)).all()
    assert (tmp_path / "out/masks/val/p0.png").read_bytes() == (root / "masks/val/p0.png").read_bytes()
    assert (tmp_path / "out/classes.txt").read_text() == "a\nb\nc\n"


def test_lists_of_pairs(tmp_path):
    root = write_camvid(tmp_path / "CamVid")
    for seed, part in enumerate(("train", "val", "test")):
        for i in range(2):
            picture(root / part / f"{i}.png", 10 * seed + i)
    picture(root / "train/0.png", 20)  # test has it too
    (root / "val/1.png").unlink()
    mask(root / "testannot/1.png", np.arange(1200).reshape(30, 40) % 14)
    _, left = mended(root, tmp_path / "out", "train", "val", "test")
    assert left == set()
    assert (tmp_path / "out/train.txt").read_text() == "train/1.png trainannot/1.png\n"
    values = np.asarray(Image.open(tmp_path / "out/testannot/1.png"))
    assert values.max() == 11


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    _, look = check_data(healthy_coco(tmp_path / "set"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for out in (tmp_path / "full", tmp_path / "full/file", tmp_path / "set"):
        with pytest.raises(UserError, match="already and not empty"):
            mend(look, out)
    (tmp_path / "empty").mkdir()
    mend(look, tmp_path / "empty")
    assert (tmp_path / "empty/annotations").is_dir()
    _, look = check_data(write_nuclei(tmp_path / "nuclei"))
    with pytest.raises(UserError, match="lies inside"):
        mend(look, tmp_path / "nuclei/out")


def test_the_copy_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    _, look = check_data(write_nuclei(tmp_path / "set"))
    count = iter(range(100))

    def fill_up(source, target):
        if next(count) == 4:
            raise OSError(28, "No space left on device")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("shutil.copyfile", fill_up)
    with pytest.raises(UserError, match="No space left"):
        mend(look, tmp_path / "out")
    assert os.listdir(tmp_path) == ["set"]  # noqa: PTH208


def test_annotations_outside_the_folder_are_refused(tmp_path):
    picture(tmp_path / "images/a.png")
    (tmp_path / "a.txt").touch()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data.yaml").write_text("train: ../images\nval: ../images\nnames: [cat]\n")
    _, look = check_data(tmp_path / "set")
    with pytest.raises(UserError, match="lies outside"):
        mend(look, tmp_path / "out")
    assert not (tmp_path / "out").exists()
