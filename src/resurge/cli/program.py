"""`main`: finds the subcommand, runs it, and turns every way of ending into one message and an exit code."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Protocol

from resurge.cli.options import Parser, log
from resurge.errors import UserError, suggest
from resurge.untrusted import shown, shown_message


class Command(Protocol):
    """What the module of a subcommand has to offer."""

    def add_options(self, parser: Parser) -> None: ...

    def run(self, options: object) -> int: ...


# The module of a subcommand, of its name, is imported when it is called, so that `resurge --help` stays quick.
COMMANDS = {
    "models": "list the networks: parameters, multiply-adds, published score",
    "show": "what a network is made of and costs, stage by stage; compare several",
    "train": "train a network on a folder of images, or go on with a run",
    "eval": "score a run, or a network with given weights, on labelled images",
    "predict": "classes, objects or label maps of images, with a run or an export",
    "report": "write a run's report.html anew",
    "check-data": "find what is wrong with a folder of images before training on it",
    "export": "write what production runs: ONNX, OpenVINO or torch, down to int8",
    "serve": "serve a run or an export over HTTP, with a page to try it in",
    "bench": "how fast networks run here, beside timm's in the same runtime and precision",
    "convert": "rewrite weights in another package's layout",
    "plugins": "the blocks, heads, tasks and formats that installed packages add",
}
_WIDTH = max(map(len, COMMANDS)) + 2
_LISTED = "\n".join(f"  {name:<{_WIDTH}}{summary}" for name, summary in COMMANDS.items())
HELP = f"""\
usage: resurge COMMAND [options]

The ResNet family, from a folder of images to a trained, evaluated, explained model.

commands:
{_LISTED}

options:
  -h, --help  this text; `resurge COMMAND --help` for a command's own
  --version   the version
  --debug     show the traceback of an error

exit codes:
  0    done
  1    done, but something was found: files skipped by predict, errors found by check-data; or an unexpected failure
  2    the command, a file or a setting cannot be used; the message says which and what to do
  3    a training whose loss or weights became infinite or not a number; its last good checkpoint is kept
  130  interrupted by Ctrl-C; a training has written a checkpoint and goes on with --resume"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `resurge` command line on `argv` (without the program's name) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if logging.lastResort is not None:  # what prints warnings where nobody else does
        logging.lastResort.setFormatter(_OnOneLine())
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold bytes that are no UTF-8, a terminal may know ASCII only; neither may end a long job.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(arguments)
        if sys.stdout is not None:  # it is None where the caller has closed it
            sys.stdout.flush()
        return code
    except SystemExit as exit_:  # how argparse ends --help
        return exit_.code if isinstance(exit_.code, int) else 0
    except BrokenPipeError:
        # Python flushes stdout when it exits; onto a closed pipe that would print a second complaint.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a shell reports for a program that SIGPIPE ended
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            print(*map(shown, traceback.format_exc().splitlines()), sep="\n", file=sys.stderr)
        message, code = _ending(error, debug)
        with contextlib.suppress(BrokenPipeError):
            log(message)
        return code


class _OnOneLine(logging.Formatter):
    """A warning may name a file, whose name may hold anything."""

    def format(self, record: logging.LogRecord) -> str:
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        return "\n".join((shown_message(record.getMessage()), *map(shown, trace.splitlines())))


def _dispatch(arguments: list[str]) -> int:
    before = [word for word in arguments if word != "--debug"]
    if not before:
        print(HELP, file=sys.stderr)
        return 2
    name, rest = before[0], before[1:]
    if name in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if name == "--version":
        from resurge import __version__

        print(f"resurge {__version__}")
        return 0
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        options = ["--help", "--version", "--debug"] if kind == "option" else list(COMMANDS)
        raise UserError(f"unknown {kind} {name!r}.{suggest(name, options)} `resurge --help` lists what there is.")
    command: Command = importlib.import_module(f"resurge.cli.{name.replace('-', '_')}")
    parser = Parser(prog=f"resurge {name}", summary=COMMANDS[name])
    command.add_options(parser)
    return command.run(parser.read(rest))


def _ending(error: BaseException, debug: bool) -> tuple[str, int]:
    """The message and the exit code of a command that ended so."""
    if isinstance(error, UserError):
        return f"error: {error}", 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", 130
    if isinstance(error, OSError) and error.errno is not None:
        return f"error: {_refused(error)}", 2
    kind, text = type(error).__name__, " ".join(str(error).split())
    what = f"{kind}: {text}" if text else kind
    if kind in ("OutOfMemoryError", "MemoryError") or "DefaultCPUAllocator" in text:
        where = "device" if kind == "OutOfMemoryError" else "machine"
        return f"the {where} is out of memory ({what}). Use a smaller --batch-size or --size, or --precision bf16.", 1
    return f"unexpected failure: {what}" + ("" if debug else " -- run it again with --debug for the traceback."), 1


def _refused(error: OSError) -> str:
    """What the operating system would not do, and to which file."""
    name = "" if error.filename is None else os.fsdecode(error.filename)
    about = f"{name if len(name) <= 200 else name[:200] + '…'}: " if name else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{about}{error.strerror}. Free some space, or write to another disk."
    return f"{about}{error.strerror}. Check that the path is right and that you may use it."
