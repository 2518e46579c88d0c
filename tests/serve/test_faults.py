"""Clients and files that mean harm, or are merely broken. After each the server answers the next one."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import SMALL, FakePredictor, Running, brightness, picture, received, serving, until

from resurge.serve.connection import key_of


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running
        assert running.post(picture(255)).status_code == 200  # after all of it
        assert running.service.accepted == 0
        assert running.service.buffered.held == 0
        assert running.service._decoder.budget.held == 0


def png_that_announces(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header speaks of many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def animated(format: str) -> bytes:
    frames = [Image.new("RGB", (20, 16), colour) for colour in ("white", "black", "red")]
    file = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(file, format, save_all=True, append_images=frames[1:], duration=100, **options)
    return file.getvalue()


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'


@pytest.mark.parametrize(
    "content, status, kind",
    [
        (b"", 422, "empty"),
        (b"hello", 415, "not-an-image"),
        (SVG, 415, "not-an-image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not-an-image"),
        (picture(0, format="TIFF"), 415, "not-an-image"),
        (picture()[:40], 422, "corrupt"),
        (picture(0, (300, 200), "JPEG")[:-60], 422, "truncated"),
        (png_that_announces(30_000, 30_000), 413, "too-large"),
        (png_that_announces(50_000, 10), 413, "too-large"),
        (png_that_announces(15_000, 2), 422, "too-narrow"),
        (png_that_announces(0, 9), 422, "corrupt"),
        (png_that_announces(2**31 - 1, 2**31 - 1), 413, "too-large"),
    ],
    ids=lambda value: value[:12].hex() if isinstance(value, bytes) else None,
)
def test_files_that_are_refused(server: Running, content: bytes, status: int, kind: str) -> None:
    answer = server.post(content)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (status, kind)
    assert server.predictor.batches == []  # the model never saw it


def test_a_jpeg_of_many_scans_is_refused(server: Running) -> None:
    whole = picture(7, (64, 64), "JPEG", progressive=True)
    first = whole.index(b"\xff\xda")
    assert server.post(whole[:first] + whole[first:-2] * 300 + whole[-2:]).status_code == 422
    assert server.post(whole).status_code == 200
    server.predictor.batches.clear()


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(server: Running, format: str) -> None:
    assert brightness(server.post(animated(format)).json()["images"][0]) == 1
    server.predictor.batches.clear()


def test_orientation_is_applied(server: Running) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    entry = server.post(file.getvalue()).json()["images"][0]
    assert (entry["width"], entry["height"]) == (20, 40)
    server.predictor.batches.clear()


# -------------------------------------------------------------------------------------------------------- bodies


FORM = "multipart/form-data; boundary=b"
FIELD = b"--b\r\nContent-Disposition: form-data; "


@pytest.mark.parametrize(
    "kind, body, status",
    [
        ("application/json", b"", 400),
        ("application/json", b"{", 400),
        ("application/json", b"[" * 90_000, 413),
        ("application/json", b'{"images": []}', 422),
        ("application/json", b'{"images": "x"}', 422),
        ("application/json", b'{"images": [1]}', 422),
        ("application/json", b'{"images": ["*"]}', 422),
        ("application/json", b'{"images": ["\xe9"]}', 400),
        ("application/json", json.dumps({"images": ["é"]}).encode(), 422),
        ("application/json", b'{"images": ["AA=="], "top": 5}', 422),
        ("application/json", b'{"images": ["AA==", "AA==", "AA==", "AA==", "AA=="]}', 413),
        ("multipart/form-data", b"x", 400),
        (FORM, b"x", 400),
        (FORM, b"", 400),
        (FORM, b"--b--\r\n", 422),
        (FORM, FIELD + b'name="f"; filename="a"\r\n\r\nx', 400),
        (FORM, FIELD + b'name="top"\r\n\r\n5\r\n--b--\r\n', 422),
        (FORM, (FIELD + b'name="image"\r\n\r\nx\r\n') * 5 + b"--b--\r\n", 413),
        (FORM, b"--b\r\n\r\nx\r\n--b--\r\n", 400),
        ("text/plain", b"x", 415),
        ("nonsense;;=", b"x", 415),
        ("image/svg+xml", SVG, 415),
    ],
    ids=str,
)  # fmt: skip
def test_bodies_that_are_refused(server: Running, kind: str, body: bytes, status: int) -> None:
    answer = server.post(body, kind=kind)
    assert (answer.status_code, set(answer.json()["error"])) == (status, {"kind", "message"})


def test_a_compressed_body_is_refused(server: Running) -> None:
    answer = server.http.post("/predict", content=b"x", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time for a client that was refused to go on sending."""
    monkeypatch.setattr("resurge.serve.middleware.LINGER", 0.5)


@pytest.mark.usefixtures("short_linger")
def test_a_hundred_megabytes_are_refused_unread(server: Running) -> None:
    with server.raw() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + bytes(1000))
        answer = received(connection)  # which ends: the server closes
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


