import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from scene_files import SQUARE, annotation, coco_document, masks_of, picture, write_coco

from resurge.data.formats.coco import Coco, find_coco
from resurge.data.sources import open_data, open_split
from resurge.errors import UserError


def test_a_folder_in_cocos_layout(tmp_path):
    crowd = {"size": [30, 40], "counts": [5, 20, 1175]}
    train = coco_document([
        annotation(1, 10, 7, (1, 2, 10, 20)),
        annotation(2, 10, 1, (3, 3, 0, 5)),
        annotation(3, 30, 90, (0, 0, 40, 30), iscrowd=1, segmentation=crowd, area=20),
        annotation(4, 30, 1, (-8, 5, 20, 10)),
        annotation(5, 10, 1, segmentation=[]),
    ])  # fmt: skip
    val = coco_document([annotation(1, 10, 1)], images=1)
    bundle = open_data(write_coco(tmp_path / "set", train, val), annotation="boxes")
    assert bundle.classes == ("cat", "dog", "bird")  # in the order of the ids, which have gaps
    assert bundle.train.ids == ("train2017/a0.png", "train2017/a1.png", "train2017/a2.png")
    assert bundle.train.image_ids == (10, 20, 30)
    first, second, third = (bundle.train.target(i) for i in range(3))
    assert first.boxes.tolist() == [[1, 2, 11, 22], [2, 2, 12, 12]]
    assert first.labels.tolist() == [1, 0]
    assert len(second) == 0
    assert third.crowd.tolist() == [True, False]
    assert third.boxes[1].tolist() == [0, 5, 12, 15]  # cut to the image
    assert third.area.tolist() == [20, 200]
    assert first.regions is None
    assert len(bundle.val) == 1
    assert "1 box without area was left out: train2017/a0.png" in bundle.notes
    assert any("1 training image has no objects" in note for note in bundle.notes)
    assert (bundle.in_channels, bundle.default_size, bundle.annotation) == (3, 30, "boxes")
    assert bundle.train.read(0).size == (40, 30)

    with_masks = open_data(tmp_path / "set", annotation="masks")
    first, third = with_masks.train.target(0), with_masks.train.target(2)
    assert len(first) == 1
    assert "1 object without a mask was left out: train2017/a0.png" in with_masks.notes
    assert masks_of(first, 30, 40).sum() == 100
    assert masks_of(third, 30, 40)[0].sum() == 20
    assert masks_of(pickle.loads(pickle.dumps(with_masks.train)).target(2), 30, 40).shape == (2, 30, 40)


@pytest.mark.parametrize("place", ["train2017", "images/train2017", "train", "images", ".", "annotations"])
def test_where_images_may_be(tmp_path, place):
    document = coco_document([annotation(1, 10)])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(document))
    for i in range(3):
        picture(tmp_path / place / f"a{i}.png", i)
    bundle = open_data(tmp_path, annotation="boxes", val_fraction=0.34)
    assert bundle.train.path(0).is_file()
    assert (len(bundle.train), len(bundle.val)) == (2, 1)
    assert "held out by image with seed 0" in bundle.how


def test_a_single_file_with_images_beside(tmp_path):
    document = coco_document([annotation(i, 10 * i) for i in (1, 2, 3)])
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    for i in range(3):
        picture(tmp_path / f"a{i}.png", i)
    bundle = open_data(tmp_path / "boxes.json", annotation="masks", seed=1)
    again = open_data(tmp_path / "boxes.json", annotation="masks", seed=1)
    assert bundle.val.ids == again.val.ids
    assert not set(bundle.train.ids) & set(bundle.val.ids)
    split, classes, what = open_split(tmp_path / "boxes.json", annotation="boxes")
    assert (len(split), classes) == (3, ("cat", "dog", "bird"))
    assert "all images" in what
    held, _, _ = open_split(tmp_path / "boxes.json", annotation="masks", split="val", seed=1)
    assert held.ids == bundle.val.ids
    kept, _, _ = open_split(tmp_path / "boxes.json", annotation="masks", split="train", seed=1)
    assert kept.ids == bundle.train.ids


def test_files_in_split_folders_and_plain_names(tmp_path):
    for part, first in (("train", 0), ("valid", 5), ("test", 9)):
        document = coco_document([annotation(1, 10)], images=1, first=first)
        (tmp_path / part).mkdir()
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(document))
        picture(tmp_path / part / f"a{first}.png", first)
    bundle = open_data(tmp_path, annotation="boxes")
    assert [split.ids for split in bundle.splits().values()] == [("train/a0.png",), ("valid/a5.png",), ("test/a9.png",)]
    assert find_coco(tmp_path / "train") == {"": tmp_path / "train" / "_annotations.coco.json"}


