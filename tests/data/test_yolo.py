import numpy as np
import pytest
from scene_files import mask, masks_of, picture, write_yolo

from resurge.data.formats.yolo import Yolo, label_file
from resurge.data.sources import open_data, open_split
from resurge.errors import UserError

LABELS = {
    "train/a": "0 0.5 0.5 0.5 0.4\n1 0.25 0.5 0.1 0.1\n",
    "train/b": None,
    "train/sub/c": "1 0.1 0.1 0.6 0.6\n\n",
    "val/a": "1 0.5 0.5 1 1\r\n",
}


def test_images_and_labels_in_folders(tmp_path):
    bundle = open_data(write_yolo(tmp_path, LABELS), annotation="boxes")
    assert bundle.classes == ("cat", "dog")
    assert bundle.train.ids == ("images/train/a.png", "images/train/b.png", "images/train/sub/c.png")
    a, b, c = (bundle.train.target(i) for i in range(3))
    assert np.allclose(a.boxes, [[10, 9, 30, 21], [8, 13.5, 12, 16.5]])
    assert a.labels.tolist() == [0, 1]
    assert len(b) == 0
    assert np.allclose(c.boxes, [[0, 0, 16, 12]])
    assert bundle.val.target(0).boxes.tolist() == [[0, 0, 40, 30]]
    with pytest.raises(UserError, match="boxes but no masks"):
        open_data(tmp_path, annotation="masks")


def test_outlines(tmp_path):
    labels = {"a": "1 0.25 0.2 0.5 0.2 0.5 0.6 0.25 0.6\n0 0.5 0.5 0.2 0.2\n", "b": "0 0.1 0.1 0.9 0.1 0.9 0.9"}
    write_yolo(tmp_path, labels, names=())
    bundle = open_data(tmp_path, annotation="masks", val_fraction=0.5)
    split, classes, _ = open_split(tmp_path, annotation="masks")
    assert classes == bundle.classes == ("0", "1")
    first = split.target(0)
    assert np.allclose(first.boxes, [[10, 6, 20, 18]])
    assert masks_of(first, 30, 40).sum() == 10 * 12
    assert first.area.tolist() == [120]
    assert any("1 object without a mask" in note for note in bundle.notes)
    boxes = open_split(tmp_path, annotation="boxes")[0].target(0)
    assert len(boxes) == 2


@pytest.mark.parametrize("names", ["[cat, 'a: b']", "{0: cat, 1: 'a: b'}", "\n  - cat\n  - 'a: b'"])
def test_a_description(tmp_path, names):
    for part in ("train", "valid"):
        for i in range(2):
            picture(tmp_path / part / "images" / f"{i}.png", i)
            (tmp_path / part / "labels").mkdir(exist_ok=True)
            (tmp_path / part / "labels" / f"{i}.txt").write_text("1 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text(
        f"path: /somewhere/else\ntrain: ../train/images\nval: valid/images\nnames: {names}"
    )
    for source in (tmp_path, tmp_path / "data.yaml"):
        bundle = open_data(source, annotation="boxes")
        assert bundle.classes == ("cat", "a: b")
        assert bundle.train.ids == ("train/images/0.png", "train/images/1.png")
        assert len(bundle.val) == 2
    (tmp_path / "data.yaml").unlink()
    assert open_data(tmp_path, annotation="boxes").classes == ("0", "1")


def test_a_description_with_lists(tmp_path):
    write_yolo(tmp_path, LABELS, names=())
    (tmp_path / "train.txt").write_text("./images/train/a.png\nimages/train/sub/c.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: [images/val]\nnames: [cat, dog]\n")
    bundle = open_data(tmp_path, annotation="boxes")
    assert bundle.train.ids == ("images/train/a.png", "images/train/sub/c.png")


@pytest.mark.parametrize("text, message", [
    ("names: [a", "no readable YAML: .* 1"), ("train: x", "describes no YOLO data"), ("names: 3", "must be a list"),
    ("names: {0: a, 2: b}\ntrain: images", "without gaps"), ("names: [a]\ntrain: imgs", "there is no .*imgs"),
    ("names: [a]", "names no folder with images"), ("- 1", "describes no YOLO data"),
])  # fmt: skip
def test_damaged_descriptions(tmp_path, text, message):
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.5"})
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        open_data(tmp_path, annotation="boxes")


