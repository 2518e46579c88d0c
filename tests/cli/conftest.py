"""A folder of real-looking images and a run trained on it, both made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_classes import write_images

MODEL = "resnet20_cifar depths=(1,1,1) planes=(4,8,8) stem=conv3x3(4) gate=se(reduction=2)"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ (2 x 12) and test/ (2 x 6)."""
    root = tmp_path_factory.mktemp("photos")
    write_images(root / "train", 12, 0)
    write_images(root / "test", 6, 1)
    return root


@pytest.fixture(scope="session")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `resurge train` leaves after three epochs on `photos`."""
    from resurge.cli import main

    run = tmp_path_factory.mktemp("runs") / "photos"
    words = ["train", "--data", str(photos), "--model", MODEL, "--out", str(run), "--size", "16", "--epochs", "3"]
    words += ["--batch-size", "4", "--lr", "0.05", "--lr-per", "0", "--warmup", "0", "--crop-scale", "none"]
    words += ["--hflip", "0", "--workers", "0", "--threads", "1", "--device", "cpu", "--zero-init-last", "false"]
    assert main([*words, "--debug"]) == 0
    return run