def test_other_annotation_files_are_passed_over(tmp_path):
    write_coco(tmp_path, coco_document([annotation(1, 10)]), coco_document([annotation(1, 10)], 1, 7))
    for name in ("captions_train2017", "person_keypoints_train2017", "panoptic_val2017", "image_info_test2017"):
        (tmp_path / "annotations" / f"{name}.json").write_text("{}")
    assert set(find_coco(tmp_path)) == {"train", "val"}
    (tmp_path / "annotations/instances_train2014.json").write_text("{}")
    with pytest.raises(UserError, match="two annotation files for train"):
        find_coco(tmp_path)


def test_odd_names_survive(tmp_path):
    names = {0: "sub/größe ü.png", 1: "new\nline.png", 2: "a'\"b, c;.png"}
    document = coco_document([annotation(1, 10), annotation(2, 20), annotation(3, 30)], names=names)
    document["categories"][1]["name"] = "cat\n\u202e,\t'x' / \\"
    write_coco(tmp_path, document)
    source = Coco().read(tmp_path)
    assert source.classes[0] == "cat\n\u202e,\t'x' / \\"
    bundle = open_data(tmp_path, annotation="boxes", val_fraction=0.3)
    found = {*bundle.train.ids, *bundle.val.ids}
    assert found == {f"train2017/{name}" for name in names.values()}
    assert all(bundle.train.read(i).size == (40, 30) for i in range(len(bundle.train)))
    assert json.loads(json.dumps(bundle.to_json()))["classes"][0] == "cat\n\u202e,\t'x' / \\"