@pytest.mark.usefixtures("short_linger")
def test_a_body_without_a_length_is_refused_while_it_comes(server: Running) -> None:
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with server.raw() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + 8 * chunk)
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_client_that_goes_on_sending_still_gets_its_refusal(server: Running) -> None:
    answer = server.post(bytes(30_000_000))
    assert answer.status_code == 413


def test_nobody_waits_for_a_continue_that_does_not_come(server: Running) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with server.raw() as connection:
        connection.sendall(head % 9_000_000)
        assert received(connection).startswith(b"HTTP/1.1 413")
    body = picture()
    with server.raw() as connection:
        connection.sendall(head % len(body))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert received(connection).startswith(b"HTTP/1.1 200")
    server.predictor.batches.clear()


# --------------------------------------------------------------------------------------------------- connections


def test_a_half_closed_connection_gets_its_answer(server: Running) -> None:
    body = picture(255)
    with server.raw() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"bright","score":1.0' in answer
    server.predictor.batches.clear()


def test_connections_that_end_too_early_leave_nothing_behind(server: Running) -> None:
    for start in (b"", b"POST /pre", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nabc"):
        for reset in (False, True):
            with server.raw() as connection:
                connection.sendall(start)
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: not server.service.accepted)


@pytest.mark.parametrize("line", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET /\x00 HTTP/1.1\r\n\r\n"])
def test_what_is_not_http_is_400(server: Running, line: bytes) -> None:
    with server.raw() as connection:
        connection.sendall(line + b"\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 400")


def test_a_header_without_end_is_400(server: Running) -> None:
    with server.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000)
        assert received(connection).startswith(b"HTTP/1.1 4")


def test_slow_clients_are_let_go() -> None:
    with serving(limits=replace(SMALL, read_timeout=0.3)) as server:
        with server.raw() as silent, server.raw() as slow, server.raw() as slower:
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
            slower.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nabc")
            assert received(slower).startswith(b"HTTP/1.1 408")
            for connection in (silent, slow):
                with contextlib.suppress(ConnectionResetError):
                    assert received(connection) == b""
        assert server.post(picture()).status_code == 200


def test_a_client_that_does_not_read_its_responses_is_let_go() -> None:
    with serving(limits=replace(SMALL, read_timeout=0.3)) as server, server.raw() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        until(lambda: server.server.server_state.connections)
        until(lambda: not server.server.server_state.connections)


# ---------------------------------------------------------------------------------------------------------- load


def test_a_full_queue_is_503_and_nothing_accepted_is_lost() -> None:
    predictor = FakePredictor()
    with serving(predictor) as server, ThreadPoolExecutor(20) as clients:
        predictor.gate.clear()
        accepted = [clients.submit(server.post, picture(20 * number)) for number in range(8)]
        until(lambda: server.service.accepted == 8)
        for _ in range(3):
            answer = server.post(picture())
            assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "busy")
            assert int(answer.headers["retry-after"]) >= 1
        assert server.get("/healthz").status_code == 200
        predictor.gate.set()
        answers = [one.result() for one in accepted]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert [round(255 * brightness(answer.json()["images"][0])) for answer in answers] == [20 * n for n in range(8)]


def test_a_request_of_more_images_than_there_is_room_for_is_refused_whole() -> None:
    predictor = FakePredictor()
    with serving(predictor, replace(SMALL, queue=4)) as server, ThreadPoolExecutor(2) as clients:
        predictor.gate.clear()
        first = clients.submit(server.post, picture())
        until(lambda: server.service.accepted == 1)
        four = {"images": [base64.b64encode(picture()).decode()] * 4}
        assert server.http.post("/predict", json=four).status_code == 503
        predictor.gate.set()
        assert first.result().status_code == 200
        assert server.http.post("/predict", json=four).status_code == 200


def test_uploads_share_their_memory() -> None:
    # 8 times max_bytes may be held; nine clients send all but their last byte
    body = bytes(1000)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with serving(limits=replace(SMALL, queue=32, max_bytes=1000)) as server:
        connections = [server.raw() for _ in range(8)]
        for connection in connections:
            connection.sendall(head + body[:-1])
        until(lambda: server.service.buffered.held == 8 * 999)
        assert server.post(body).json()["error"]["kind"] == "busy"
        for connection in connections:
            connection.sendall(body[-1:])
            assert connection.recv(100).startswith(b"HTTP/1.1 415")
            connection.close()


def test_clients_that_are_still_sending_keep_nobody_out() -> None:
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 399000\r\n\r\nabc"
    with serving() as server, ExitStack() as stack:
        for _ in range(3 * SMALL.queue):
            stack.enter_context(server.raw()).sendall(start)
        until(lambda: server.service.buffered.held == 3 * SMALL.queue * 3)  # what has come, not what is announced
        assert server.service.accepted == 0
        assert server.post(picture()).status_code == 200


