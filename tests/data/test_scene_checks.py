import json

import numpy as np
import pytest
from scene_files import (
    annotation,
    broken_coco,
    coco_document,
    healthy_coco,
    kinds,
    mask,
    picture,
    voc_xml,
    write_coco,
    write_nuclei,
    write_pairs,
    write_voc,
    write_yolo,
)

from resurge.data.check_objects import box_sizes
from resurge.data.check_report import SEVERITIES
from resurge.data.checks import check_data
from resurge.errors import UserError


def check(source, **options):
    return check_data(source, **options)[0]


def test_a_healthy_set_has_no_findings(tmp_path):
    report = check(healthy_coco(tmp_path))
    assert report.findings == ()
    assert report.ok
    stats = report.stats
    assert stats["splits"] == {"train": 3, "val": 3}
    assert (stats["objects"], stats["crowds"], stats["masks"], stats["format"]) == (6, 0, True, "coco")
    assert stats["classes"]["train"] == {"cat": 1, "dog": 1, "bird": 1}
    assert stats["without_objects"] == {"train": 0, "val": 0}
    assert (stats["box_sizes"]["small"], stats["box_sizes"]["medium"]) == (6, 0)
    assert stats["width"] == {"min": 40, "median": 40, "max": 40}
    text = "\n".join(report.lines())
    for part in ("6 objects with boxes and masks", "objects in val: cat 1", "6 small", "nothing wrong found"):
        assert part in text
    assert json.loads(json.dumps(report.to_json()))["ok"]


def test_every_fault_of_a_coco_file_is_named(tmp_path):
    report = check(broken_coco(tmp_path / "set"))
    found = {finding.kind: finding for finding in report.findings}
    a = [f"train2017/a{i}.png" for i in range(8)]
    for kind, name, word in (
        ("empty-box", a[0], "annotation 11: the box has no area"), ("box-outside", a[0], "annotation 12"),
        ("box-beyond", a[1], "annotation 13"), ("unknown-category", a[1], "annotation 14: the category 5"),
        ("bad-object", a[1], "annotation 15: the bbox is none"), ("mask-size", a[2], "9 x 9"),
        ("same-object", a[0], "the same cat as annotation 1"),
        ("mask-elsewhere", a[1], "1 of 5 masks lie outside"), ("missing-file", a[3], "no such file"),
        ("truncated", a[4], "cut short"), ("wrong-size", a[5], "say 40 x 30 pixels, the image has 50 x 30"),
        ("no-mask", a[5], "1 of 1 object without a mask"), ("stray-annotation", "annotations[10]", "not in the file"),
        ("bad-image-entry", "images[8]", "without a file_name"), ("no-objects", a[7], "without objects"),
    ):  # fmt: skip
        assert name in found[kind].paths, kind
        assert word in found[kind].message, (kind, found[kind].message)
    assert found["overlap"].paths == (a[6], "val2017/a20.png")
    assert "val has no objects of bird" in found["class-missing"].message
    assert len(found) == 17
    assert all(finding.severity in SEVERITIES and finding.remedy for finding in report.findings)
    assert not report.ok


def test_a_file_that_is_cut_short_is_a_finding(tmp_path):
    root = healthy_coco(tmp_path)
    file = root / "annotations/instances_val2017.json"
    file.write_bytes(file.read_bytes()[:100])
    report = check(root)
    (finding,) = report.findings
    assert (finding.kind, finding.paths) == ("broken-annotations", ("annotations/instances_val2017.json",))
    assert "is cut short: " in finding.message
    assert "(char " in finding.message


def test_voc(tmp_path):
    objects = {stem: [("dog", 1, 1, 9, 9)] for stem in "abcd"}
    write_voc(tmp_path, objects, {"train": ["a", "b", "c", "c", "x"], "val": ["d", "a"]})
    (tmp_path / "Annotations/b.xml").write_text(voc_xml([("dog", 4, 4, 4, 9), ("dog", 1, 1, 50, 9), ("", 1, 1, 9, 9)]))
    (tmp_path / "Annotations/c.xml").write_text(voc_xml([("dog", 1, 1, 9, 9)])[:-30])
    (tmp_path / "Annotations/d.xml").write_text(voc_xml([("cat", 1, 1, 9, 9)], size=(30, 40)))
    report = check(tmp_path)
    assert kinds(report) == {
        "listed-twice", "missing-annotation", "empty-box", "box-beyond", "unknown-category", "broken-annotations",
        "unknown-class", "wrong-size", "overlap", "no-objects",
    }  # fmt: skip
    text = "\n".join(report.lines())
    assert "JPEGImages/b.jpg, object 1: the box has no area (xmin 4, ymin 4, xmax 4, ymax 9)" in text
    assert "is cut short: unclosed token: line" in text


def test_yolo(tmp_path):
    lines = "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n0 0.5 0.5 0 0.5\n1 0.9 0.5 0.5 0.5\n0 0.5 0.5"
    write_yolo(tmp_path, {"train/a": lines, "train/b": None, "val/a": "1 0.5 0.5 0.2 0.2"})
    (tmp_path / "labels/train/none.txt").write_text("0 0.5 0.5 0.5 0.5")
    report = check(tmp_path)
    assert kinds(report) == {
        "unknown-category", "empty-box", "box-beyond", "bad-object", "missing-file", "no-objects", "class-missing",
    }  # fmt: skip
    bad = next(finding for finding in report.findings if finding.kind == "bad-object")
    assert "line 5: '0 0.5 0.5' is neither" in bad.message
    assert report.stats["without_objects"] == {"train": 1, "val": 0}


