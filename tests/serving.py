"""A server in a thread with a model that is no network, and connections that misbehave."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

from resurge.data.preprocessing import Preprocessing
from resurge.errors import UserError
from resurge.serve.limits import Limits
from resurge.serve.loading import Loaded
from resurge.serve.running import Server, bind
from resurge.serve.service import Service
from resurge.tasks.classify.predict import Classified
from resurge.tasks.detect.predict import Found
from resurge.tasks.result import Result
from resurge.tasks.segment.predict import LabelMap

SMALL = Limits(
    max_bytes=400_000, max_pixels=1_000_000, max_images=4, max_batch=4, queue=8, timeout=20, read_timeout=20, grace=20,
    decoders=2,
)  # fmt: skip
FAILS, UNUSABLE = (66, 66), (77, 77)  # sizes of images that the fake model fails on


def _objects(size: tuple[int, int]) -> Found:
    """Two objects in the left half of an image of this width and height, the second one unsure."""
    width, height = size
    whole = {
        "size": [height, width],
        "counts": _counts([0, height * (width // 2), height * (width - width // 2)]).encode(),
    }
    boxes = np.array([[0.0, 0.0, width / 2, height]] * 2)
    return Found(boxes, np.array([0.9, 0.3]), np.array([0, 1]), [whole, whole])


def _label_map(size: tuple[int, int]) -> LabelMap:
    """The left half is class 0, the right half 1."""
    labels = np.zeros(size[::-1], np.uint8)
    labels[:, size[0] // 2 :] = 1
    return LabelMap(labels, 1.0)


def _counts(lengths: list[int]) -> str:
    """COCO's compressed run lengths of at most three numbers, which are told as they are."""
    text = ""
    for length in lengths:
        while True:
            group, length = length & 31, length >> 5
            more = not (length == 0 and not group & 16)
            text += chr((group | 32 if more else group) + 48)
            if not more:
                break
    return text


@dataclass
class FakePredictor:
    """Says how bright an image is. `gate` holds it up while it is cleared; `batches` are the sizes it was given."""

    task: str = "classify"
    classes: tuple[str, ...] = ("dark", "bright")
    meta: dict[str, Any] = field(default_factory=lambda: {"spec": "none", "scores": {"top1": 0.5}})
    format: str = "fake"
    precision: str = "fp32"
    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)
    preprocessing: Preprocessing = Preprocessing(32)

    def __post_init__(self) -> None:
        self.gate.set()

    def predict(self, images: Sequence[Image.Image], *, score: float = 0.0) -> list[Result]:
        self.batches.append(len(images))
        assert self.gate.wait(30)
        if any(image.size == FAILS for image in images):
            raise RuntimeError("this network does not like that image")
        if any(image.size == UNUSABLE for image in images):
            raise UserError("the image is too small for this network.")
        if self.task == "classify":
            return [self._classified(float(np.asarray(image).mean()) / 255) for image in images]
        return [_label_map(image.size) if self.task == "segment" else _objects(image.size) for image in images]

    def _classified(self, grey: float) -> Classified:
        bright, (dark, light) = grey >= 0.5, self.classes
        return Classified((light, dark) if bright else (dark, light), np.asarray(sorted([grey, 1 - grey])[::-1]))


@dataclass
class Running:
    server: Server
    service: Service
    predictor: FakePredictor
    port: int
    thread: threading.Thread
    http: httpx.Client
    failures: list[Exception]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, content: bytes, path: str = "/predict", kind: str = "image/png", **options: Any) -> httpx.Response:
        return self.http.post(path, content=content, headers={"content-type": kind}, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def end(self) -> None:
        self.server.should_exit = True


@contextmanager
def serving(
    predictor: FakePredictor | None = None,
    limits: Limits = SMALL,
    *,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    origins: frozenset[str] = frozenset(),
    explain: Any = None,
    load: Any = None,
    wait: bool = True,
) -> Iterator[Running]:
    """A server of the fake model, or of what `load` gives, on a free port; ready with `wait`, listening without."""
    predictor = predictor or FakePredictor()
    service = Service(load or (lambda: Loaded(predictor, explain)), limits)
    server = Server(service, token=token, hosts=hosts, origins=origins)
    failures: list[Exception] = []

    def run(listener: socket.socket) -> None:
        try:
            server.run_on(listener)
        except Exception as error:
            failures.append(error)

    with bind("127.0.0.1", 0) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=run, args=(listener,), daemon=True)
        thread.start()
        # without verify=False, making a client reads all certificates of this machine
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, verify=False))
        running = Running(server, service, predictor, port, thread, http, failures)
        until(lambda: server.started and (service.ready or not wait))
        predictor.batches.clear()  # that of the warm-up
        try:
            yield running
        finally:
            predictor.gate.set()
            http.close()  # an open connection is waited for
            running.end()
            thread.join(60)
            assert not thread.is_alive()


def until(true: Any, seconds: float = 30) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.005)


def picture(grey: int = 128, size: tuple[int, int] = (20, 16), format: str = "PNG", **options: Any) -> bytes:
    """A file with one colour."""
    file = io.BytesIO()
    Image.new("L", size, grey).save(file, format, **options)
    return file.getvalue()


def received(connection: socket.socket) -> bytes:
    """All until the other side closes."""
    whole = b""
    while chunk := connection.recv(65536):
        whole += chunk
    return whole


def brightness(entry: dict[str, Any]) -> float:
    """What the fake classifier says of an image."""
    return {one["class"]: one["score"] for one in entry["predictions"]}["bright"]
