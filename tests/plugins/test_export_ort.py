"""examples/export_ort: a format of exports from another package, written, compared, predicted and evaluated with."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from plugins.installed import Installed

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def ort(install: Callable[[str], Installed]) -> Installed:
    return install("export_ort")


def test_written_and_used(ort: Installed) -> None:
    done = ort.resurge(
        "train --data digits --model 'resnet18 depths=(1,1) planes=(8,16)' --epochs 1 --batch-size 128 --workers 0"
        " --device cpu --out run",
        "export run --format ort --out exported",
        "predict run run/explain --json",
        "predict exported run/explain --json",
        "bench exported --rounds 1 --help",
        "export run --format ort --precision fp16 --out half",
    )
    assert [each.code for each in done] == [0, 0, 0, 0, 0, 2], [each.err[-400:] for each in done]
    certificate = json.loads((ort.folder / "exported" / "certificate.json").read_text())
    assert (certificate["agreement"], certificate["difference"] < 1e-3) == (1, True)
    meta = json.loads((ort.folder / "exported" / "model.json").read_text())["export"]
    assert (meta["format"], list(meta["files"])) == ("ort", ["model.ort"])
    of_run, of_export = (json.loads(each.out)["images"] for each in done[2:4])
    assert of_run
    assert [image["predictions"][0]["class"] for image in of_run] == [
        image["predictions"][0]["class"] for image in of_export
    ]
    assert "this example writes fp32 only" in done[5].err
    assert not (ort.folder / "half").exists()
