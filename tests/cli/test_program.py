"""The frame of the command line: help, exit codes, suggestions, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import resurge
from resurge.cli import main
from resurge.cli.program import COMMANDS
from resurge.errors import UserError

HEAVY = ("torch", "torchvision", "lightning_fabric", "sklearn", "matplotlib", "PIL", "numpy")


def python(*words: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, **kwargs)  # type: ignore[call-overload]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `resurge report` end with this error."""
    from resurge.cli import report

    def run(options: object) -> int:
        raise error

    monkeypatch.setattr(report, "run", run)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"  {name} " in text
        assert summary in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: resurge {name}")
    assert "--debug" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"resurge {resurge.__version__}\n"


def test_nothing_asked_prints_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "commands:" in printed.err


@pytest.mark.parametrize(
    "words, meant",
    [
        (["modles"], "'models'"),
        (["--verison"], "'--version'"),
        (["models", "--jsn"], "'--json'"),
        (["models", "resmest50"], "'resnest50'"),
        (["show", "resnt50"], "'resnet50'"),
        (["show", "resnet50 gaet=se"], "'gate'"),
        (["train", "--epochz", "3"], "'--epochs'"),
        (["train", "--batch_size", "3"], "'--batch-size'"),
        (["train", "--set", "label_smothing=0.1"], "'label_smoothing'"),
        (["train", "--recipe", "digts"], "'digits'"),
        (["train", "--schedule", "cosin", "--print-recipe"], "'cosine'"),
        (["eval", "resnet50", "--weigths", "x", "--data", "y"], "'--weights'"),
        (["eval", "resnet5o", "--data", "y"], "'resnet50'"),
        (["eval", "x", "--split", "tets"], "'test'"),
        (["predict", "run", "image.png", "--explian", "d"], "'--explain'"),
        (["check-data", "folder", "--jsno"], "'--json'"),
        (["convert", "a.pth", "b.safetensors", "--model", "resnet18", "--to", "torchvison"], "'torchvision'"),
    ],
)
def test_misspelt_words_get_the_nearest_real_one(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert f"Did you mean {meant}?" in printed.err
    assert "?." not in printed.err
    assert printed.err.startswith("resurge: error: ")
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--js"]) == 2
    assert "unknown option --js" in capsys.readouterr().err


def test_a_missing_argument_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    error = capsys.readouterr().err
    assert "RUN" in error
    assert "resurge report --help" in error
    assert len(error.splitlines()) == 1


def test_user_error_is_one_message_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, UserError("expected a cat, got a dog."))
    assert main(["report", "x"]) == 2
    assert capsys.readouterr().err == "resurge: error: expected a cat, got a dog.\n"


@pytest.mark.parametrize("words", [["report", "x", "--debug"], ["--debug", "report", "x"]])
def test_debug_shows_the_traceback(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, UserError("expected a cat."))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("resurge: error: expected a cat.\n")


def test_an_unexpected_failure_is_one_line_and_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, RuntimeError("two\nlines"))
    assert main(["report", "x"]) == 1
    error = capsys.readouterr().err
    assert "RuntimeError: two lines" in error
    assert "--debug" in error
    assert len(error.splitlines()) == 1


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["report", "x"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "resurge", "models"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120
        )
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


def test_quick_commands_import_nothing_heavy(tmp_path: Path) -> None:
    for words in (["--help"], ["--version"], ["models"], ["models", "--json"], ["train", "--help"], ["modles"]):
        program = (
            "import sys\nfrom resurge.cli import main\n"
            f"main({words!r})\n"
            f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
        )
        done = python("-c", program, cwd=tmp_path)
        assert done.stderr.splitlines()[-1] == "heavy: []", (words, done.stderr)


def test_python_m_resurge_is_the_command() -> None:
    done = python("-m", "resurge", "--version")
    assert (done.returncode, done.stdout) == (0, f"resurge {resurge.__version__}\n")
    done = python("-m", "resurge", "modles")
    assert done.returncode == 2
    assert "'models'" in done.stderr
