"""The command's options, and what it says when it cannot serve."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from resurge.cli import main, serve
from resurge.cli.options import Parser
from resurge.errors import UserError
from resurge.tasks.table import get_task

MODEL = json.dumps({"format": 1, "spec": "resnet18", "task": "classify"})


def test_limits_from_the_command_line() -> None:
    parser = Parser("resurge serve", "x")
    serve.add_options(parser)

    def limits(words: str, task: str = "classify"):
        return serve.limits_of(parser.read(["export", *words.split()]), get_task(task))

    assert limits("").max_batch == 8
    assert limits("", "detect").max_batch == 1
    assert limits("--max-batch 3", "detect").max_batch == 3
    given = limits("--max-delay-ms 20 --queue 5 --timeout 2.5 --max-pixels 9 --workers 3")
    assert (given.max_delay, given.queue, given.max_images) == (0.02, 5, 5)
    assert (given.timeout, given.max_pixels, given.decoders) == (2.5, 9, 3)
    with pytest.raises(UserError, match="max_images=9 would never fit into queue=5"):
        limits("--queue 5 --max-images 9")


@pytest.mark.parametrize("words", ["--queue 0", "--timeout 0", "--max-delay-ms -1", "--port 70000", "--max-bytes x"])
def test_values_out_of_range(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "x", *words.split()]) == 2
    assert words.split()[0] in capsys.readouterr().err


def test_what_cannot_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "none")]) == 2
    assert main(["serve", str(tmp_path)]) == 2
    (tmp_path / "model.json").write_text("{")
    assert main(["serve", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "is no folder" in said
    assert "model.json does not exist" in said
    assert "model.json is damaged" in said


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "python_multipart", "prometheus_client"])
def test_without_the_packages_of_the_extra(tmp_path: Path, missing: str) -> None:
    (tmp_path / "model.json").write_text(MODEL)
    program = f"import sys; sys.modules[{missing!r}] = None; from resurge.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "serve", str(tmp_path), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert f"{missing} is not installed. Install what serve needs: pip install 'resurge[app]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.json").write_text(MODEL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.json").write_text(MODEL)
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "error" in capsys.readouterr().err


def test_a_warning_where_everybody_can_ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.json").write_text(MODEL)
    monkeypatch.setattr("resurge.serve.running.Server.run_on", lambda self, listener: None)
    monkeypatch.delenv(serve.TOKEN, raising=False)
    assert main(["serve", str(tmp_path), "--port", "0", "--host", "0.0.0.0"]) == 0
    assert "everybody who can reach" in capsys.readouterr().err
    monkeypatch.setenv(serve.TOKEN, "s3cret")
    assert main(["serve", str(tmp_path), "--port", "0", "--host", "0.0.0.0"]) == 0
    assert main(["serve", str(tmp_path), "--port", "0"]) == 0
    assert capsys.readouterr().err == ""


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    monkeypatch.setenv(serve.TOKEN, "other")
    assert serve.read_token(str(file)) == "s3cret"
    assert serve.read_token(None) == "other"
    for wrong in ("", "two words", "gehéim"):
        file.write_text(wrong)
        with pytest.raises(UserError, match="visible ASCII"):
            serve.read_token(str(file))
    with pytest.raises(UserError, match="cannot be read"):
        serve.read_token(str(tmp_path / "none"))
    monkeypatch.setenv(serve.TOKEN, "")
    with pytest.raises(UserError, match=serve.TOKEN):
        serve.read_token(None)
