"""Real networks behind the server: it says what `Predictor` says, and shows where a run looked."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_runs import MODEL, write_run
from serving import serving

from resurge.arch.zoo import get_spec
from resurge.data.images import open_image
from resurge.data.preprocessing import Preprocessing
from resurge.infer.predictor import Predictor
from resurge.runs import save_run_model
from resurge.serve.loading import loader
from resurge.tasks.table import build_task_model


def classifier(folder: Path) -> Path:
    torch.manual_seed(0)
    network = build_task_model("classify", get_spec(MODEL), 3, 3, None)
    told = {"classes": ("a", "b", "c"), "preprocessing": Preprocessing(32, 1.0, (0.5,) * 3, (0.25,) * 3)}
    folder.mkdir()
    save_run_model(folder, network.eval(), task="classify", norm="batch", scores={}, data={}, **told)
    return folder


@pytest.mark.parametrize("task", ["classify", "instances", "segment"])
def test_the_server_says_what_the_predictor_says(tmp_path: Path, task: str) -> None:
    run = classifier(tmp_path / "run") if task == "classify" else write_run(tmp_path / "run", task)
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    predictor = Predictor(run)
    (answer,) = predictor.predict([open_image(file.getvalue())], score=0.01)
    known = answer.to_json(predictor.classes)
    with serving(load=loader(str(run))) as server:
        assert server.get("/info").json()["explains"]
        told = server.post(file.getvalue(), "/predict?top=3&score=0.01").json()["images"][0]
        if task == "classify":
            found = {one["class"]: one["score"] for one in told["predictions"]}
            assert found == pytest.approx({one["class"]: one["score"] for one in known["predictions"]}, abs=1e-5)
        elif task == "instances":
            assert len(known["objects"]) > 0
            assert [one["box"] for one in told["objects"]] == [one["box"] for one in known["objects"]]
        else:
            assert [one["pixels"] for one in told["classes"]] == [one["pixels"] for one in known["classes"]]
        shown = server.post(file.getvalue(), "/explain")
        assert shown.status_code == 200
        values = np.asarray(Image.open(io.BytesIO(shown.content)).convert("RGB"))
        assert values.std() > 5


def test_serving_needs_no_torch() -> None:
    program = (
        "import sys, resurge.serve.running, resurge.serve.loading, resurge.infer.predictor\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