@pytest.mark.parametrize("line", ["0 0.5 0.5", "0 0.5 0.5 0.5 0.5 0.9", "x 0.5 0.5 0.5 0.5", "0.5 0.5 0.5 0.5 0.5",
                                  "0 0.5 nan 0.5 0.5", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "{json: 1}"])  # fmt: skip
def test_a_line_that_is_cut_short(tmp_path, line):
    write_yolo(tmp_path, {"a": f"0 0.5 0.5 0.5 0.5\n{line}", "b": "0 0.5 0.5 0.5 0.5"})
    with pytest.raises(UserError, match=r"a\.txt, line 2, .* is neither"):
        open_data(tmp_path, annotation="boxes")
    thing = Yolo().read(tmp_path).parts[""][0].objects[1]
    assert thing.fault is not None
    assert thing.fault.kind == "bad-object"


def test_damaged_objects_are_left_out_with_a_note(tmp_path):
    lines = (
        "0 0.5 0.5 0.5 0.5\n5 0.5 0.5 0.5 0.5\n-1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.5\n0 20 15 10 10\n1 1.2 0.5 0.1 0.1\n"
    )
    bundle = open_data(write_yolo(tmp_path, {"train/a": lines, "val/a": lines}), annotation="boxes")
    assert len(bundle.train.target(0)) == 1
    for note in (
        "2 objects of unknown categories",
        "1 box without area",
        "1 damaged object",
        "1 box outside its image",
    ):
        assert any(note in line for line in bundle.notes), note


def test_unreadable_images_and_stray_labels(tmp_path):
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.5", "b": "0 0.5 0.5 0.5 0.5", "c": "0 0.5 0.5 0.5 0.5"})
    (tmp_path / "images/a.png").write_bytes(b"no image")
    (tmp_path / "labels/x.txt").write_text("0 0.5 0.5 0.5 0.5")
    source = Yolo().read(tmp_path)
    assert [finding.paths for finding in source.findings] == [("labels/x.txt",)]
    assert source.parts[""][0].objects[0].fault.kind == "bad-object"


def test_turned_images(tmp_path):
    from PIL import Image

    write_yolo(tmp_path, {"a": "0 0.25 0.5 0.5 1", "b": "0 0.5 0.5 0.5 0.5"})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(tmp_path / "images/a.png").save(tmp_path / "images/a.jpg", exif=exif)
    (tmp_path / "images/a.png").unlink()
    split = open_split(tmp_path, annotation="boxes")[0]
    assert split.read(0).size == (30, 40)
    assert split.target(0).boxes.tolist() == [[0, 0, 15, 40]]


def test_where_label_files_are(tmp_path):
    for image, label in (
        ("images/train/a.b.png", "labels/train/a.b.txt"), ("images/images/x.jpg", "images/labels/x.txt"),
        ("train/images/x.jpg", "train/labels/x.txt"), ("all/x.jpg", "all/x.txt"), ("images.png", "images.txt"),
    ):  # fmt: skip
        assert label_file(tmp_path, image) == tmp_path / label


def test_masks_called_labels_are_no_yolo(tmp_path):
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png", 1)
    for name in "ab":
        mask(tmp_path / f"labels/{name}.png", np.arange(1200).reshape(30, 40) % 2)
    (tmp_path / "labels/classes.txt").write_text("sky\nsea\n")
    assert len(open_data(tmp_path, annotation="maps").val) == 1


def test_labels_that_are_elsewhere(tmp_path):
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.5", "b": "0 0.5 0.5 0.5 0.5"})
    (tmp_path / "labels").rename(tmp_path / "txt")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    with pytest.raises(UserError, match=r"none of the 2 images .* has a text file of labels; .*labels/a\.txt\. Put"):
        open_data(tmp_path, annotation="boxes")


def test_what_key_points_cannot_be(tmp_path):
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.4 0.4 1", "b": "0 0.5 0.5 0.2 0.2 0.5 0.5 2"})
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat, dog]\nkpt_shape: [2, 3]\n")
    with pytest.raises(UserError, match="with or without 6 numbers of key points"):
        open_data(tmp_path, annotation="boxes")
