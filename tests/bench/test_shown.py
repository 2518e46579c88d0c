"""The rows as a table, a picture and a file."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from PIL import Image

from resurge.bench.output import Rows, Table, plot
from resurge.errors import UserError
from resurge.machine import described


def row(model="resnest50", gmacs=5.4, speed=70.0, peer=50.0, **more):
    return {
        "model": model, "runtime": "openvino", "precision": "bf16", "batch": 8, "gmacs": gmacs, "top1": 81.03,
        "ratio": 1.4, "quartiles": [1.38, 1.43], "images_per_s": speed, "peer_images_per_s": peer,
        "peer_setting": "fixed shape", "efficiency": 0.97, "memory_mb": 120.4, "peer_memory_mb": 130.0,
        "load_s": 0.5, "peer_load_s": 0.75, **more,
    }  # fmt: skip


ALONE = dict.fromkeys(
    ("ratio", "quartiles", "peer_images_per_s", "peer_setting", "efficiency", "memory_mb", "top1"), None
)


def test_the_columns_stand_under_their_names():
    table = Table(["resnest50", "skresnext50_32x4d"])
    head = table.head()
    line = table.line(row(latency_ms={"p50": 14.2, "p90": 15.0, "p99": 19.9, "runs": 100}))
    for name, value in (("ratio", "1.40x"), ("images/s", "70.0"), ("efficiency", "0.97"), ("p99", "19.9")):
        end = head.index(name) + len(name)
        assert line[:end].endswith(value), (name, line)
    assert "1.38 - 1.43" in line
    assert "fixed shape" in line


def test_what_is_not_there_is_left_open():
    line = Table(["a"]).line(row("a", **ALONE))
    assert "None" not in line
    assert line.split()[:4] == ["a", "openvino", "bf16", "8"]


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_plot(suffix, tmp_path):
    rows = [
        row(),
        row("resnet50d", 4.33, 100.0, 98.0, efficiency=1.0, top1=79.08),
        row("other", 3, 10, top1=None),
    ]
    path = plot([*rows, row("small batch", batch=1)], tmp_path / f"speed{suffix}")
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.width > image.height > 300
        return
    texts = [each.text for each in ElementTree.parse(path).iter() if each.tag.endswith("text")]
    models = "1 resnest50   2 resnet50d   3 other   filled: ours, hollow: the best setting of the peer"
    assert {models, "openvino bf16", "published top-1, %"} <= set(texts)
    assert not any("small batch" in text for text in texts)


def test_without_accuracy_or_peer_there_is_one_panel(tmp_path):
    path = plot([row(**ALONE)], tmp_path / "speed.svg")
    text = path.read_text()
    assert "published" not in text
    assert "hollow" not in text


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(UserError, match=r"\.svg or \.png"):
        plot([row()], tmp_path / "speed.pdf")
    with pytest.raises(UserError, match="no row"):
        plot([], tmp_path / "speed.svg")


def test_rows_are_written_one_by_one(tmp_path, capsys):
    path = tmp_path / "rows.json"
    rows = Rows(path, {"processor": "x"}, about={"settings": {"rounds": 3}})
    for n in (1, 2):
        rows.add({"n": n}, f"line {n}")
        assert json.loads(path.read_text()) == {
            "machine": {"processor": "x"}, "settings": {"rounds": 3}, "rows": [{"n": k + 1} for k in range(n)],
        }  # fmt: skip
    assert capsys.readouterr().out == "line 1\nline 2\n"


def test_the_machine_says_what_is_installed():
    found = described("torch", "no-such-package")
    assert "no-such-package" not in found
    assert found["threads"] >= 1
    assert found["processor"]
