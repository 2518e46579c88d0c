"""Rows of a tiny network: what is in them, and what is not timed."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial

import across
import pytest
import torch
from scene_runs import write_run
from tiny_exports import MODEL, write_files

from resurge.bench import measuring
from resurge.bench.baselines import baseline_of, settings_of
from resurge.bench.candidates import Candidate
from resurge.bench.measuring import Bench
from resurge.bench.settings import Configuration, Settings
from resurge.bench.subjects import open_subject
from resurge.errors import UserError
from resurge.infer.folder import described

QUICK = {"rounds": 2, "latencies": 3, "size": 32, "yardstick": None, "threads": 1}


def test_an_export_has_the_multiply_adds_of_its_run(tmp_path):
    """Its network is built with the numbers of its head: the stride of this one is not the usual one."""
    run, folder = write_run(tmp_path / "run", "segment"), tmp_path / "export"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"never loaded")
    about = {"format": "onnx", "precision": "fp32", "files": {"model.onnx": described(folder / "model.onnx")}}
    meta = json.loads((run / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**meta, "export": about}))
    assert open_subject(str(folder), 64).gmacs == open_subject(str(run), 64).gmacs > 0


def measured(word, say=lambda line: None, **settings):
    with Bench(Settings(**{**QUICK, **settings}), say) as bench:
        return list(bench.rows(str(word)))


def test_eager_against_a_peer(run, peers):
    one, several = measured(run, runtimes=("eager",), batches=(1, 2))
    assert (one["model"], one["runtime"], one["precision"], one["batch"]) == (str(run), "eager", "fp32", 1)
    assert (one["size"], one["threads"], one["device"], one["rounds"]) == (32, 1, "cpu", 2)
    assert one["peer"] == "timm stand-in"
    assert set(one["settings"]) == {"contiguous", "channels-last"}
    assert one["peer_setting"] in one["settings"]
    assert one["peer_images_per_s"] == max(each["images_per_s"] for each in one["settings"].values())
    assert one["quartiles"][0] <= one["ratio"] <= one["quartiles"][1]
    assert one["difference"] < 1e-4
    assert one["agreement"] == 1
    assert one["latency_ms"]["runs"] >= 3
    assert one["peer_latency_ms"]["p50"] <= one["peer_latency_ms"]["p99"]
    assert one["load_s"] > 0
    assert one["memory_mb"] is None or one["memory_mb"] >= 0
    assert one["efficiency"] is None
    assert one["top1"] is None
    assert not one["random_weights"]
    assert "latency_ms" not in several
    assert several["batch"] == 2
    json.dumps([one, several])


def test_bf16_is_bf16_on_both_sides(run, peers):
    (row,) = measured(run, runtimes=("eager",), precisions=("bf16",), batches=(2,))
    assert set(row["settings"]) == {"contiguous", "channels-last", "autocast"}
    for found in (row, *row["settings"].values()):
        assert 1e-5 < found["difference"] < 0.1


def test_files_of_both_sides(run, peers, tmp_path):
    """ONNX Runtime and OpenVINO in all but int8 of ONNX, and what is said of the best of them."""
    told = []
    settings = Settings(
        runtimes=("onnx", "openvino"), precisions=("fp32", "bf16", "int8"), batches=(2,), **QUICK,
        pictures=str(write_files(tmp_path / "pictures", 4)), calibration=3,
    )  # fmt: skip
    with Bench(settings, told.append) as bench:
        subject = open_subject(str(run), 32)
        rows = [bench.row(subject, cell) for cell in bench.configurations(subject) if str(cell) != "onnx int8 batch 2"]
        assert [(row["runtime"], row["precision"]) for row in rows] == [
            ("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"),
        ]  # fmt: skip
        for row in rows:
            assert list(row["settings"]) == ["fixed shape"], row["notes"]
            low, high = {"fp32": (0, 1e-5), "bf16": (1e-4, 0.1), "int8": (1e-3, 1)}[row["precision"]]
            for found in (row, *row["settings"].values()):
                assert low <= found["difference"] < high
        assert sum(line.startswith("ONNX of") for line in told) == 4  # theirs once, ours once a form
        best = across.best_row(bench, subject, rows[:2])
        assert {best["our_runtime"], best["peer_runtime"]} <= {"onnx", "openvino"}
        assert best["runtime"] == "best"
        fast = {"images_per_s": 1e9}, {"peer_images_per_s": 1e9}
        other = across.best_row(bench, subject, [{**row, **new} for row, new in zip(rows[:2], fast, strict=True)])
        assert (other["our_runtime"], other["peer_runtime"]) == ("onnx", "openvino")
        assert other["images_per_s"] < 1e9
        plain = across.plain_row(bench, subject, rows[2:3])
        assert (plain["our_runtime"], plain["peer_runtime"], plain["precision"]) == ("openvino", "eager", "bf16")
        same = across.agreement(bench, subject, Configuration("openvino", "fp32", 2), settings.pictures, limit=3)
        assert (same["pictures"], same["same"], same["agreement"]) == (3, 3, 1.0)
        _an_export_is_measured_as_it_is(bench, subject, tmp_path / "export")
        folder = bench.files.folder
        assert any(folder.iterdir())
        bench.forget(subject)
        assert not any(folder.iterdir())
    assert not folder.exists()


def _an_export_is_measured_as_it_is(bench, subject, folder):
    made = bench.files.ours(subject, "onnx", "fp32")
    shutil.copytree(made.folder, folder)
    told = {**made.meta["export"], "files": {"model.onnx": described(folder / "model.onnx")}}
    (folder / "model.json").write_text(json.dumps({**made.meta, "export": told}))
    (row,) = measured(folder, runtimes=("eager", "openvino"), batches=(1,), size=None, against="none")
    assert (row["runtime"], row["precision"], row["size"], row["peer"]) == ("onnx", "fp32", 32, None)
    assert row["difference"] is None
    assert row["images_per_s"] > 0


@pytest.mark.slow
def test_int8_in_onnx_runtime(run, peers, tmp_path):
    settings = {"runtimes": ("onnx",), "precisions": ("int8",), "batches": (2,), "calibration": 3}
    (row,) = measured(run, **settings, pictures=str(write_files(tmp_path / "pictures", 4)))
    for found in (row, *row["settings"].values()):
        assert 1e-3 < found["difference"] < 1


def test_a_peer_that_answers_otherwise_is_not_timed(run, peers):
    peers.append(lambda net: net.get_parameter("head.fc.weight").mul_(1.01))
    (row,) = measured(run, runtimes=("eager",), batches=(1,))
    assert (row["peer"], row["ratio"], row["settings"]) == (None, None, {})
    assert "another network" in row["notes"][0]


def test_a_setting_that_answers_otherwise_is_not_timed(run, peers, monkeypatch):
    def doubled(made, images):
        return 2 * made.predict(images)

    def wrong(peer, subject, job, files):
        for name, make in settings_of(peer, subject, job, files):
            if name == "contiguous":
                yield name, make
            else:
                made = make()
                yield name, partial(Candidate, partial(doubled, made), made.run, 0.0, None)

        def fails():
            raise ValueError("no such thing\nhere")

        yield "third", fails

    monkeypatch.setattr(measuring, "settings_of", wrong)
    (row,) = measured(run, runtimes=("eager",), batches=(1,))
    assert list(row["settings"]) == ["contiguous"]
    assert "channels-last, gives other outputs (1.0e+00" in row["notes"][0]
    assert row["notes"][1].endswith("third, does not run: no such thing")


def test_ours_has_to_answer_as_it_should(run, peers, monkeypatch):
    from resurge.bench.candidates import ours

    def wrong(subject, job, files):
        made = ours(subject, job, files)
        return Candidate(lambda images: made.predict(images) * math.nan, made.run, 0.0, None)

    monkeypatch.setattr(measuring, "ours", wrong)
    with pytest.raises(UserError, match=r"gives other outputs .* Nothing was timed"):
        measured(run, runtimes=("eager",), batches=(1,))


def test_efficiency_is_counted_against_the_yardstick(monkeypatch):
    """Twice as many multiply-adds in the same time are twice as efficient."""
    from resurge.optimize import timing

    small = MODEL.replace("planes=(8,8,16)", "planes=(4,8,8)")
    monkeypatch.setattr(timing, "race", lambda runs, *_, **__: timing.Race(dict.fromkeys(runs, ((1.0,),))))
    settings = {"against": "none", "runtimes": ("eager",), "batches": (1,), "yardstick": small, "latencies": 0}
    (own,) = measured(small, **settings)
    (other,) = measured(MODEL, **settings)
    assert own["efficiency"] == 1
    assert other["efficiency"] == pytest.approx(other["gmacs"] / own["gmacs"], abs=0.05)
    assert other["efficiency"] > 1.2
    assert other["random_weights"]


def test_a_network_by_name_answers_differently_to_different_images():
    subject = open_subject(MODEL, 32)
    with torch.inference_mode():
        logits = subject.run.model(torch.from_numpy(subject.images(4)))
    spread = (logits - logits.mean(0)).square().mean().sqrt() / logits.abs().max()
    assert spread > 0.01
    again = open_subject(MODEL, 32)
    assert all(a.equal(b) for a, b in zip(subject.run.model.parameters(), again.run.model.parameters(), strict=True))


def test_timm_takes_the_weights_of_the_same_name():
    """ResNeSt is timm's resnest14d; its answers are the same, and a text of one's own has no peer."""
    with Bench(Settings(**{**QUICK, "runtimes": ("eager",)})) as bench:
        peer = bench.baseline(open_subject("resnest14", 64))
        assert (str(peer), peer.same_weights) == ("timm resnest14d", True)
        assert bench.baseline(open_subject(MODEL, 32)) == f"timm has no network like {MODEL}"
    assert str(baseline_of(open_subject("resnet18", 32), "torchvision")) == "torchvision resnet18"
    assert baseline_of(open_subject("resnest14", 32), "torchvision") == "torchvision has no resnest14"


def test_none_to_compare_with(run):
    (row,) = measured(run, runtimes=("eager",), batches=(1,), against="none")
    assert (row["peer"], row["ratio"], row["quartiles"], row["peer_images_per_s"]) == (None,) * 4
    assert row["notes"] == []


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"runtimes": ("openvin",)}, "Did you mean 'openvino'?"),
        ({"precisions": ("fp23",)}, "unknown precision 'fp23'"),
        ({"against": "tim"}, "Did you mean 'timm'?"),
        ({"runtimes": ("eager",), "precisions": ("int8",)}, "nothing is left to measure: eager in int8"),
        ({"runtimes": ("onnx",), "device": "cuda"}, "run on the processor here"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(UserError) as caught:
        Bench(Settings(**settings))
    assert message in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'resurge\[bench\]'"):
        Bench(Settings(runtimes=("eager",)))


def test_the_runtime_that_has_no_such_precision_is_left_out():
    settings = Settings(runtimes=("eager", "onnx", "openvino"), precisions=("fp32", "bf16", "int8"), batches=(8,))
    assert [(cell.runtime, cell.precision) for cell in settings.configurations()] == [
        ("eager", "fp32"), ("onnx", "fp32"), ("openvino", "fp32"), ("eager", "bf16"), ("openvino", "bf16"),
        ("onnx", "int8"), ("openvino", "int8"),
    ]  # fmt: skip
    assert len(settings.left_out()) == 2


def test_threads_are_as_before_afterwards(run):
    before = torch.get_num_threads()
    with Bench(Settings(threads=before + 1, against="none")):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
