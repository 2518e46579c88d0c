"""The command as a process: it ends when it is told to, with 0, and not before what it accepted is answered."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serving import picture, until

TESTS = str(Path(__file__).parents[1])
PROGRAM = """\
import sys, time
from serving import FakePredictor
from resurge.cli import main
from resurge.serve import loading
from resurge.serve.loading import Loaded
from resurge.serve.service import WARM_UP
def sleep(what):
    if what == sys.argv[2]:
        time.sleep(float(sys.argv[3]))
class Slow(FakePredictor):
    def predict(self, images, *, score=0.0):
        sleep("load" if images[0].size == WARM_UP else "predict")
        return super().predict(images)
loading.loader = lambda *arguments: lambda: Loaded(Slow(), lambda image: sleep("explain"))
sys.exit(main(["serve", sys.argv[1], "--port", "0", *sys.argv[4:]]))
"""


@contextmanager
def process(
    folder: Path, *options: str, slow: str = "predict", seconds: int = 1
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    (folder / "model.json").write_text(json.dumps({"format": 1, "spec": "resnet18", "task": "classify"}))
    command = [sys.executable, "-c", PROGRAM, str(folder), slow, str(seconds), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as running:
        try:
            line = running.stdout.readline()
            assert line.startswith("serving"), running.stderr.read()
            with httpx.Client(base_url=line.split()[-1], timeout=60, verify=False) as client:
                until(lambda: (client.get("/readyz").status_code == 200) == (slow != "load"), 60)
                yield running, client
        finally:
            running.kill()


def exchange(port: int, wait: float) -> str:
    """What a client gets that connects, waits, and then sends a request: a status, or how it failed."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            time.sleep(wait)
            body = picture()
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            first = connection.recv(65536)
            return first[9:12].decode() if first.startswith(b"HTTP/1.1 ") else f"cut off: {first!r}"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return f"cut off: {error!r}"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel elsewhere has no filter for new connections")
def test_of_a_burst_every_request_is_answered_or_refused(tmp_path: Path) -> None:
    found: list[str] = []
    end = time.monotonic() + 60
    with process(tmp_path, "--queue", "20", seconds=0) as (running, client), ThreadPoolExecutor(48) as many:

        def knock(number: int) -> None:
            while time.monotonic() < end:
                found.append(exchange(client.base_url.port, 0.02 * (number % 4)))
                if found[-1] == "refused":
                    return

        clients = [many.submit(knock, number) for number in range(48)]
        until(lambda: len(found) > 100)
        running.send_signal(signal.SIGTERM)
        for each in clients:
            each.result()
        assert running.wait(60) == 0
        assert running.stdout.read() == "ended; all that was accepted is answered.\n"
    assert set(found) <= {"200", "503", "refused"}
    assert found.count("refused") == 48


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered(tmp_path: Path, number: int) -> None:
    with process(tmp_path) as (running, client), ThreadPoolExecutor(1) as one:
        answer = one.submit(client.post, "/predict", content=picture())
        until(lambda: "resurge_queue_images 1.0" in client.get("/metrics").text)
        running.send_signal(number)
        assert answer.result().status_code == 200
        assert running.wait(60) == 0
        assert running.stderr.read() == ""


def test_a_model_that_hangs_does_not_outlive_its_server(tmp_path: Path) -> None:
    with process(tmp_path, "--grace", "0.5", seconds=600) as (running, client), ThreadPoolExecutor(1) as one:
        answer = one.submit(client.post, "/predict", content=picture())
        until(lambda: "resurge_queue_images 1.0" in client.get("/metrics").text)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 1
        assert running.stdout.read() == "ended.\n"
        assert "did not come back" in running.stderr.read()
        assert answer.exception() is not None or answer.result().status_code >= 500


def test_nor_does_an_explanation_that_hangs(tmp_path: Path) -> None:
    with process(tmp_path, "--timeout", "0.3", slow="explain", seconds=600) as (running, client):
        assert client.post("/explain", content=picture()).status_code == 504
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 1
        assert "did not come back" in running.stderr.read()


def test_nor_a_load_that_takes_long_which_is_no_failure(tmp_path: Path) -> None:
    with process(tmp_path, slow="load", seconds=600) as (running, _):
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
        assert running.stderr.read() == ""
