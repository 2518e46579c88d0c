"""What `resurge show` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resurge.errors import UserError
from resurge.explain.show import compare, summarize, write_diagrams

ENTRY = {
    "top1": 81.03,
    "top1_source": "ResNeSt authors",
    "top1_size": 224,
    "sources": (
        {"kind": "hub", "location": "owner/name", "licence": "apache-2.0", "label": "in1k", "top1": 81.03, "size": 224},
        {"kind": "url", "location": "https://example.org/a.pth", "top1": None},
    ),
}


def test_text_has_the_table_the_score_and_the_weights() -> None:
    text = summarize("resnest50", entry=ENTRY).to_text()
    lines = text.splitlines()
    assert lines[0] == "resnest50"
    assert "also called resnest50d" in text
    assert "27,483,240" in text
    assert "5.371 G" in text
    assert "81.03 % top-1 on ImageNet at 224 x 224 (ResNeSt authors)" in text
    assert "hub:owner/name" in text
    assert "https://example.org/a.pth" in text
    stage = next(line for line in lines if line.startswith("stage 3"))
    assert "1024 x 14 x 14" in stage
    assert stage.split()[-1] == "295"


def test_columns_are_aligned() -> None:
    lines = summarize("resnet18").to_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "parameters" in line)
    table = lines[start : start + 6]
    edge = table[0].index("parameters") + len("parameters")
    assert all(line[edge - 1] != " " and line[edge] == " " for line in table)


def test_unpublished_networks_say_nothing_of_scores() -> None:
    text = summarize("resnet50 transform=split(radix=2) gate=se", size=(64, 64)).to_text()
    assert text.startswith("seresnet50 transform=split(radix=2)\n")
    assert "published" not in text
    assert "weights:" not in text
    assert "published" not in summarize("resnet18", entry={"top1": None, "sources": ()}).to_text()


def test_cifar_networks_have_ten_classes() -> None:
    summary = summarize("resnet20_cifar", size=(32, 32))
    assert summary.costs.parameters == 269_722
    assert summarize("resnet20_cifar", size=(32, 32), num_classes=100).costs.rows[-1].shape == (100,)


def test_scores_of_cifar_networks_are_not_called_imagenets() -> None:
    entry = {"top1": 91.73, "top1_source": "akamaster", "top1_size": 32}
    text = summarize("resnet20_cifar", size=(32, 32), entry=entry).to_text()
    assert "91.73 % top-1 on CIFAR-10 at 32 x 32 (akamaster)" in text


def test_json_round_trip() -> None:
    data = json.loads(json.dumps(summarize("resnest14", entry=ENTRY, size=(64, 64)).to_json()))
    assert data["name"] == "resnest14"
    assert data["published"] == {"top1": 81.03, "top1_source": "ResNeSt authors", "top1_size": 224}
    assert data["weights"][1] == {"kind": "url", "location": "https://example.org/a.pth"}
    assert data["cost"]["input"] == [3, 64, 64]
    assert data["spec"]["depths"] == [1, 1, 1, 1]
    assert summarize("resnet18 planes=(8,16,24,32)", size=(64, 64)).to_json()["name"] is None


def test_compare_puts_networks_side_by_side() -> None:
    text = compare(
        [summarize("resnest14", entry=ENTRY), summarize("resnet18"), summarize("resnet20_cifar", size=(32, 32))]
    )
    rows = {line[:24].strip(): line for line in text.splitlines()}
    assert text.splitlines()[0].split() == ["resnest14", "resnet18", "resnet20_cifar"]
    assert "11,689,512" in rows["parameters"]
    assert rows["published top-1"].split()[-2:] == ["-", "-"]
    assert rows["stage 4 multiply-adds"].split()[-1] == "-"
    assert any(line.startswith("transform") for line in text.splitlines())
    same = compare([summarize("resnet18"), summarize("resnet18")])
    assert not any(line.startswith("transform") for line in same.splitlines())


def test_nothing_to_compare() -> None:
    with pytest.raises(UserError, match="at least one"):
        compare([])


def test_diagram_files(tmp_path: Path) -> None:
    written = write_diagrams("resnet20_cifar", tmp_path / "net.svg", size=(32, 32))
    assert [path.name for path in written] == ["net.svg", "net_stage1.svg", "net_stage2.svg", "net_stage3.svg"]
    assert "64 → 10" in written[0].read_text()