def test_nuclei(tmp_path):
    write_nuclei(tmp_path)
    mask(tmp_path / "id1/masks/empty.png", 0)
    mask(tmp_path / "id1/masks/other.png", 255, (20, 20))
    (tmp_path / "id2/images/id2.png").unlink()
    assert kinds(check(tmp_path)) == {"empty-box", "mask-size", "missing-file"}
    assert check(tmp_path, annotation="boxes").stats["objects"] == 8


def test_label_maps(tmp_path):
    write_pairs(tmp_path, classes=3)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    mask(tmp_path / "masks/train/p0.png", np.arange(1200).reshape(30, 40) % 6)
    mask(tmp_path / "masks/train/p1.png", 1, (40, 35))
    mask(tmp_path / "masks/train/p2.png", 255)
    (tmp_path / "masks/val/p0.png").write_bytes(b"")
    (tmp_path / "images/val/p1.jpg").write_bytes((tmp_path / "images/train/p0.jpg").read_bytes())
    picture(tmp_path / "images/val/p9.jpg", 99)
    mask(tmp_path / "masks/val/p8.png", 1)
    report = check(tmp_path)
    found = {finding.kind: finding for finding in report.findings}
    assert set(found) == {"index-out-of-range", "mask-size", "all-ignored", "empty-file", "overlap", "missing-mask",
                          "missing-file", "class-missing"}  # fmt: skip
    assert "none of classes.txt (0 to 3 and 255 (ignored)): 4 (3.23%), 5 (3.23%)" in found["index-out-of-range"].message
    assert "the mask of images/train/p1.jpg has 40 x 35 pixels, the image has 40 x 30" in found["mask-size"].message
    assert report.stats["pixels"]["train"] == {"a": 200, "b": 200, "c": 200, "d": 200}
    assert report.stats["ignored"]["train"] == 1200
    assert "pixels in train: a 25.0%" in "\n".join(report.lines())


def test_validation_from_elsewhere_is_looked_at(tmp_path):
    root, other = healthy_coco(tmp_path / "a"), write_coco(tmp_path / "b", coco_document([annotation(1, 10, 7)], 1))
    (other / "train2017/a0.png").write_bytes((root / "train2017/a1.png").read_bytes())
    report = check(root, val=other)
    (finding,) = [finding for finding in report.findings if finding.kind == "overlap"]
    assert finding.paths[1].endswith("b/train2017/a0.png")
    assert check(root, val="val").ok
    write_pairs(tmp_path / "p", parts=("train",))
    write_pairs(tmp_path / "q", parts=("train",))
    assert kinds(check(tmp_path / "p", val=tmp_path / "q")) == {"overlap"}


def test_the_task_is_found_from_the_folder(tmp_path):
    for name in ("cat", "dog"):
        for i in range(2):
            picture(tmp_path / "pets" / name / f"{i}.png", ord(name[0]) + i)
    assert check(tmp_path / "pets").stats["splits"] == {"train": 4}
    with pytest.raises(UserError, match="no format of annotations that is known"):
        check(tmp_path / "pets", annotation="boxes")
    assert check("digits").stats["images"] == 1797
    assert check("digits", annotation="masks").ok
    with pytest.raises(UserError, match="no objects, which annotation='boxes' needs"):
        check(write_pairs(tmp_path / "pairs"), annotation="boxes")
    with pytest.raises(UserError, match="no folder"):
        check(tmp_path / "nowhere", annotation="boxes")


def test_box_sizes():
    sizes = box_sizes([3, 31.9, 32, 95.9, 96, 300])
    assert (sizes["small"], sizes["medium"], sizes["large"]) == (2, 2, 2)
    assert sum(entry["count"] for entry in sizes["histogram"]) == 6
    assert sizes["histogram"][0] == {"from": 2, "to": 4, "count": 1}
    assert sizes["quantiles"]["100%"] == 300
    assert box_sizes([]) == {"small": 0, "medium": 0, "large": 0}


def test_the_real_blood_cells(real_data):
    if not (real_data / "BCCD").is_dir():
        pytest.skip("BCCD is not unpacked")
    report = check(real_data / "BCCD")
    assert [(finding.kind, finding.paths) for finding in report.findings] == [
        ("empty-box", ("JPEGImages/BloodImage_00338.jpg",)), ("empty-box", ("JPEGImages/BloodImage_00343.jpg",)),
    ]  # fmt: skip
    assert report.stats["objects"] == 4886


def test_the_real_coco_subset(real_data):
    if not (real_data / "coco_tiny/annotations").is_dir():
        pytest.skip("COCO_Tiny is not unpacked")
    report = check(real_data / "coco_tiny")
    assert report.ok
    assert (report.stats["objects"], report.stats["crowds"]) == (1520, 17)
    assert report.stats["readable"] == 160


def test_the_real_camvid(real_data):
    if not (real_data / "CamVid").is_dir():
        pytest.skip("CamVid is not unpacked")
    report = check(real_data / "CamVid")
    assert report.ok
    share = {part: count / (count + sum(report.stats["pixels"][part].values()))
             for part, count in report.stats["ignored"].items()}  # fmt: skip
    assert all(0.0165 <= value < 0.0385 for value in share.values()), share
