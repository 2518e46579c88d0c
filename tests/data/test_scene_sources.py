import csv
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from scene_files import (
    annotation,
    coco_document,
    healthy_coco,
    mask,
    picture,
    write_coco,
    write_nuclei,
    write_pairs,
    write_voc,
    write_yolo,
)

from resurge.data.formats import FORMATS
from resurge.data.sources import open_data, open_split, recognise
from resurge.data.splits import write_split
from resurge.errors import UserError


def test_every_format_is_recognised(tmp_path):
    healthy_coco(tmp_path / "coco")
    write_voc(tmp_path / "voc", {"a": [("dog", 1, 1, 9, 9)]})
    write_yolo(tmp_path / "yolo", {"a": "0 0.5 0.5 0.5 0.5"})
    write_nuclei(tmp_path / "nuclei")
    write_pairs(tmp_path / "pairs")
    for name in ("coco", "voc", "yolo", "nuclei", "pairs"):
        assert recognise(tmp_path / name) == (FORMATS[name], tmp_path / name)
        assert recognise(tmp_path / name, "maps") == (FORMATS[name], tmp_path / name)
    assert recognise(tmp_path) is None  # several subfolders: which one is meant?
    for name in ("cat", "dog"):
        picture(tmp_path / "pets" / name / "0.png")
    assert recognise(tmp_path / "pets") is None


def test_a_folder_that_is_both_serves_both(tmp_path):
    for folder, classes in (("VOC2012", 21), ("mine", 3)):
        root = write_voc(tmp_path / folder, {stem: [("dog", 1, 1, 9, 9)] for stem in "abc"})
        for i, stem in enumerate("abc"):
            mask(root / f"SegmentationClass/{stem}.png", i)
        assert open_data(root, annotation="boxes").classes == ("dog",)
        assert open_data(root, annotation="maps").num_classes == classes


def test_validation_from_elsewhere(tmp_path):
    root = healthy_coco(tmp_path / "a")
    other = write_coco(tmp_path / "b", coco_document([annotation(1, 10, 7), annotation(2, 20, 90)], 2, 60))
    bundle = open_data(root, annotation="boxes", val=other)
    assert bundle.val.ids == ("train2017/a60.png", "train2017/a61.png")
    assert bundle.val.target(0).labels.tolist() == [1]
    assert bundle.how.endswith("validating on b")
    assert bundle.val.read(0).size == (40, 30)
    same = open_data(root, annotation="boxes", val="annotations/instances_val2017.json")
    assert same.val.ids == ("val2017/a5.png", "val2017/a6.png", "val2017/a7.png")
    assert open_data(root, annotation="boxes", val="val").val.ids == open_data(root, annotation="boxes").val.ids
    for val, message in (("test", "neither a part of a"), (write_pairs(tmp_path / "p"), "no objects")):
        with pytest.raises(UserError, match=message):
            open_data(root, annotation="boxes", val=val)
    write_pairs(tmp_path / "q", parts=("train",))
    assert len(open_data(tmp_path / "p", annotation="maps", val=tmp_path / "q").val) == 3


def test_what_a_run_keeps(tmp_path):
    names = {0: "new\nline.png", 1: "b,;\"'.png"}
    root = write_coco(tmp_path / "set", coco_document([annotation(1, 10), annotation(2, 20)], names=names))
    bundle = open_data(root, annotation="boxes", seed=4)
    write_split(bundle, tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {str(path) for path in (root / "train2017").iterdir()}
    assert [row["split"] for row in rows] == ["train", "train", "val"]
    kept = json.loads(json.dumps(bundle.to_json()))
    assert (kept["sizes"], kept["seed"]) == ({"train": 2, "val": 1}, 4)
    assert str(tmp_path) not in json.dumps(kept)
    for split in pickle.loads(pickle.dumps(bundle)).splits().values():
        assert split.select([0]).read(0).size == (40, 30)


def test_channels_and_size_come_from_the_images(tmp_path):
    for i in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((900, 1000), i, dtype=np.uint8)).save(tmp_path / f"images/{i}.png")
        mask(tmp_path / f"masks/{i}.png", i % 2, (1000, 900))
    bundle = open_data(tmp_path, annotation="maps")
    assert (bundle.in_channels, bundle.default_size) == (1, 800)


def test_what_is_in_no_format(tmp_path):
    picture(tmp_path / "x/cat/0.png")
    with pytest.raises(UserError, match=r"no format of annotations that is known\. Expected one of: COCO"):
        open_data(tmp_path / "x", annotation="boxes")
    with pytest.raises(UserError, match="Expected one of: Pascal VOC: SegmentationClass"):
        open_data(tmp_path / "x", annotation="maps")
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        open_data(tmp_path / "nowhere", annotation="boxes")


def test_the_other_task_is_named(tmp_path):
    write_voc(tmp_path / "boxes", {"a": [("dog", 1, 1, 9, 9)]})
    with pytest.raises(UserError, match="format voc, for annotation='boxes'"):
        open_data(tmp_path / "boxes")
    write_pairs(tmp_path / "maps")  # two folders of images: they could be two classes
    notes = open_data(tmp_path / "maps").notes
    assert any("format pairs, for annotation='maps'" in note for note in notes)


def test_parts_to_evaluate_on(tmp_path):
    root = healthy_coco(tmp_path)
    assert [len(open_split(root, annotation="boxes", split=name)[0]) for name in ("train", "val", "auto")] == [3, 3, 3]
    for split, message in (("all", "is already split"), ("test", "has no test split; it has train, val")):
        with pytest.raises(UserError, match=message):
            open_split(root, annotation="boxes", split=split)
    with pytest.raises(UserError, match="Did you mean 'train'"):
        open_split(root, annotation="boxes", split="trian")


def test_validation_without_training(tmp_path):
    write_pairs(tmp_path, parts=("val", "test"))
    with pytest.raises(UserError, match="no images to train on"):
        open_data(tmp_path, annotation="maps")
    assert len(open_split(tmp_path, annotation="maps")[0]) == 3
