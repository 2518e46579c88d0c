import pytest
from scene_files import masks_of, picture, voc_xml, write_voc

from resurge.data.checks import check_data
from resurge.data.fix import mend
from resurge.data.formats.voc import Voc
from resurge.data.sources import open_data, open_split, read_source
from resurge.errors import UserError

OBJECTS = {
    "a": [("dog", 1, 1, 10, 20), ("cat", 5, 6, 40, 30, 1)],
    "b": [("cat", 3, 3, 3, 3), ("cat", 2, 2, 9, 9)],
    "c": [],
    "d": [("dog", -7, 4, 20, 10)],
    "e": [("bird", 1, 1, 5, 5)],
}


def test_a_folder_in_vocs_layout(tmp_path):
    lists = {"train": ["a", "b", "c", "d"], "val": ["a"], "trainval": ["a", "b", "c", "d"], "test": ["b", "c"]}
    bundle = open_data(write_voc(tmp_path / "VOC2007", OBJECTS, lists), annotation="boxes")
    assert bundle.classes == ("cat", "dog")  # those of the training images
    assert [len(split) for split in bundle.splits().values()] == [4, 1, 2]
    assert bundle.train.ids[0] == "JPEGImages/a.jpg"
    a, b, c, d = (bundle.train.target(i) for i in range(4))
    # Coordinates count from 1 and include the last pixel.
    assert a.boxes.tolist() == [[0, 0, 10, 20], [4, 5, 40, 30]]
    assert a.crowd.tolist() == [False, True]  # difficult
    assert a.labels.tolist() == [1, 0]
    assert b.boxes.tolist() == [[1, 1, 9, 9]]
    assert len(c) == 0
    assert d.boxes.tolist() == [[0, 3, 20, 10]]
    assert a.area.tolist() == [200, 900]
    assert "1 box without area was left out: JPEGImages/b.jpg" in bundle.notes
    assert len(open_data(tmp_path, annotation="boxes").train) == 4  # the only subfolder is looked into
    split, _, what = open_split(tmp_path / "VOC2007", annotation="boxes", classes=("cat", "zebra", "dog"))
    assert (len(split), "test split" in what) == (2, True)


def test_without_lists(tmp_path):
    bundle = open_data(write_voc(tmp_path, OBJECTS), annotation="boxes", val_fraction=0.4)
    assert (len(bundle.train), len(bundle.val)) == (3, 2)
    assert bundle.classes == ("bird", "cat", "dog")


def test_files_beside_their_images(tmp_path):
    for part in ("train", "valid"):
        for i in range(2):
            picture(tmp_path / part / f"{i}.png", i)
            (tmp_path / part / f"{i}.xml").write_text(voc_xml([("cell", 1, 1, 5, 5)]))
    bundle = open_data(tmp_path, annotation="boxes")
    assert bundle.val.ids == ("valid/0.png", "valid/1.png")
    assert len(open_split(tmp_path / "train", annotation="boxes")[0]) == 2


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "utf-16"])
def test_encodings_of_several_bytes(tmp_path, encoding):
    root = write_voc(tmp_path, OBJECTS)
    for file in (root / "Annotations").glob("*.xml"):
        text = f'<?xml version="1.0" encoding="{encoding}"?>' + file.read_text().replace("cat", "山")
        file.write_bytes(text.encode(encoding))
    assert open_data(root, annotation="boxes").classes == ("bird", "dog", "山")
    file.write_bytes(b'<?xml version="1.0" encoding="none-such"?><annotation/>')
    with pytest.raises(UserError, match="unknown encoding: none-such"):
        open_data(root, annotation="boxes")


def test_a_class_that_training_lacks(tmp_path):
    write_voc(tmp_path, OBJECTS, {"train": ["a"], "val": ["e"]})
    with pytest.raises(UserError, match="'bird' is not one of training's"):
        open_data(tmp_path, annotation="boxes")


def test_a_list_of_training_and_validation_alone(tmp_path):
    bundle = open_data(write_voc(tmp_path, OBJECTS, {"trainval": ["a", "b", "d"], "test": ["c"]}), annotation="boxes")
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == (2, 1, 1)


def test_the_byte_where_a_file_is_cut_short(tmp_path):
    write_voc(tmp_path, OBJECTS)
    file = tmp_path / "Annotations/a.xml"
    text = file.read_text()
    file.write_text(text[:150])
    with pytest.raises(UserError, match=r"a\.xml is cut short: .*: line 1, column 139"):
        open_data(tmp_path, annotation="boxes")
    file.write_text(text.replace("<object>", "<object", 1))
    with pytest.raises(UserError, match=r"is damaged: .*: line 1, column"):
        open_data(tmp_path, annotation="boxes")
    file.write_text("<html></html>")
    with pytest.raises(UserError, match="its first element is <html>"):
        open_data(tmp_path, annotation="boxes")
    source = Voc().read(tmp_path)
    assert [each.paths for each in source.findings] == [("Annotations/a.xml",)]
    assert len(source.parts[""]) == 4