def test_an_answer_that_is_late_is_504_and_its_work_is_dropped() -> None:
    predictor = FakePredictor()
    with serving(predictor, replace(SMALL, timeout=0.3)) as server:
        predictor.gate.clear()
        with ThreadPoolExecutor(2) as clients:
            both = [clients.submit(server.post, picture()) for _ in range(2)]
            assert {one.result().status_code for one in both} == {504}
            # a model that hangs is given nothing more to wait for, and what waited is let go
            until(lambda: server.service.stuck)
            refused = clients.submit(server.post, picture()).result()
            assert (refused.status_code, refused.json()["error"]["kind"]) == (503, "stuck")
        assert server.get("/readyz").json() == {"status": "stuck"}
        until(lambda: "resurge_queue_images 0.0" in server.get("/metrics").text)
        predictor.gate.set()
        until(lambda: server.service.ready)
        assert server.post(picture()).status_code == 200
        assert sum(predictor.batches) <= 3  # those that were given up while they waited never reached the model


def test_an_explanation_that_hangs_is_504_and_then_the_server_is_not_ready() -> None:
    gate = threading.Event()
    with serving(limits=replace(SMALL, timeout=0.3), explain=lambda image: gate.wait(30)) as server:
        assert server.post(picture(), "/explain").status_code == 504
        until(lambda: server.get("/readyz").json() == {"status": "stuck"})
        assert server.post(picture()).json()["error"]["kind"] == "stuck"
        gate.set()
        until(lambda: server.service.ready)
        assert not server.service.working
        assert server.post(picture()).status_code == 200


def test_an_explanation_waits_for_memory_no_longer_than_for_the_model() -> None:
    with serving(limits=replace(SMALL, timeout=0.3), explain=lambda image: b"") as server:
        budget = server.service._decoder.budget
        assert budget.try_take(budget.limit)
        assert server.post(picture(), "/explain").status_code == 504
        budget.give_back(budget.limit)
        assert server.post(picture(), "/explain").status_code == 200


def test_many_clients_at_once_get_their_own_answers() -> None:
    noise = np.random.default_rng(0)

    def client(number: int) -> list[int]:
        statuses = []
        with httpx.Client(timeout=60, verify=False) as http:
            for grey in noise.integers(0, 256, 6).tolist():
                content = b"broken" if grey % 5 == 0 else picture(grey, (10 + number, 16))
                answer = http.post(server.url + "/predict", content=content)
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    (entry,) = answer.json()["images"]
                    assert (round(255 * brightness(entry)), entry["width"]) == (grey, 10 + number)
                else:
                    assert answer.status_code in (415, 503)
        return statuses

    with serving() as server, ThreadPoolExecutor(12) as clients:
        statuses = [status for found in clients.map(client, range(12)) for status in found]
        assert len(statuses) == 72
        assert statuses.count(200) > 0
        until(lambda: not server.service.accepted)


# ------------------------------------------------------------------------------------------------ pages of other sites


OWN = "http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "headers, allowed",
    [
        ({}, True),  # no browser
        ({"origin": OWN, "sec-fetch-site": "same-origin"}, True),
        ({"origin": OWN}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "https://shop.example", "sec-fetch-site": "same-origin"}, True),  # a proxy wrote another Host
        ({"origin": "https://proxy.example:8443", "sec-fetch-site": "cross-site"}, True),  # let in by name
        ({"origin": "https://proxy.example"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "null", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://127.0.0.1:9", "sec-fetch-site": "same-site"}, False),  # another server of this machine
        ({"origin": "http://localhost:{port}"}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_pages_of_other_sites_send_nothing(headers: dict[str, str], allowed: bool, path: str) -> None:
    with serving(origins=frozenset({"proxy.example"}), explain=lambda image: b"") as server:
        given = {name: value.replace("{port}", str(server.port)) for name, value in headers.items()}
        answer = server.http.post(path, content=picture(), headers={**given, "content-type": "image/png"})
        assert answer.status_code == (200 if allowed else 403)
        if not allowed:
            assert answer.json()["error"]["kind"] == "cross-site"
            assert server.predictor.batches == []
        page = server.http.get("/", headers=given)  # a link on another site may lead here
        assert page.status_code == 200


def test_a_client_cannot_hold_all_connections() -> None:
    with serving(limits=replace(SMALL, per_client=3)) as server, ExitStack() as stack:
        kept = [stack.enter_context(server.raw()) for _ in range(3)]
        until(lambda: len(server.server.server_state.connections) == 3)
        with server.raw() as one_more:
            one_more.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(100_000))
            assert received(one_more).startswith(b"HTTP/1.1 503")
        other = stack.enter_context(socket.socket())
        other.bind(("127.0.0.2", 0))  # another client
        other.connect(("127.0.0.1", server.port))
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert received(other).startswith(b"HTTP/1.1 200")
        kept.pop().close()
        until(lambda: len(server.server.server_state.connections) <= 2)
        with server.raw() as again:
            again.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert received(again).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),  # one client has the whole network
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
    ],
)
def test_what_is_one_client(one: str, other: str, same: bool) -> None:
    assert (key_of(one) == key_of(other)) == same