def test_where_a_file_is_cut_short(tmp_path):
    write_coco(tmp_path, coco_document([annotation(1, 10, note="ü" * 50)]))
    file = tmp_path / "annotations/instances_train2017.json"
    text = file.read_bytes()
    file.write_bytes(text[: len(text) // 2])
    with pytest.raises(UserError, match=r"is cut short: .*: line 1 column \d+ .*\. Copy or download"):
        open_data(tmp_path, annotation="boxes")
    file.write_bytes(text.replace(b'": 10', b'"? 10', 1))
    with pytest.raises(UserError, match=r"is damaged: .*: line 1 column "):
        open_data(tmp_path, annotation="boxes")
    for text, message in (
        (b"", "is cut short: Expecting value"),
        (b"[1]", "no list of images"),
        (b'{"images": []}', "no list of annot"),
    ):
        file.write_bytes(text)
        with pytest.raises(UserError, match=message):
            open_data(tmp_path, annotation="boxes")


@pytest.mark.parametrize(
    "change, left_out",
    [
        ({"category_id": 5}, "1 object of an unknown category was left out"),
        ({"category_id": "cat"}, "unknown category"),
        ({"category_id": [1]}, "unknown category"),
        ({"bbox": [1, 2, 3]}, "1 damaged object was left out"),
        ({"bbox": None}, "damaged object"),
        ({"bbox": [1, 2, "3", 4]}, "damaged object"),
        ({"bbox": [1, 2, float("nan"), 4]}, "damaged object"),
        ({"bbox": [1, 2, 10**400, 4]}, "damaged object"),
        ({"segmentation": [[1, 2, 3, 4, 5, 10**400]]}, "damaged object"),
        ({"bbox": [50, 2, 5, 5]}, "1 box outside its image was left out"),
        ({"bbox": [5, 5, -3, 4]}, "1 box without area was left out"),
        ({"segmentation": {"size": [3, 5], "counts": [15]}}, "1 mask of another size than its image was left out"),
        ({"segmentation": {"size": [30, 40], "counts": "PPP"}}, "damaged object"),
        ({"segmentation": [[1e8, 2, 12, 2, 12, 12]]}, "damaged object"),
        ({"segmentation": 7}, "damaged object"),
        ({"segmentation": [[1, 2, "x", 4, 5, 6]]}, "damaged object"),
    ],
)
def test_damaged_objects_are_left_out_with_a_note(tmp_path, change, left_out):
    document = coco_document([annotation(1, 10, 7), annotation(2, 10, 1) | change, annotation(3, 20)])
    bundle = open_data(write_coco(tmp_path, document, coco_document([annotation(1, 10)], 1)), annotation="boxes")
    assert bundle.train.target(0).labels.tolist() == [1]
    assert any(left_out in note for note in bundle.notes), bundle.notes


def test_damaged_entries_of_images(tmp_path):
    document = coco_document([annotation(1, 10), annotation(2, 999), annotation(3, 20)])
    document["images"] += [{"id": 10, "file_name": "twice.png"}, {"id": 50}, {"id": [6], "file_name": "x.png"}, 4]
    document["annotations"].append("nothing")
    file = write_coco(tmp_path, coco_document([annotation(1, 10)])) / "annotations/instances_train2017.json"
    file.write_text(json.dumps(document))
    source = Coco().read(tmp_path)
    assert {finding.kind: len(finding.paths) for finding in source.findings} == {
        "bad-image-entry": 4, "stray-annotation": 2,
    }  # fmt: skip
    assert [record.number for record in source.parts["train"]] == [10, 20, 30]


@pytest.mark.parametrize("categories, message", [
    ([{"id": None, "name": "cat"}], "entry 0 of categories"), ([{"id": 1}], "needs a name"),
    ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "entry 1"), (["cat"], "entry 0"),
])  # fmt: skip
def test_damaged_categories(tmp_path, categories, message):
    write_coco(tmp_path, coco_document([annotation(1, 10)]) | {"categories": categories})
    with pytest.raises(UserError, match=message):
        open_data(tmp_path, annotation="boxes")


def test_categories_of_the_same_name_are_told_apart(tmp_path):
    document = coco_document([annotation(1, 10, 7)]) | {"categories": [{"id": 7, "name": "a"}, {"id": 9, "name": "a"}]}
    assert Coco().read(write_coco(tmp_path, document)).classes == ("a (7)", "a (9)")


def test_classes_of_validation_are_matched_by_name(tmp_path):
    val = coco_document([annotation(1, 10, 4)], 1) | {"categories": [{"id": 4, "name": "dog"}]}
    write_coco(tmp_path, coco_document([annotation(1, 10)]), val)
    assert open_data(tmp_path, annotation="boxes").val.target(0).labels.tolist() == [1]
    assert open_split(tmp_path, annotation="boxes", classes=("x", "y", "dog"))[0].target(0).labels.tolist() == [2]
    file = tmp_path / "annotations/instances_val2017.json"
    file.write_text(json.dumps(val | {"categories": [{"id": 4, "name": "dogs"}]}))
    with pytest.raises(UserError, match=r"'dogs' is not one of training's .*Did you mean 'dog'"):
        open_data(tmp_path, annotation="boxes")


def test_missing_images(tmp_path):
    write_coco(tmp_path, coco_document([annotation(1, 10), annotation(2, 20)]), coco_document([annotation(1, 10)], 1))
    (tmp_path / "train2017/a1.png").unlink()
    bundle = open_data(tmp_path, annotation="boxes")
    assert len(bundle.train) == 2
    assert "1 listed image is not there: train2017/a1.png" in bundle.notes
    for file in (tmp_path / "train2017").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="none of the 3 images"):
        open_data(tmp_path, annotation="boxes")


def test_images_without_a_size(tmp_path):
    document = coco_document([annotation(1, 10, area=None)])
    write_coco(tmp_path, document, coco_document([annotation(1, 10)], 1))
    for entry in document["images"]:
        del entry["width"], entry["height"]
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(document))
    objects = open_data(tmp_path, annotation="masks").train.target(0)
    assert objects.boxes.tolist() == [[2, 2, 12, 12]]
    assert objects.area.tolist() == [100]


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(UserError, match="has no object to train on in its 3 training images"):
        open_data(write_coco(tmp_path, coco_document([]), coco_document([], 1)), annotation="boxes")