def test_damaged_objects_and_missing_files(tmp_path):
    write_voc(tmp_path, {"a": [("dog", 1, 1, 9, 9)], "b": [("dog", 1, 1, 9, 9)]}, {"train": ["a", "b", "x"]})
    (tmp_path / "Annotations/a.xml").write_text(
        voc_xml([("dog", 1, 1, 9, 9), ("dog", "one", 1, 9, 9), ("", 1, 1, 9, 9), ("dog", 60, 1, 70, 9)])
        .replace("</annotation>", "<object><name>dog</name></object></annotation>")
    )  # fmt: skip
    source = Voc().read(tmp_path)
    assert [finding.kind for finding in source.findings] == ["missing-annotation"]
    assert [thing.fault.kind if thing.fault else None for thing in source.parts["train"][0].objects] == [
        None, "bad-object", "unknown-category", None, "bad-object",
    ]  # fmt: skip
    (tmp_path / "JPEGImages/b.jpg").unlink()
    with pytest.raises(UserError, match="too few images"):
        open_data(tmp_path, annotation="boxes")


def test_sizes_of_zero_are_read_from_the_image(tmp_path):
    write_voc(tmp_path, OBJECTS)
    (tmp_path / "Annotations/d.xml").write_text(voc_xml(OBJECTS["d"], size=(0, 0)))
    assert {record.size for record in read_source(tmp_path, "boxes").records} == {(40, 30)}


def test_odd_names_survive(tmp_path):
    write_voc(tmp_path, {"größe ü, x": [("Zelle/ö &amp; co", 1, 1, 9, 9)], "b": [("Zelle/ö &amp; co", 1, 1, 9, 9)]})
    bundle = open_data(tmp_path, annotation="boxes")
    assert bundle.classes == ("Zelle/ö & co",)
    assert "JPEGImages/größe ü, x.jpg" in {*bundle.train.ids, *bundle.val.ids}


def test_the_real_blood_cells(real_data):
    folder = real_data / "BCCD"
    if not folder.is_dir():
        pytest.skip("BCCD is not unpacked")
    bundle = open_data(folder, annotation="boxes")
    assert bundle.classes == ("Platelets", "RBC", "WBC")
    assert [len(split) for split in bundle.splits().values()] == [205, 87, 72]
    assert [sum(map(len, split.objects)) for split in bundle.splits().values()] == [2804, 1137, 945]
    assert sorted(note.split("/")[-1] for note in bundle.notes) == ["BloodImage_00338.jpg", "BloodImage_00343.jpg"]
    assert bundle.default_size == 480
    assert all((objects.boxes >= 0).all() and (objects.boxes[:, 2] <= 640).all() for objects in bundle.train.objects)
    with pytest.raises(UserError, match="boxes but no masks"):
        open_data(folder, annotation="masks")
    with pytest.raises(UserError, match="format voc, for annotation='boxes'"):
        open_data(folder)


def test_a_0_says_that_coordinates_count_from_0(tmp_path):
    write_voc(tmp_path / "set", {"a": [("dog", 0, 3, 9, 9)], "b": [("dog", 4, 4, 10, 10), ("dog", 4, 4, 50, 10)]})
    split, _, _ = open_split(tmp_path / "set", annotation="boxes")
    assert [split.target(i).boxes[0].tolist() for i in range(2)] == [[0, 3, 9, 9], [4, 4, 10, 10]]
    report, data = check_data(tmp_path / "set")
    assert "from-0" in {finding.kind for finding in report.findings}
    mend(data, tmp_path / "out")
    (tmp_path / "out/JPEGImages").symlink_to(tmp_path / "set/JPEGImages")
    split, _, _ = open_split(tmp_path / "out", annotation="boxes")
    assert split.target(1).boxes.tolist() == [[4, 4, 10, 10], [4, 4, 40, 10]]


def test_what_no_list_and_no_file_names_is_said(tmp_path):
    root = write_voc(tmp_path / "set", {stem: [("dog", 1, 1, 9, 9)] for stem in "abc"}, {"train": ["a", "b"]})
    unlisted = next(each for each in Voc().read(root).findings if each.kind == "unlisted")
    assert unlisted.paths == ("Annotations/c.xml",)
    assert any("1 annotation file is in no list: c" in note for note in open_data(root, annotation="boxes").notes)
    (root / "ImageSets/Main/train.txt").unlink()
    (root / "Annotations/c.xml").unlink()
    assert any(
        "1 image has no annotation file: JPEGImages/c.jpg" in note for note in open_data(root, annotation="boxes").notes
    )


def test_outlines_are_masks(tmp_path):
    points = "<polygon>{}</polygon></object>".format(
        "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(((2, 2), (12, 2), (12, 12)), 1))
    )
    write_voc(tmp_path, {"a": [("dog", 3, 3, 12, 12)], "b": [("dog", 1, 1, 9, 9)]})
    for stem in "ab":
        file = tmp_path / f"Annotations/{stem}.xml"
        file.write_text(file.read_text().replace("</object>", points))
    target = open_split(tmp_path, annotation="masks")[0].target(0)
    assert target.boxes.tolist() == [[2, 2, 12, 12]]
    assert masks_of(target, 30, 40).sum() == pytest.approx(50, abs=6)
