"""Exported segmenters: each head in each format, at sizes that were not traced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from alive import assert_alive, structured_images
from scene_runs import write_run
from torch.nn import functional as F

from resurge.export.convert import Deployed, grid_means, onnx_to_openvino, trace, write_onnx, write_program
from resurge.infer.engines import Engine, open_engine
from resurge.infer.folder import Export
from resurge.optimize.rewrite import rewrite
from resurge.runs import load_run

for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(name)
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters and runtimes warn of themselves


@pytest.mark.parametrize("size", [(6, 6), (7, 11), (1, 2), (13, 24)])
def test_means_of_a_grid(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    for bins in (1, 2, 3, 6):
        torch.testing.assert_close(grid_means(x, bins), F.adaptive_avg_pool2d(x, bins))


@pytest.mark.parametrize("head", ["pspnet", "deeplabv3"])
def test_every_format(head: str, tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", "segment", head=head))
    program = trace(Deployed(rewrite(run.model)), 3)
    write_program(program, tmp_path)
    write_onnx(program, tmp_path)
    onnx_to_openvino(tmp_path / "model.onnx", tmp_path)
    for format in ("torch", "onnx", "openvino"):
        told = {"format": format, "precision": "fp32", "outputs": ["logits"]}
        engine: Engine = open_engine(
            Export(tmp_path, {"task": "segment", "preprocessing": {}, "export": told}), "cpu", threads=1
        )
        for count, size in ((3, (64, 96)), (1, (75, 50)), (2, (113, 130))):
            images = structured_images(count, size=size)
            with torch.no_grad():
                expected = run.model(images)
            found = engine.run(images.numpy())["logits"]
            assert np.abs(found - expected.numpy()).max() < 1e-4 * expected.abs().max(), (format, size)
        assert_alive(expected)
