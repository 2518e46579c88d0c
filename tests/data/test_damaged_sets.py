"""Random sets in every format, damaged in several ways at once: what is read is what is drawn, or an error says what is
wrong; and a mended copy is clean and reads as what is drawn."""

import json

import numpy as np
import pytest
from data import test_conventions as conventions
from data.test_fit import ANNOTATION, mended, said, worst
from drawn_scenes import WRITERS, Annotated, draw, write_coco

from resurge.data.reading import Reading
from resurge.data.sources import open_data
from resurge.errors import UserError

CONVENTIONS = {"shares": conventions.shares, "corners": conventions.corners, "swapped": conventions.swapped}
ACCEPTED = {"exif-rotation", "tiny"}  # of the pictures, which a mended copy has as they are


def damaged(root, seed):
    """(folder, format, damages, whether the sizes leave it open what EXIF turns)."""
    random = np.random.default_rng(seed)
    format = list(WRITERS)[seed % len(WRITERS)]
    damages, made, tags = set(), [], []
    factor = 2 if format != "yolo" and random.random() < 0.5 else 1
    tagged = random.random() < 0.6
    for at in range(int(random.integers(6, 9))):
        width, height = ((48, 32), (32, 48), (64, 40), (40, 40))[int(random.integers(4))]
        tag = int(random.integers(1, 9)) if tagged else 1
        pixels, boxes = draw(100 * seed + at, width, height)
        made.append(Annotated(pixels[::factor, ::factor], tag, (width, height), boxes))
        tags.append((tag, width == height))
    damages |= {"scale"} if factor > 1 else set()
    damages |= {"tag"} if any(tag > 1 for tag, _ in tags) else set()
    tells = format != "yolo" and any(tag >= 5 and not square for tag, square in tags)
    if format not in ("coco", "rle"):
        return WRITERS[format](root, made), format, damages, "tag" in damages and not tells
    kind = ("boxes", "polygons")[int(random.integers(2))] if format == "coco" else "rle"
    write_coco(root, made, kind)
    sizes = {at: each.size for at, each in enumerate(made)}
    document = json.loads((root / "annotations.json").read_text())
    entries = document["annotations"]
    if random.random() < 0.4:
        name = list(CONVENTIONS)[int(random.integers(3))]
        damages.add(name)
        for entry in entries:
            entry |= (
                CONVENTIONS[name](entry)
                if name != "shares"
                else {
                    "bbox": [
                        value / side for value, side in zip(entry["bbox"], 2 * sizes[entry["image_id"]], strict=True)
                    ]
                }
            )
    if random.random() < 0.3:
        damages.add("twice")
        document["images"] += [entry | {"id": entry["id"] + 50} for entry in document["images"]]
        for entry in entries:
            entry["image_id"] += 50 * entry["category_id"]
    if random.random() < 0.3:
        damages.add("crowds")
        for entry in entries:
            entry["iscrowd"] = 1
    if kind == "polygons" and random.random() < 0.4:
        damages.add("pairs")
        for entry in entries:
            entry["segmentation"] = conventions.points(entry).tolist()
    if random.random() < 0.4:
        damages.add("ids")
        for entry in document["images"]:
            entry["id"] = f"{entry['id']:05d}"
    if random.random() < 0.3:
        damages.add("sizes")
        for entry in document["images"]:
            del entry["width"], entry["height"]
        if factor > 1 and kind != "rle":  # nothing tells; not of this test
            damages.add("lost")
        tells = tells and kind == "rle"
    (root / "annotations.json").write_text(json.dumps(document))
    return root, "coco" if kind != "boxes" else "boxes", damages, "tag" in damages and not tells


def try_one(tmp_path, seed):
    root, format, damages, is_open = damaged(tmp_path / "set", seed)
    if "lost" in damages or ("sizes" in damages and damages & {*CONVENTIONS}):
        return
    asked = {"exif": "annotations"} if is_open else {}
    stops = damages & {*CONVENTIONS, "crowds"}
    kinds = said(root, **asked)
    if stops:
        with pytest.raises(UserError):
            open_data(root, annotation=ANNOTATION.get(format, "boxes"), reading=Reading(**asked))
    else:
        assert worst(root, format, **asked) > 0.99, (seed, damages)
        assert bool(set(kinds) - ACCEPTED) == bool(damages - {"ids", "sizes"}), (seed, damages, kinds)
    if is_open:
        assert "exif-unclear" in said(root), (seed, damages)
    copy = mended(root, tmp_path / "out", **asked)
    assert worst(copy, format, exif="pictures") > 0.99, (seed, damages)
    assert set(said(copy, exif="pictures")) <= ACCEPTED, (seed, damages, said(copy))


@pytest.mark.parametrize("seed", range(36))
def test_damaged_sets(tmp_path, seed):
    try_one(tmp_path, seed)
