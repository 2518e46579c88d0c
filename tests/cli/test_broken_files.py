"""A folder with ten kinds of broken files: `check-data` names them all, and the training goes through."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from two_classes import write_images

from resurge.cli import main

TINY = ["--size", "16", "--epochs", "1", "--batch-size", "8", "--workers", "0", "--threads", "1", "--device", "cpu"]


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes that announces 900 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The folder, and for each broken file the kind under which it must be named."""
    folder = tmp_path / "broken"
    write_images(folder, 8, 0)
    left, top = folder / "left", folder / "top"
    noise = np.random.default_rng(5)
    photo = jpeg(noise.integers(0, 255, (48, 48, 3), dtype=np.uint8))
    png = (left / "0.png").read_bytes()
    (left / "truncated.jpg").write_bytes(photo[: len(photo) // 2])
    (left / "text.jpg").write_text("I am no picture\n")
    (left / "empty.png").write_bytes(b"")
    (left / "damaged.png").write_bytes(png[:200] + b"zzzz" * 20 + png[280:])
    (top / "bomb.png").write_bytes(bomb())
    Image.new("RGB", (1, 1)).save(top / "dot.png")
    (top / "really-a-png.jpg").write_bytes(png[:-4] + b"\xae\x42\x60\x82")
    shutil.copy(top / "1.png", top / "copy.png")
    Image.new("CMYK", (30, 30), (9, 90, 200, 0)).save(top / "print.jpg")
    Image.fromarray(noise.integers(0, 255, (30, 30, 3), dtype=np.uint8)).quantize(16).save(left / "sixteen.png")
    (top / "dangling.png").symlink_to("nowhere.png")
    return folder, {
        "left/truncated.jpg": "truncated",
        "left/text.jpg": "not-an-image",
        "left/empty.png": "empty-file",
        "left/damaged.png": "corrupt",
        "top/bomb.png": "too-large",
        "top/dangling.png": "missing-file",
        "top/dot.png": "tiny",
        "top/really-a-png.jpg": "wrong-extension",
        "top/copy.png": "duplicate",
        "top/print.jpg": "cmyk",
        "left/sixteen.png": "palette",
    }


def test_check_data_names_ten_kinds_and_the_training_completes(
    broken: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, kinds = broken
    assert len(set(kinds.values())) >= 10
    assert main(["check-data", str(folder), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    named = {(path, finding["kind"]) for finding in findings for path in finding["paths"]}
    assert kinds.items() <= named
    assert all(finding["remedy"] for finding in findings)
    assert main(["check-data", str(folder)]) == 1
    text = capsys.readouterr().out
    assert all(path in text for path in kinds)

    run = tmp_path / "run"
    model = "resnet20_cifar depths=(1,1,1) planes=(4,8,8) stem=conv3x3(4)"
    assert main(["train", "--data", str(folder), "--model", model, "--out", str(run), *TINY]) == 0
    assert (run / "model.safetensors").is_file()
    assert (run / "report.html").is_file()
    capsys.readouterr()
    assert main(["eval", str(run), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] > 0

    assert main(["predict", str(run), str(folder), "--json", "--device", "cpu"]) == 1
    skipped = json.loads(capsys.readouterr().out)["skipped"]
    unreadable = ("truncated", "not-an-image", "empty-file", "corrupt", "too-large", "missing-file")
    expected = {path for path, kind in kinds.items() if kind in unreadable}
    assert {Path(entry["path"]).relative_to(folder).as_posix() for entry in skipped} == expected


@pytest.mark.parametrize("name", ["new\nline.png", " blanks .png", "日本 \u2028 ü.png", os.fsdecode(b"caf\xe9.png")])
def test_a_run_finds_images_with_odd_names_again(
    name: str, trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from resurge.data.sources import open_data
    from resurge.data.splits import write_split

    data = shutil.copytree(photos, tmp_path / "data")
    try:
        (data / "test" / "left" / "0.png").rename(data / "test" / "left" / name)
    except OSError:
        pytest.skip("this file system takes no such names")
    run = shutil.copytree(trained, tmp_path / "run")
    write_split(open_data(data), run / "split.csv")
    assert main(["eval", str(run), "--json", "--device", "cpu", "--out", str(run)]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 12
    examples = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["examples"]
    assert len(examples) == 2


def test_eval_refuses_a_list_of_images_that_was_cut_short(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    lines = (run / "split.csv").read_text().splitlines(keepends=True)
    (run / "split.csv").write_text("".join(lines[: len(lines) // 2]))
    assert main(["eval", str(run), "--device", "cpu"]) == 2
    assert "cut short" in capsys.readouterr().err


def test_eval_does_not_need_the_training_images(trained: Path, photos: Path, tmp_path: Path) -> None:
    from resurge.data.sources import open_data
    from resurge.data.splits import write_split

    data = shutil.copytree(photos, tmp_path / "data")
    run = shutil.copytree(trained, tmp_path / "run")
    write_split(open_data(data), run / "split.csv")
    shutil.rmtree(data / "train")
    assert main(["eval", str(run), "--device", "cpu"]) == 0


@pytest.mark.parametrize(
    "words, told",
    [
        (["eval", "RUN", "--device", "cpu:x"], "cuda:1"),
        (["eval", "RUN", "--size", "100000"], "at most 4096"),
        (["eval", "RUN", "--mean", "nan,0,0"], "list of numbers"),
        (["eval", "RUN", "--std", "inf,1,1"], "list of numbers"),
        (["predict", "RUN", ""], "empty name"),
        (["predict", "RUN", "/" + "x" * 300], "too long"),
        (["check-data", ""], "empty name"),
        (["check-data", "~nobody-of-this-name/data"], "no path"),
        (["check-data", "x" * 5000], "too long"),
        (["show", "resnet50 " + "(" * 500], "parenthes"),
        (["show", "DIR"], "model.json"),
        (["show", "resnet20_cifar", "--diagram", "picture.txt"], ".svg"),
    ],
)
def test_nasty_words(
    words: list[str], told: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": str(trained), "DIR": str(tmp_path)}
    assert main([places.get(word, word) for word in words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
