"""Exports to a disk that is full: an error that says so, and nothing that ends the process."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from resurge.errors import UserError
from resurge.export.convert import Deployed, onnx_to_openvino, trace, write_onnx, write_program
from resurge.infer.formats import FORMATS

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")


@pytest.fixture(scope="module")
def program():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return trace(Deployed(network).eval(), 3)


def full(folder: Path, format: str) -> Path:
    for name in FORMATS[format].files:
        (folder / name).symlink_to(FULL)
    return folder


def test_torch(program, tmp_path):
    with pytest.raises(OSError, match="No space") as caught:
        write_program(program, full(tmp_path, "torch"))
    assert caught.value.errno == errno.ENOSPC


def test_what_torch_writes_is_read_back(program, tmp_path):
    write_program(program, tmp_path)
    images = torch.rand(3, 3, 20, 30)
    found = torch.export.load(tmp_path / FORMATS["torch"].file).module()(images)
    torch.testing.assert_close(found, program.module()(images))


def test_onnx(program, tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(OSError, match="No space"):
        write_onnx(program, full(tmp_path, "onnx"))


def test_openvino(program, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    write_onnx(program, tmp_path)
    (tmp_path / "full").mkdir()
    with pytest.raises(UserError, match="free some space"):
        onnx_to_openvino(tmp_path / FORMATS["onnx"].file, full(tmp_path / "full", "openvino"))
