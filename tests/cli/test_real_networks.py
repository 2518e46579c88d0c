"""Two networks that somebody else trained, on real images: the whole path from files to a score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resurge.cli import main


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "model, file, top1",
    [("resnet20_cifar", "resnet20-12fca82f.th", 0.8103), ("resnet56_cifar", "resnet56-4bfd9763.th", 0.8320)],
)
def test_idelbayev_s_networks_score_what_they_score(
    model: str, file: str, top1: float, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the JPEG copy of CIFAR-10, whose reference scores were measured independently of this code."""
    data, weights = real_data / "cifar10", real_data / "cifar10_resnet_weights" / file
    if not (data / "test").is_dir() or not weights.is_file():
        pytest.skip(f"needs cifar10/test and cifar10_resnet_weights/{file} in {real_data}")
    assert main(["eval", model, "--weights", str(weights), "--data", str(data), "--split", "test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 10_000
    assert found["top1"] == pytest.approx(top1, abs=0.0002)
