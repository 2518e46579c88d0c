"""Crowds, one picture under two ids, ids of other types, and objects that no training sees."""

import json

import numpy as np
import pytest
from data.test_conventions import changed
from data.test_fit import mended, pictures, said, worst
from drawn_scenes import WRITERS, write_coco
from scene_files import annotation, coco_document
from scene_files import write_coco as write_parts

from resurge.data.preprocessing import ScenePreprocessing
from resurge.data.sources import open_data
from resurge.data.splits import ArrayImages, Objects, ObjectSplit
from resurge.data.transforms import never_seen
from resurge.errors import UserError


def objects(source, kind="boxes"):
    """(class, box) of the objects by the name of their image."""
    bundle = open_data(source, annotation=kind)
    return {
        split.ids[at]: sorted(zip(target.labels.tolist(), map(tuple, target.boxes.tolist()), strict=True))
        for split in bundle.splits().values() for at, target in enumerate(split.objects)
    }  # fmt: skip


def rewritten(root, change):
    """A COCO set whose document is changed in place."""
    file = root / "annotations.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("kind", ["rle", "polygons"])
def test_nothing_but_crowds_is_refused_and_mended(tmp_path, kind):
    root = changed(write_coco(tmp_path / "set", pictures(), kind), lambda entry: {"iscrowd": 1})
    for wanted in ("boxes", "masks"):
        with pytest.raises(UserError, match=r"every one of the 10 objects to train on is marked as a crowd.*--fix"):
            open_data(root, annotation=wanted)
    assert said(root) == {"all-crowds": "error"}
    copy = mended(root, tmp_path / "out")
    assert worst(copy, "coco") == 1
    assert said(copy) == {}
    entries = json.loads((copy / "annotations.json").read_text())["annotations"]
    assert {entry["iscrowd"] for entry in entries} == {0}


def test_nothing_but_difficult_objects(tmp_path):
    root = WRITERS["voc"](tmp_path / "set", pictures())
    for file in (root / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    with pytest.raises(UserError, match="difficult in VOC"):
        open_data(root, annotation="boxes")
    assert worst(mended(root, tmp_path / "out"), "voc") == 1


def test_crowds_among_other_objects(tmp_path):
    root = changed(write_coco(tmp_path / "some", pictures()), lambda entry: {"iscrowd": int(entry["id"] == 3)})
    assert said(root) == {"crowds": "info"}
    root = changed(
        write_coco(tmp_path / "class", pictures()), lambda entry: {"iscrowd": int(entry["category_id"] == 1)}
    )
    assert said(root) == {"crowd-class": "warning", "crowds": "info"}
    assert any("all objects of green are crowds" in note for note in open_data(root, annotation="boxes").notes)
    # A tool that marks every mask of run lengths, beside outlines.
    root = changed(write_coco(tmp_path / "runs", pictures(), "rle"), lambda entry: {"iscrowd": int(entry["id"] < 3)})
    assert said(root) == {"crowds": "warning"}
    assert any("3 objects are crowds" in note for note in open_data(root, annotation="boxes").notes)


def test_validation_of_nothing_but_crowds_is_no_reason_to_refuse(tmp_path):
    val = coco_document([annotation(1, 10, iscrowd=1)], 1, 5)
    root = write_parts(tmp_path, coco_document([annotation(1, 10), annotation(2, 20)]), val)
    assert open_data(root, annotation="boxes").val.target(0).crowd.tolist() == [True]


@pytest.mark.parametrize("spell", [lambda name: name, lambda name: f"./{name}", lambda name: f"x/../{name}"])
def test_one_picture_under_two_ids(tmp_path, spell):
    def split(document):
        for entry in [dict(entry) for entry in document["images"]]:
            document["images"].append(entry | {"id": entry["id"] + 100, "file_name": spell(entry["file_name"])})
        for entry in document["annotations"]:
            entry["image_id"] += 100 * entry["category_id"]
        document["annotations"].append(document["annotations"][1] | {"id": 999, "image_id": 0})

    whole = write_coco(tmp_path / "whole", pictures())
    root = rewritten(write_coco(tmp_path / "set", pictures()), split)
    (root / "images/x").mkdir()
    assert objects(root) == objects(whole)
    assert said(root) == {"same-picture": "warning"}
    notes = open_data(root, annotation="boxes").notes
    assert any("5 pictures are entered more than once" in note and "1 object was there twice" in note for note in notes)
    copy = mended(root, tmp_path / "out")
    assert objects(copy, "masks") == objects(whole, "masks")
    assert said(copy) == {}


@pytest.mark.parametrize(
    "image", [float, str, "{:06d}".format, "i{}".format, lambda at: at + 0.5, lambda at: 10**15 + at]
)
@pytest.mark.parametrize("category", [float, "c{}".format])
def test_ids_of_other_types(tmp_path, image, category):
    def spell(document):
        for entry in document["images"]:
            entry["id"] = image(entry["id"])
        for entry in document["categories"]:
            entry["id"] = category(entry["id"])
        for entry in document["annotations"]:
            entry["image_id"], entry["category_id"] = image(entry["image_id"]), category(entry["category_id"])

    whole = write_coco(tmp_path / "whole", pictures())
    root = rewritten(write_coco(tmp_path / "set", pictures()), spell)
    assert objects(root) == objects(whole)
    assert said(root) == {}
    copy = mended(root, tmp_path / "out")
    assert (copy / "annotations.json").read_text() == (root / "annotations.json").read_text()


def test_ids_in_two_spellings(tmp_path):
    """Text in one list and numbers in the other are the same ids, unless two are spelt alike."""

    def spell(document):
        for entry in document["images"]:
            entry["id"] = f"{entry['id']:04d}"

    whole = write_coco(tmp_path / "whole", pictures())
    root = rewritten(write_coco(tmp_path / "set", pictures()), spell)
    assert objects(root) == objects(whole)
    root = rewritten(root, lambda document: document["images"].append(document["images"][1] | {"id": "1"}))
    assert said(root)["stray-annotation"] == "error"


def test_separators_of_another_system(tmp_path):
    root = write_coco(tmp_path, pictures())
    (root / "images/sub").mkdir()
    (root / "images/0.png").rename(root / "images/sub/0.png")
    rewritten(root, lambda document: document["images"][0].update(file_name="sub\\0.png"))
    assert "images/sub/0.png" in objects(root)


def test_what_training_never_sees_at_its_size():
    boxes = np.array([[0, 0, 100, 100], [5, 5, 9, 300], [20, 20, 400, 400]], dtype=np.float32)
    crowd = np.array([False, False, True])
    target = Objects(boxes, np.zeros(3, dtype=np.int64), crowd, np.ones(3, dtype=np.float32), None, (1000, 800))
    split = ObjectSplit(("a",), ArrayImages(np.zeros((1, 8, 8), np.uint8)), (target,), (1,))
    assert never_seen(split, ScenePreprocessing(800, 1333)) == ["training leaves out 1 as crowds of its 3 objects"]
    assert never_seen(split, ScenePreprocessing(80, 133)) == [
        "training leaves out 1 as crowds and 1 as smaller than a pixel at the size of training of its 3 objects"
    ]
    assert never_seen(split.select([]), ScenePreprocessing(80, 133)) == []
