import numpy as np
import pytest
from PIL import Image
from scene_files import mask, picture, write_camvid, write_pairs

from resurge.data.coding import Coding
from resurge.data.formats.label_maps import CAMVID, CamVid, Pairs
from resurge.data.images import UnreadableImage, read_indices
from resurge.data.map_source import LabelFiles
from resurge.data.records import MaskRecord
from resurge.data.sources import open_data, open_split
from resurge.data.splits import IGNORE
from resurge.errors import UserError


@pytest.mark.parametrize("outside", [True, False])
def test_pairs_with_parts(tmp_path, outside):
    bundle = open_data(write_pairs(tmp_path, outside=outside), annotation="maps")
    assert bundle.classes == ("class 0", "class 1", "class 2")
    assert (len(bundle.train), len(bundle.val), bundle.test) == (3, 3, None)
    target = bundle.train.target(0)
    assert (target.dtype, target.shape) == (np.uint8, (30, 40))
    assert target[0, ::10].tolist() == [0, 1, 2, IGNORE]
    assert bundle.train.ids[0] == ("images/train/p0.jpg" if outside else "train/images/p0.jpg")
    assert bundle.train.select([2]).path(0).name == "p2.jpg"
    with pytest.raises(UserError, match="no objects, which annotation='boxes' needs"):
        open_data(tmp_path, annotation="boxes")