def test_parts_without_images_or_categories(tmp_path):
    empty, good = coco_document([], 0), coco_document([annotation(1, 10), annotation(2, 20), annotation(3, 30)])
    data = write_coco(tmp_path / "no-images", empty, good)
    message = r"no-images has no images to train on: its training part lists none .*Expected at least two; add"
    with pytest.raises(UserError, match=message):
        open_data(data, annotation="boxes")
    with pytest.raises(UserError, match="has no images to train on: it lists none"):
        open_data(data / "annotations/instances_train2017.json", annotation="boxes")
    data = write_coco(tmp_path / "no-categories", good | {"categories": []}, good)
    message = r"no-categories has no classes: the list of categories is empty .*Expected an entry with an id and a name"
    with pytest.raises(UserError, match=message):
        open_data(data, annotation="boxes")
    data = write_coco(tmp_path / "no-validation", good, empty)
    assert "the val part of no-validation lists no images and is left out" in open_data(data, annotation="boxes").notes
    with pytest.raises(UserError, match=r"the val split .* lists no images"):
        open_split(data, annotation="boxes", split="val")
    with pytest.raises(UserError, match="given with --val, lists no images"):
        open_data(data, annotation="boxes", val=data / "annotations/instances_val2017.json")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_other_encodings_of_unicode_are_read(tmp_path, encoding):
    write_coco(tmp_path, coco_document([annotation(1, 10)]))
    file = tmp_path / "annotations/instances_train2017.json"
    text = file.read_text().encode(encoding)
    file.write_bytes(text)
    assert [len(record.objects) for record in Coco().read(tmp_path).parts["train"]] == [1, 0, 0]
    for content in (text[: len(text) // 2], bytes(100)):  # a disk that was full leaves zeros
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"is cut short: .* \(char \d+\)\. Copy or download"):
            open_data(tmp_path, annotation="boxes")


def test_boxes_alone_do_not_serve_instances(tmp_path):
    write_coco(tmp_path, coco_document([annotation(1, 10, segmentation=[])]))
    with pytest.raises(UserError, match=r"has boxes but no masks.*annotation='boxes'"):
        open_data(tmp_path, annotation="masks")
    with pytest.raises(UserError, match=r"no class for every pixel.*annotation='boxes'"):
        open_data(tmp_path, annotation="maps")


def test_outlines_of_too_few_points_beside_good_ones(tmp_path):
    document = coco_document([annotation(1, 10, segmentation=[[1, 1, 2, 2], *SQUARE]),
                              annotation(2, 10, segmentation=[[1, 1, 2, 2]])])  # fmt: skip
    bundle = open_data(write_coco(tmp_path, document, coco_document([annotation(1, 10)], 1)), annotation="masks")
    assert len(bundle.train.target(0)) == 1


def test_a_mask_without_a_pixel_is_none(tmp_path):
    empty = {"size": [30, 40], "counts": [1200]}
    document = coco_document([annotation(1, 10), annotation(2, 10, 7, segmentation=empty), annotation(3, 20)])
    write_coco(tmp_path, document, coco_document([annotation(1, 10)], 1))
    assert open_data(tmp_path, annotation="boxes").train.target(0).labels.tolist() == [0, 1]
    bundle = open_data(tmp_path, annotation="masks")
    assert bundle.train.target(0).labels.tolist() == [0]
    assert "1 object without a mask was left out: train2017/a0.png" in bundle.notes, bundle.notes


def test_the_real_subset(real_data: Path):
    folder = real_data / "coco_tiny"
    if not folder.is_dir() or not (folder / "annotations").is_dir():
        pytest.skip("COCO_Tiny is not unpacked")
    pytest.importorskip("pycocotools")
    from faster_coco_eval.core import mask as coco_mask
    from pycocotools.coco import COCO

    bundle = open_data(folder, annotation="masks")
    assert bundle.num_classes == 80
    assert (bundle.classes[0], bundle.classes[-1]) == ("person", "toothbrush")
    assert [len(split) for split in bundle.splits().values()] == [80, 80]
    assert bundle.notes == ()
    for name, split, count, crowds in (("train", bundle.train, 705, 6), ("val", bundle.val, 815, 11)):
        assert sum(len(objects) for objects in split.objects) == count
        assert sum(int(objects.crowd.sum()) for objects in split.objects) == crowds
        reference = COCO(str(folder / f"annotations/instances_{name}2017.json"))
        for index in range(0, 80, 9):
            number = split.image_ids[index]
            entry = reference.imgs[number]
            assert split.read(index).size == (entry["width"], entry["height"])
            truths = reference.imgToAnns[number]
            objects = split.target(index)
            masks = masks_of(objects, entry["height"], entry["width"])
            assert len(truths) == len(objects)
            for truth, mask, area in zip(truths, masks, objects.area, strict=True):
                assert (coco_mask.decode(reference.annToRLE(truth)).astype(bool) == mask).all()
                assert area == pytest.approx(truth["area"], rel=1e-6)
    assert np.concatenate([objects.labels for objects in bundle.train.objects]).max() == 79
