"""`resurge serve EXPORT|RUN`: an HTTP server for one model."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from resurge import config
from resurge.cli.options import COUNT, Parser, add, add_device, given, log, value, whole_number
from resurge.errors import UserError
from resurge.run_files import read_model_json
from resurge.tasks.table import DEFAULT, get_task
from resurge.tasks.task import Task

if TYPE_CHECKING:
    from resurge.serve.limits import Limits

TOKEN = "RESURGE_TOKEN"

SECONDS = (value(float, config.Limits(above=0)), "X")


def milliseconds(word: str) -> float:
    """Reads a time of 0 or more, in milliseconds; the value is in seconds."""
    return value(float, config.Limits(low=0))(word) / 1000


def add_options(parser: Parser) -> None:
    add(parser, "model", "EXPORT|RUN", "a folder of `resurge export`, or of `resurge train`")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1, this machine only")
    about = "default: 8000; 0 takes a free one"
    parser.add_argument("--port", type=whole_number(0, 65535), default=8000, metavar="N", help=about)
    about = f"clients have to send what stands in FILE as a bearer token (default: the variable {TOKEN}, if set)"
    add(parser, "--token-file", "FILE", about)
    about = "a name by which a server on 127.0.0.1 may be called, and whose pages may use it; may be repeated"
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=about)
    add_device(parser)
    add(parser, "--threads", COUNT, "threads of the model (default: chosen by its runtime)")
    about = "threads that decode images (default: one a processor, 4 at most)"
    add(parser, "--workers", (whole_number(1, 64), "N"), about, dest="decoders")
    group = parser.add_argument_group("limits")
    add(group, "--max-batch", COUNT, "images the model is given at a time (default: 8 for a classifier, else 1)")
    about = "how long an idle model waits for images that are being decoded (default: 5)"
    add(group, "--max-delay-ms", (milliseconds, "X"), about, dest="max_delay")
    add(group, "--queue", COUNT, "images accepted and without a result yet; more are refused with 503 (default: 64)")
    add(group, "--timeout", SECONDS, "seconds from a request to its response; later it is 504 (default: 30)")
    add(group, "--read-timeout", SECONDS, "seconds a client has to send its request (default: 20)")
    add(group, "--grace", SECONDS, "seconds to finish what was accepted, after SIGTERM or Ctrl-C (default: 30)")
    add(group, "--max-bytes", COUNT, "of a request (default: 20,000,000)")
    add(group, "--max-pixels", COUNT, "of an image (default: 40,000,000)")
    add(group, "--max-side", COUNT, "pixels on a side of an image (default: 20,000)")
    add(group, "--max-images", COUNT, "in a request (default: 16)")
    about = "open connections of one client address; more behind a proxy, whose clients are one (default: 128)"
    add(group, "--per-client", COUNT, about)
    parser.epilog = (
        "The page is at /, the description of the routes at /docs. Ends with 0 after SIGTERM or Ctrl-C, when what was\n"
        "accepted is answered."
    )


def run(options: argparse.Namespace) -> int:
    if not Path(options.model).is_dir():
        raise UserError(f"{options.model} is no folder. Expected one of `resurge export` or `resurge train`.")
    task = get_task(str(read_model_json(options.model).get("task", DEFAULT)))
    token = read_token(options.token_file)
    # Read when Pillow is imported. In its own blocks of 16 MB the C library keeps what pictures have left.
    os.environ.setdefault("PILLOW_BLOCK_SIZE", "64m")
    try:
        from resurge.serve.running import LOOPBACK, Server, bind, is_local
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise UserError(f"{package} is not installed. Install what serve needs: pip install 'resurge[app]'") from error
    from resurge.serve.loading import loader
    from resurge.serve.service import Service

    limits = limits_of(options, task)
    service = Service(loader(options.model, options.device, options.threads), limits)
    with bind(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        local = is_local(listener)
        if not local and token is None:
            log(f"warning: everybody who can reach {host} can use this server. Give --token-file, or --host 127.0.0.1.")
        # reached from elsewhere it has names that are not known here; those that are given are the ones then
        names = {name.lower() for name in options.allow_host}
        shown = f"[{host}]" if ":" in host else host  # as a Host header has it, too
        hosts = LOOPBACK | names | {options.host.lower(), shown} if local or names else None
        print(f"serving {options.model} at http://{shown}:{port}", flush=True)
        server = Server(service, token=token, hosts=hosts, origins=frozenset(names))
        server.run_on(listener)
    print("ended." if server.gave_up else "ended; all that was accepted is answered.", flush=True)
    if service.working:  # its thread cannot be stopped, and Python would wait for it
        if service.loading:  # nothing was accepted yet, so that nothing is missing
            os._exit(0)
        log("the model did not come back; its process ends without it.")
        os._exit(1)
    return 0


def limits_of(options: argparse.Namespace, task: Task) -> Limits:
    """The limits the command line gives, the defaults otherwise."""
    from resurge.serve.limits import Limits

    limits = given(options, [field.name for field in dataclasses.fields(Limits)])
    if not task.one_size:  # the objects of an image may depend on its padding beside a larger one
        limits.setdefault("max_batch", 1)
    if options.queue is not None:
        limits.setdefault("max_images", min(Limits.max_images, options.queue))
    return Limits(**limits)


def read_token(path: str | None) -> str | None:
    """The token in a file, or that of the environment, or None."""
    token, source = os.environ.get(TOKEN), path or f"the variable {TOKEN}"
    if path is not None:
        try:
            token = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--token-file {path} cannot be read ({error}).") from error
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"expected a token in {source}: a line of visible ASCII signs without spaces.")
    return token
