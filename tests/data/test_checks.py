import json
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_files import healthy_coco, kinds, write_yolo

from resurge.data.augmentation import Augmentation
from resurge.data.check_report import SEVERITIES
from resurge.data.checks import check_data
from resurge.data.loading import EpochSampler, IndexedDataset, verify
from resurge.data.preprocessing import Preprocessing
from resurge.data.sources import open_data
from resurge.data.transforms import TrainTransform
from resurge.data.workers import make_loader
from resurge.errors import UserError


def check_labels(source, **options):
    return check_data(source, annotation="labels", **options)[0]


def picture(seed: int, size=(48, 40)) -> Image.Image:
    """Coloured noise on a coarse grid: survives JPEG, and no two seeds are alike."""
    grid = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def healthy(root: Path, train=6, val=2) -> Path:
    seed = 0
    for split, count in (("train", train), ("val", val)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                seed += 1
                (root / split / name / f"ok{i}.jpg").write_bytes(encode(picture(seed), "JPEG"))
    return root


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(105), "JPEG", exif=exif)


def broken_files() -> dict[str, tuple[str, bytes]]:
    """Every kind of finding that one file brings about: {kind: (where, content)}."""
    clear = picture(104).quantize(16)
    return {
        "truncated": ("train/cat/cut.jpg", encode(picture(101, (300, 300)), "JPEG")[:2000]),
        "not-an-image": ("train/cat/page.jpg", b"<html>404 Not Found</html>"),
        "empty-file": ("train/cat/nothing.png", b""),
        "wrong-extension": ("train/cat/really_png.jpg", encode(picture(102), "PNG")),
        "cmyk": ("train/dog/print.jpg", encode(picture(106).convert("CMYK"), "JPEG")),
        "palette": ("train/dog/palette.png", encode(clear, "PNG", transparency=0)),
        "transparency": ("train/dog/see_through.png", encode(picture(107).convert("RGBA"), "PNG")),
        "exif-rotation": ("train/dog/turned.jpg", turned()),
        "tiny": ("train/dog/dot.png", encode(Image.new("RGB", (1, 1), "red"), "PNG")),
        "too-large": ("train/dog/bomb.png", bomb()),
        "corrupt": ("train/dog/zeros.jpg", encode(picture(108), "JPEG")[:30] + bytes(500)),
        "grey": ("train/dog/grey.jpg", encode(picture(109).convert("L"), "JPEG")),
    }


@pytest.fixture
def broken(tmp_path) -> Path:
    root = healthy(tmp_path / "pets")
    for where, content in broken_files().values():
        (root / where).write_bytes(content)
    ok = [(root / f"train/{name}/ok0.jpg").read_bytes() for name in ("cat", "dog")]
    (root / "train/dog/is_a_cat.jpg").write_bytes(ok[0])  # contradictory-labels
    (root / "val/dog/seen.jpg").write_bytes(ok[1])  # overlap
    (root / "train/cat/again.jpg").write_bytes((root / "train/cat/ok1.jpg").read_bytes())  # duplicate
    (root / "train/cat/film.mp4").write_bytes(b"x")  # other-file
    return root


def test_every_kind_of_broken_file_is_named(broken):
    report = check_labels(broken)
    found = {finding.kind: finding for finding in report.findings}
    for kind, (where, _) in broken_files().items():
        assert kind in found, kind
        assert any(where in finding.paths for finding in report.findings if finding.kind == kind), kind
    assert found["contradictory-labels"].paths == ("train/cat/ok0.jpg", "train/dog/is_a_cat.jpg")
    assert found["overlap"].paths == ("train/dog/ok0.jpg", "val/dog/seen.jpg")
    assert found["duplicate"].paths == ("train/cat/again.jpg", "train/cat/ok1.jpg")
    assert found["other-file"].paths == ("train/cat/film.mp4",)
    assert len(found) >= 16
    assert not report.ok
    text = "\n".join(report.lines())
    for where, _ in broken_files().values():
        assert where in text
    assert all(finding.message and finding.remedy and finding.severity in SEVERITIES for finding in report.findings)
    assert text.count("remedy:") == len(found)
    assert [SEVERITIES.index(f.severity) for f in report.findings] == sorted(
        SEVERITIES.index(f.severity) for f in report.findings
    )
    assert json.loads(json.dumps(report.to_json()))["ok"] is False


def test_nothing_else_is_accused(broken):
    accused = {path for finding in check_labels(broken).findings for path in finding.paths}
    assert not {path for path in accused if "/ok" in path and path.rsplit("ok")[1] not in ("0.jpg", "1.jpg")}


