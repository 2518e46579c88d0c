"""Numbers that mean something else than the format says: found, named, and put right by a mended copy."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from data.test_fit import mended, pictures, said, worst
from drawn_scenes import WRITERS, write_coco
from scene_files import picture

from resurge.data.conventions import WAYS, questioned
from resurge.data.records import RawObject, Record
from resurge.data.regions import polygons, run_lengths_of
from resurge.data.sources import open_data, read_source
from resurge.errors import UserError

Change = Callable[[dict], dict]
W, H = 48, 32


def points(annotation: dict) -> np.ndarray:
    return np.array(annotation["segmentation"], dtype=float).reshape(-1, 2)


def flat(values: np.ndarray) -> list[list[float]]:
    return [values.reshape(-1).tolist()]


def changed(root, change: Change):
    file = root / "annotations.json"
    document = json.loads(file.read_text())
    document["annotations"] = [entry | change(entry) for entry in document["annotations"]]
    file.write_text(json.dumps(document))
    return root


def shares(entry):
    x, y, w, h = entry["bbox"]
    return {"bbox": [x / W, y / H, w / W, h / H]}


def corners(entry):
    x, y, w, h = entry["bbox"]
    return {"bbox": [x, y, x + w, y + h]}


def centres(entry):
    x, y, w, h = entry["bbox"]
    return {"bbox": [x + w / 2, y + h / 2, w, h]}


def swapped(entry):
    x, y, w, h = entry["bbox"]
    return {"bbox": [y, x, h, w]}


def swapped_points(entry):
    return {"segmentation": flat(points(entry)[:, ::-1])}


def shared_points(entry):
    return {"segmentation": flat(points(entry) / (W, H))}


@pytest.mark.parametrize("kind", ["boxes", "polygons", "rle"])
@pytest.mark.parametrize("change, message", [
    (shares, "are shares of one, where pixels are expected"), (corners, r"are corners \(x1, y1, x2, y2\), where"),
    (centres, "are a centre and a size"), (swapped, "x and y of the 20 boxes have changed places"),
])  # fmt: skip
def test_boxes_of_another_convention(tmp_path, kind, change, message):
    root = changed(write_coco(tmp_path / "set", pictures(10), kind), change)
    with pytest.raises(UserError, match=rf"annotations.json: .*{message}.*check-data --fix"):
        open_data(root, annotation="boxes")
    assert said(root) == {"convention": "error"}
    copy = mended(root, tmp_path / "out")
    assert worst(copy, "boxes" if kind == "boxes" else "coco") > 0.999
    assert said(copy) == {}


@pytest.mark.parametrize("change, message", [
    (lambda entry: shares(entry) | shared_points(entry), "shares of one"),
    (lambda entry: swapped(entry) | swapped_points(entry), "have changed places"),
    (shared_points, "outside their boxes: their points are shares of one"),
    (swapped_points, "outside their boxes: x and y of their points have changed places"),
])  # fmt: skip
def test_outlines_of_another_convention(tmp_path, change, message):
    root = changed(write_coco(tmp_path / "set", pictures(10)), change)
    with pytest.raises(UserError, match=message):
        open_data(root, annotation="masks")
    copy = mended(root, tmp_path / "out")
    assert worst(copy, "coco") > 0.999
    assert said(copy) == {}


def test_masks_that_lie_elsewhere(tmp_path):
    def move(entry):
        return {"segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]}

    few = changed(write_coco(tmp_path / "few", pictures(10)), lambda entry: move(entry) if entry["id"] == 7 else {})
    assert said(few) == {"mask-elsewhere": "warning"}
    assert any("1 of 20 masks lie outside" in note for note in open_data(few, annotation="masks").notes)
    with pytest.raises(UserError, match="masks lie outside their boxes"):
        open_data(changed(write_coco(tmp_path / "all", pictures(10)), move), annotation="masks")


@pytest.mark.parametrize("nest", [
    lambda pairs: pairs,  # [[x, y], …]
    lambda pairs: [pairs],  # [[[x, y], …]]
    lambda pairs: [value for pair in pairs for value in pair],  # [x, y, …]
    lambda pairs: [[[value for pair in pairs for value in pair]]],
])  # fmt: skip
def test_outlines_in_other_lists_are_read(tmp_path, nest):
    root = changed(write_coco(tmp_path / "set", pictures()),
                   lambda entry: {"segmentation": nest(points(entry).tolist())})  # fmt: skip
    assert worst(root, "coco") == 1
    assert said(root) == {"point-pairs": "info"}
    copy = mended(root, tmp_path / "out")
    assert worst(copy, "coco") == 1
    assert said(copy) == {}


def test_lists_in_lists_without_end_are_no_outline(tmp_path):
    deep: list = []
    for _ in range(500):
        deep = [deep, 1]
    root = changed(write_coco(tmp_path, pictures()), lambda entry: {"segmentation": deep} if entry["id"] == 1 else {})
    assert said(root) == {"bad-object": "error"}


def test_shares_and_sizes_in_other_formats(tmp_path):
    root = WRITERS["voc"](tmp_path / "voc", pictures(10))
    for file in (root / "Annotations").iterdir():
        text = file.read_text()
        for corner, side in (("xmin", W), ("ymin", H), ("xmax", W), ("ymax", H)):
            head, *rest = text.split(f"<{corner}>")
            text = head + "".join(f"<{corner}>{(float(part.split('<')[0]) - (corner[1:] == 'min')) / side}"
                                  f"{part[part.index('<'):]}" for part in rest)  # fmt: skip
        file.write_text(text)
    with pytest.raises(UserError, match="are shares of one"):
        open_data(root, annotation="boxes")
    assert worst(mended(root, tmp_path / "out"), "voc") > 0.999
    root = WRITERS["yolo"](tmp_path / "yolo", pictures(10))
    for file in (root / "labels").iterdir():
        lines = [line.split() for line in file.read_text().splitlines()]
        four = [(int(label), *map(float, rest)) for label, *rest in lines]
        file.write_text("".join(f"{k} {x - w / 2} {y - h / 2} {x + w / 2} {y + h / 2}\n" for k, x, y, w, h in four))
    with pytest.raises(UserError, match=r"are corners \(x1, y1, x2, y2\), where a centre"):
        open_data(root, annotation="boxes")
    assert worst(mended(root, tmp_path / "mended"), "yolo") > 0.999


def test_objects_below_a_pixel(tmp_path):
    def small(entry):
        return {"bbox": [*entry["bbox"][:2], 0.5, 0.75], "segmentation": [], "area": 0.375}

    some = changed(write_coco(tmp_path / "some", pictures()), lambda entry: small(entry) if entry["id"] == 3 else {})
    assert said(some) == {"below-a-pixel": "warning", "no-mask": "warning"}
    assert any("1 of 10 objects are smaller" in note for note in open_data(some, annotation="boxes").notes)
    with pytest.raises(UserError, match="10 of 10 objects are smaller than a pixel"):
        open_data(changed(write_coco(tmp_path / "all", pictures()), small), annotation="boxes")


def sound_records(seed: int) -> tuple[list[Record], str]:
    """Random records without a fault, in one of the ways, some with masks, areas, and boxes of the whole image."""
    random = np.random.default_rng(seed)
    way = list(WAYS)[seed % 3]
    largest = float(random.choice([0.1, 0.5, 1.0]))
    whole, kind, known = random.random() < 0.3, random.integers(4), random.random() < 0.7
    records = []
    for at in range(int(random.integers(1, 12))):
        width, height = (int(side) for side in random.integers(9, 200, 2))
        things = []
        for key in range(int(random.integers(0, 6))):
            w, h = (max(float(random.uniform(0.02, largest)) * side, 1.0) for side in (width, height))
            x, y = float(random.uniform(0, width - w)), float(random.uniform(0, height - h))
            box = (x, y, x + w, y + h)
            if whole and random.random() < 0.5:
                box = (0.0, 0.0, float(width), float(height))
            elif random.random() < 0.5:
                box = (float(int(x)), float(int(y)), float(min(int(x) + int(w) + 1, width)),
                       float(min(int(y) + int(h) + 1, height)))  # fmt: skip
            x1, y1, x2, y2 = box
            region, area = None, (x2 - x1) * (y2 - y1) * (random.uniform(0.3, 1) if kind else 1)
            if kind == 1:
                region = polygons([[x1, y1, x2, y1, (x1 + x2) / 2, y2]])
            elif kind == 2:
                mask = np.zeros((height, width), dtype=bool)
                mask[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
                region = run_lengths_of(mask)
            things.append(RawObject(f"{key}", key, "a", box, region=region, area=float(area) if known else None))
        records.append(Record(f"{at}.png", tuple(things), (width, height)))
    return records, way


def test_sound_records_are_not_suspected():
    for seed in range(300):
        records, way = sound_records(seed)
        found = questioned(records, [record.size for record in records], way)
        assert found == (tuple(records), [], ""), seed


def test_boxes_beyond_their_images_alone_are_no_convention():
    """A few sloppy boxes, or few objects in all, are reported one by one."""
    records, way = sound_records(1)
    thing = RawObject("0", 0, "a", (10.0, 10.0, 80.0, 70.0))
    for count in (1, 7):
        few = [Record("a.png", (thing,) * count, (60, 60))]
        assert questioned(few, [(60, 60)], "sizes") == (tuple(few), [], "")
    many = [*records, *(replace(record, name=f"x{record.name}") for record in records),
            Record("a.png", (thing,), (60, 60))]  # fmt: skip
    assert questioned(many, [record.size for record in many], way)[1] == []


def test_a_part_that_fits_either_way_is_read_as_the_others(tmp_path):
    """Boxes near the diagonal lie in their pictures with x and y exchanged too."""
    box = {"train": (8.0, 2.0, 20.0, 24.0), "val": (30.0, 4.0, 44.0, 26.0)}
    entries = {part: [(f"{part}{i}.png", box[part]) for i in range(9)] for part in box}
    for part, pictures_of in entries.items():
        document = {"categories": [{"id": 1, "name": "a"}], "images": [], "annotations": []}
        for i, (name, (x1, y1, x2, y2)) in enumerate(pictures_of):
            picture(tmp_path / part / name, i, (W, H))
            document["images"].append({"id": i, "file_name": name, "width": W, "height": H})
            document["annotations"].append({"id": i, "image_id": i, "category_id": 1, "iscrowd": 0,
                                            "bbox": [y1, x1, y2 - y1, x2 - x1]})  # fmt: skip
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/instances_{part}.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="changed places"):
        open_data(tmp_path, annotation="boxes")
    found = read_source(tmp_path, "boxes")
    for part, records in found.parts.items():
        assert [record.objects[0].box for record in records] == [box[part]] * 9, part
        assert any(f"instances_{part}.json: x and y of the 9 boxes" in each.message for each in found.findings)


def test_the_part_that_is_meant_is_named(tmp_path):
    root = changed(write_coco(tmp_path, pictures(10)), swapped)
    (found,) = read_source(root, "boxes").findings
    assert "(images/0.png, images/1.png, images/2.png, …)" in found.message
