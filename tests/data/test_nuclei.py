import numpy as np
import pytest
from PIL import Image
from scene_files import mask, masks_of, write_nuclei

from resurge.data.sources import open_data, open_split, read_source
from resurge.errors import UserError


def test_one_mask_file_an_object(tmp_path):
    bundle = open_data(write_nuclei(tmp_path / "stage1_train"), annotation="masks", seed=3)
    assert bundle.classes == ("nucleus",)
    assert (len(bundle.train), len(bundle.val)) == (4, 1)
    assert "held out by image with seed 3" in bundle.how
    assert open_data(tmp_path / "stage1_train", annotation="masks", seed=3).val.ids == bundle.val.ids
    others = {open_data(tmp_path / "stage1_train", annotation="boxes", seed=seed).val.ids for seed in range(6)}
    assert len(others) > 1
    objects = bundle.train.target(0)
    assert objects.boxes.tolist() == [[4, 3, 14, 11], [30, 22, 40, 30]]
    assert objects.area.tolist() == [80, 80]
    masks = masks_of(objects, 30, 40)
    assert masks[0, 3:11, 4:14].all()
    assert masks.sum() == 160
    assert len(open_split(tmp_path / "stage1_train", annotation="boxes")[0]) == 5
    assert len(open_data(tmp_path, annotation="boxes").train) == 4


def test_split_folders(tmp_path):
    write_nuclei(tmp_path / "train", 3)
    write_nuclei(tmp_path / "val", 2)
    bundle = open_data(tmp_path, annotation="masks")
    assert (len(bundle.train), len(bundle.val)) == (3, 2)
    assert bundle.train.ids[0] == "train/id0/images/id0.png"


def test_masks_that_cannot_be_used(tmp_path):
    write_nuclei(tmp_path)
    masks = tmp_path / "id1/masks"
    mask(masks / "empty.png", 0)
    mask(masks / "small.png", 255, size=(20, 30))
    (masks / "broken.png").write_bytes((masks / "m0.png").read_bytes()[:40])
    (tmp_path / "id0/images/id0.png").unlink()
    (tmp_path / "id2/images/other.png").write_bytes(b"")
    (tmp_path / "id3/images/id3.png").unlink()
    (tmp_path / "id3/images").rmdir()
    source = read_source(tmp_path, "masks")
    assert [finding.paths[0] for finding in source.findings] == ["id0", "id2", "id3"]
    kinds = {thing.where: thing.fault.kind for thing in source.parts[""][0].objects if thing.fault}
    assert kinds == {
        "masks/empty.png": "empty-box", "masks/small.png": "mask-size", "masks/broken.png": "bad-object",
    }  # fmt: skip
    assert [len(objects) for objects in open_split(tmp_path, annotation="masks")[0].objects] == [2, 2]


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "I;16", "LA"])
def test_masks_of_every_mode(tmp_path, mode):
    write_nuclei(tmp_path, 2)
    values = np.zeros((30, 40), dtype=np.uint8)
    values[5:7, 8:12] = 255
    image = Image.fromarray(values)
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "id0/masks/m0.png")
    assert open_split(tmp_path, annotation="masks")[0].target(0).boxes[0].tolist() == [8, 5, 12, 7]


def test_semantic_masks_are_asked_for(tmp_path):
    with pytest.raises(UserError, match="no class for every pixel"):
        open_data(write_nuclei(tmp_path), annotation="maps")


def test_the_real_nuclei(real_data):
    folder = real_data / "stage1_train"
    if not folder.is_dir():
        pytest.skip("the nuclei are not unpacked")
    split, classes, _ = open_split(folder, annotation="masks")
    assert classes == ("nucleus",)
    assert len(split) == 169
    assert sum(map(len, split.objects)) == 7939
    assert (min(map(len, split.objects)), max(map(len, split.objects))) == (1, 313)
    for index in (0, 60, 168):
        image, objects = split.read(index), split.target(index)
        masks = masks_of(objects, image.height, image.width)
        assert (masks.sum((1, 2)) == objects.area).all()
        path = split.path(index)
        files = sorted((path.parent.parent / "masks").glob("*.png"))
        assert (masks[0] == (np.asarray(Image.open(files[0])) > 0)).all()