def test_the_broken_folder_trains(broken):
    bundle = open_data(broken)
    named = {path for finding in check_labels(broken).findings if finding.severity == "error"
             for path in finding.paths}  # fmt: skip
    pre = Preprocessing(16)
    transform = TrainTransform(pre, Augmentation(auto_augment="trivialaugment", random_erasing=0.2))
    good, problems = verify(bundle.train)
    assert {Path(problem.name).relative_to(broken).as_posix() for problem in problems} <= named
    assert len(problems) == 5
    torch.manual_seed(0)
    for train in (bundle.train, good):  # with the broken files still in it, and with them dropped
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
        optimizer = torch.optim.SGD(network.parameters(), 0.05)
        sampler = EpochSampler(train.labels, 8, 0)
        losses = []
        for epoch in range(4):
            sampler.set_position(epoch)
            for images, labels in make_loader(IndexedDataset(train, transform, 0), sampler):
                loss = torch.nn.functional.cross_entropy(network(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert np.isfinite(losses).all()
        validation = IndexedDataset(bundle.val, pre)
        assert all(torch.isfinite(validation[i][0]).all() for i in range(len(bundle.val)))


def test_a_healthy_folder_has_no_findings(tmp_path):
    report = check_labels(healthy(tmp_path / "pets"))
    assert report.findings == ()
    assert report.ok
    assert report.lines()[-1] == "nothing wrong found"
    assert report.stats["splits"] == {"train": 12, "val": 4}
    assert report.stats["formats"] == {"JPEG": 16}
    assert report.stats["width"] == {"min": 48, "median": 48, "max": 48}


def test_a_data_set_of_grey_or_tiny_images_is_not_odd(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(ord(name) + 9 * i).integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    assert check_labels(tmp_path).findings == ()


def test_the_same_pixels_in_another_file_are_a_duplicate(tmp_path):
    root = healthy(tmp_path / "pets")
    (root / "train/cat/x.png").write_bytes(encode(picture(500), "PNG"))
    (root / "train/cat/y.bmp").write_bytes(encode(picture(500), "BMP"))
    (finding,) = check_labels(root).findings
    assert (finding.kind, finding.paths) == ("duplicate", ("train/cat/x.png", "train/cat/y.bmp"))


def test_classes_are_looked_at(tmp_path):
    root = healthy(tmp_path / "pets")
    (root / "train/bird").mkdir()
    (root / "train/fish").mkdir()
    (root / "train/fish/a.jpg").write_bytes(b"")
    for i in range(70):
        (root / f"train/dog/many{i}.png").write_bytes(encode(Image.new("RGB", (9, 9), (i, 2, 3)), "PNG"))
    (root / "val/cow").mkdir()
    (root / "val/cow/a.jpg").write_bytes(encode(picture(900), "JPEG"))
    for file in (root / "val/cat").iterdir():
        file.unlink()
    report = check_labels(root)
    assert {"empty-class", "empty-file", "imbalance", "unknown-class", "class-missing"} == kinds(report)
    text = "\n".join(report.lines())
    for word in ("bird", "fish", "val has classes that training lacks: cow", "val has no images of cat", "76"):
        assert word in text


def test_a_single_class_is_an_error(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(encode(picture(1), "PNG"))
    assert "single-class" in kinds(check_labels(tmp_path))


def test_tables_and_separate_validation_folders(tmp_path):
    root = healthy(tmp_path / "pets")
    file = tmp_path / "t.csv"
    file.write_text("path,label,split\npets/train/cat/ok0.jpg,cat,train\npets/train/dog/ok0.jpg,dog,train\n"
                    "pets/val/dog/ok0.jpg,dog,val\n")  # fmt: skip
    assert kinds(check_labels(file)) == {"class-missing"}
    (root / "val/dog/ok1.jpg").write_bytes((root / "train/dog/ok1.jpg").read_bytes())
    report = check_labels(root / "train", val=root / "val")
    assert kinds(report) == {"overlap"}
    assert kinds(check_labels(root / "train", val=file)) == {"overlap"}
    assert kinds(check_labels(root, val="val")) == {"overlap"}


def test_data_sets_in_memory_report_their_counts():
    report = check_labels("digits")
    assert report.findings == ()
    assert report.stats["images"] == 1797
    assert report.stats["splits"] == {"train": 1258, "val": 179, "test": 360}


def test_nothing_to_check_is_an_error(tmp_path):
    with pytest.raises(UserError, match="is empty"):
        check_labels(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        check_labels(tmp_path / "none")


def test_long_lists_are_cut_in_the_terminal_but_not_in_json(tmp_path):
    root = healthy(tmp_path / "pets")
    for i in range(30):
        (root / f"train/cat/zero{i:02d}.png").touch()
    report = check_labels(root)
    assert any("and 25 more" in line for line in report.lines())
    assert len(report.lines()) < 20
    assert len(report.to_json()["findings"]) == 30


REFUSED = {
    "bad-label": ("labels", "the label -1 is out of range"),
    "empty-class": ("labels", "the class folder 'fish' has no images"),
    "broken-annotations": ("boxes", "is cut short"),
    "bad-object": ("boxes", "line 2"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_training_refuses_is_an_error_of_the_check(tmp_path, kind):
    annotation, message = REFUSED[kind]
    root = tmp_path / "set"
    if kind == "bad-label":
        healthy(tmp_path / "pets")
        root = tmp_path / "t.csv"
        root.write_text("path,label\npets/train/cat/ok0.jpg,0\npets/train/dog/ok0.jpg,-1\n")
    elif kind == "empty-class":
        (healthy(root) / "train/fish").mkdir()
    elif kind == "broken-annotations":
        file = healthy_coco(root) / "annotations/instances_val2017.json"
        file.write_bytes(file.read_bytes()[:100])
    else:
        write_yolo(root, {"a": "0 0.5 0.5 0.5 0.5\n0 0.5"})
    report, _ = check_data(root, annotation=annotation)
    assert kind in {finding.kind for finding in report.findings if finding.severity == "error"}
    with pytest.raises(UserError, match=message):
        open_data(root, annotation=annotation)


def test_validation_elsewhere_may_lack_a_class(tmp_path):
    root, other = healthy(tmp_path / "pets"), healthy(tmp_path / "others")
    for file in (other / "val/cat").iterdir():
        file.unlink()
    assert kinds(check_labels(root / "train", val=other / "val")) >= {"class-missing", "empty-class"}
    bundle = open_data(root / "train", val=other / "val")
    assert bundle.val.counts(2) == (0, 2)
    inside = open_data(root, val="val")
    assert inside.val.ids[0] == "val/cat/ok0.jpg"