def test_cityscapes(tmp_path):
    for part in ("train", "val"):
        for i in range(2):
            stem = f"{part}/town/town_{i:06d}_000019"
            picture(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", i)
            mask(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", 7)
            mask(tmp_path / f"gtFine/{stem}_gtFine_labelTrainIds.png", i)
    bundle = open_data(tmp_path, annotation="maps")
    assert (bundle.num_classes, len(bundle.train), len(bundle.val)) == (2, 2, 2)
    assert [int(bundle.val.target(i).max()) for i in range(2)] == [0, 1]


def test_flat_pairs_and_names_from_a_file(tmp_path):
    for i in range(5):
        picture(tmp_path / f"imgs/{i}.jpg", i)
        mask(tmp_path / f"labels/{i}_mask.png", i % 3)
    (tmp_path / "classes.txt").write_text("Straße\nHimmel, blau\n\n rest\n", encoding="utf-8")
    bundle = open_data(tmp_path, annotation="maps", val_fraction=0.4, seed=2)
    assert bundle.classes == ("Straße", "Himmel, blau", "rest")
    assert (len(bundle.train), len(bundle.val)) == (3, 2)
    split, _, what = open_split(tmp_path, annotation="maps", classes=("rest", "Himmel, blau", "x", "Straße"))
    assert [int(split.target(i).max()) for i in range(5)] == [3, 1, 0, 3, 1]
    assert "all images" in what
    with pytest.raises(UserError, match="the class 'Straße' is not one of training's"):
        open_split(tmp_path, annotation="maps", classes=("Strase", "rest"))
    (tmp_path / "classes.txt").write_text("a\na\n")
    with pytest.raises(UserError, match="has 'a' more than once"):
        open_data(tmp_path, annotation="maps")


@pytest.mark.parametrize("values", [(0, 255), (0, 1)])
def test_two_values_are_background_and_foreground(tmp_path, values):
    for i in range(3):
        picture(tmp_path / f"images/{i}.png", i)
        mask(tmp_path / f"masks/{i}.png", np.where(np.arange(1200).reshape(30, 40) % 3 == 0, *values[::-1]))
    bundle = open_data(tmp_path, annotation="maps")
    assert bundle.classes == ("background", "foreground")
    assert np.unique(bundle.train.target(0)).tolist() == [0, 1]


def test_images_without_masks_are_left_out_with_a_note(tmp_path):
    write_pairs(tmp_path)
    picture(tmp_path / "images/train/bare.jpg", 77)
    mask(tmp_path / "masks/train/stray.png", 1)
    bundle = open_data(tmp_path, annotation="maps")
    assert len(bundle.train) == 3
    stray = "1 mask without an image: masks/train/stray.png: add the image, or remove the mask; it is not used"
    assert bundle.notes == ("1 image is without a mask and left out: images/train/bare.jpg", stray)
    assert [finding.paths for finding in Pairs().read(tmp_path).findings] == [("masks/train/stray.png",)]


def test_names_that_do_not_match(tmp_path):
    picture(tmp_path / "images/a.jpg")
    mask(tmp_path / "masks/b.png", 1)
    with pytest.raises(UserError, match=r"no mask in .* has the name of an image"):
        open_data(tmp_path, annotation="maps")


def test_an_index_out_of_range(tmp_path):
    write_pairs(tmp_path, classes=3)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(
        UserError, match=r"6 masks have class indices .* of classes.txt \(0, 1 and 255 \(ignored\)\): 2 \(25.00%\)"
    ):
        open_data(tmp_path, annotation="maps")
    files = LabelFiles(tmp_path, ("masks/train/p0.png",), Coding({0: 0, 1: 1}), (None,))
    with pytest.raises(UnreadableImage, match=r"has values that are none of 0, 1 and 255 \(ignored\)"):
        files.read(0)


def test_colours_are_no_indices(tmp_path):
    write_pairs(tmp_path)
    for part in ("train", "val"):
        for i in range(3):
            picture(tmp_path / f"masks/{part}/p{i}.png", i)
    with pytest.raises(UserError, match=r"hold colours, not class indices .*labelmap\.txt"):
        open_data(tmp_path, annotation="maps")
    with pytest.raises(UnreadableImage, match="holds colours, not class indices"):
        read_indices(tmp_path / "masks/train/p0.png")


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB"])
def test_indices_are_kept_in_every_mode(tmp_path, mode):
    values = (np.arange(1200).reshape(30, 40) % 7).astype(np.uint8)
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([255 - i for i in range(256) for _ in range(3)])
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "m.png")
    assert (read_indices(tmp_path / "m.png") == values).all()


def test_masks_that_cannot_be_read(tmp_path):
    picture(tmp_path / "a.png")
    Image.open(tmp_path / "a.png").save(tmp_path / "a.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    (tmp_path / "text.png").write_bytes(b"hello")
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.full((3, 4), 0.5, dtype=np.float32)).save(tmp_path / "float.tiff")
    for name, kind in (("a.jpg", "corrupt"), ("cut.png", "truncated"), ("text.png", "not-an-image"),
                       ("empty.png", "empty"), ("none.png", "missing"), ("float.tiff", "corrupt")):  # fmt: skip
        with pytest.raises(UnreadableImage) as error:
            read_indices(tmp_path / name)
        assert error.value.kind == kind, name


# ------------------------------------------------------------------------------------------------ known data sets


@pytest.mark.parametrize("prefix", ["/SegNet/CamVid/", "/SegNet/", ""])
def test_camvid(tmp_path, prefix):
    bundle = open_data(write_camvid(tmp_path / "CamVid", prefix), annotation="maps")
    assert bundle.classes == CAMVID
    assert [split.ids[0] for split in bundle.splits().values()] == ["train/0.png", "val/0.png", "test/0.png"]
    target = bundle.train.target(0)
    assert target[0, :12].tolist() == [*range(11), IGNORE]
    on_test = open_data(tmp_path / "CamVid", annotation="maps", val="test")
    assert on_test.val.ids == bundle.test.ids
    assert on_test.test is None
    assert open_split(tmp_path / "CamVid", annotation="maps")[0].ids == bundle.test.ids
    (tmp_path / "CamVid/train.txt").write_text("train/0.png\n")
    with pytest.raises(UserError, match=r"train\.txt, line 1: expected an image and its mask"):
        CamVid().read(tmp_path / "CamVid")


def test_paths_of_lists(tmp_path):
    picture(tmp_path / "train/a.png")
    (tmp_path / "train.txt").write_text("/SegNet/CamVid/train/a.png /SegNet/CamVid/train/b.png")
    assert CamVid().read(tmp_path).parts["train"] == (MaskRecord("train/a.png", "train/b.png"),)


def test_ade20k(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for part in ("training", "validation"):
        for i in range(2):
            picture(root / f"images/{part}/ADE_{i}.jpg", i)
            mask(root / f"annotations/{part}/ADE_{i}.png", np.arange(1200).reshape(30, 40) % 151)
    bundle = open_data(tmp_path, annotation="maps")
    assert len(bundle.classes) == 150
    assert bundle.classes[149] == "class 150"
    assert bundle.train.target(0)[0, :4].tolist() == [IGNORE, 0, 1, 2]
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"] + [f"{i}\t0.1\t1\t1\t1\tthing{i % 149}, x" for i in range(1, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(lines))
    classes = open_data(root, annotation="maps").classes
    assert (classes[1], classes[0], classes[149]) == ("thing2", "thing1 (1)", "thing1 (150)")
    (root / "objectInfo150.txt").write_text("\n".join(lines[:50]))
    with pytest.raises(UserError, match="names 49 classes, expected 150"):
        open_data(root, annotation="maps")


def test_voc_segmentation(tmp_path):
    root = tmp_path / "VOC2012"
    for i in range(4):
        picture(root / f"JPEGImages/2007_{i}.jpg", i)
        picture(root / f"JPEGImages/other_{i}.jpg", 9 + i)
        values = np.where(np.arange(1200).reshape(30, 40) % 5 == 0, 255, 20).astype(np.uint8)
        image = Image.fromarray(values)
        image.putpalette(list(range(256)) * 3)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        image.save(root / f"SegmentationClass/2007_{i}.png")
    assert len(open_data(root, annotation="maps").train) == 3
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for name, stems in (("train", "2007_0\n2007_1\n"), ("val", "2007_2\n"), ("trainval", "2007_0\n")):
        (root / f"ImageSets/Segmentation/{name}.txt").write_text(stems)
    bundle = open_data(root, annotation="maps")
    assert (len(bundle.train), len(bundle.val)) == (2, 1)
    assert (bundle.classes[0], bundle.classes[20]) == ("background", "tvmonitor")
    assert np.unique(bundle.train.target(0)).tolist() == [20, IGNORE]


def test_the_real_camvid(real_data):
    folder = real_data / "CamVid"
    if not folder.is_dir():
        pytest.skip("CamVid is not unpacked")
    bundle = open_data(folder, annotation="maps")
    assert [len(split) for split in bundle.splits().values()] == [92, 26, 39]
    assert (bundle.classes, bundle.default_size, bundle.notes) == (CAMVID, 360, ())
    seen = np.unique(np.concatenate([np.unique(bundle.test.target(i)) for i in range(39)]))
    assert seen.tolist() == [*range(11), IGNORE]
    assert bundle.train.read(0).size[::-1] == bundle.train.target(0).shape == (360, 480)


def test_the_list_that_cvat_writes(tmp_path):
    lines = []
    for i in range(4):
        picture(tmp_path / f"default/{i}.png", i)
        mask(tmp_path / f"defaultannot/{i}.png", i % 2)
        lines.append(f"/default/{i}.png /defaultannot/{i}.png\n")
    (tmp_path / "default.txt").write_text("".join(lines))
    (tmp_path / "classes.txt").write_text("ground\nbolt\n")
    bundle = open_data(tmp_path, annotation="maps")
    assert bundle.classes == ("ground", "bolt")
    assert (len(bundle.train), len(bundle.val)) == (3, 1)
