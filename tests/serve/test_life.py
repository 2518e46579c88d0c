"""A server that starts and ends: what it takes meanwhile, and what it finishes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from serving import SMALL, FakePredictor, picture, received, serving, until

from resurge.serve.loading import Loaded


def test_not_ready_while_the_model_is_loaded_and_failed_when_it_cannot_be() -> None:
    may = threading.Event()

    def load() -> None:
        assert may.wait(30)
        raise ValueError("a broken file")

    with serving(load=load, wait=False) as server:
        assert server.get("/healthz").status_code == 200
        answer = server.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "starting"})
        for early in (server.post(picture()), server.get("/info")):
            assert (early.status_code, early.json()["error"]["kind"]) == (503, "starting")
        may.set()
        server.thread.join(60)
        assert str(server.failures[0]) == "a broken file"


def test_the_end_waits_for_what_was_accepted_and_takes_nothing_new() -> None:
    predictor = FakePredictor()
    with (
        serving(predictor) as server,
        ThreadPoolExecutor(4) as clients,
        httpx.Client(base_url=server.url, verify=False) as kept,
    ):
        assert kept.get("/readyz").status_code == 200
        predictor.gate.clear()
        accepted = [clients.submit(server.post, picture(20 * number)) for number in range(3)]
        until(lambda: server.service.accepted == 3)
        server.end()
        until(lambda: server.service.state == "draining")
        assert kept.get("/readyz").json() == {"status": "draining"}
        refused = kept.post("/predict", content=picture())
        assert (refused.status_code, refused.json()["error"]["kind"]) == (503, "draining")
        predictor.gate.set()
        assert [one.result().status_code for one in accepted] == [200] * 3
        server.thread.join(60)
        with pytest.raises(httpx.TransportError):
            server.get("/healthz")


def test_a_long_load_is_not_a_model_that_is_stuck() -> None:
    may = threading.Event()

    def load() -> Loaded:
        assert may.wait(30)
        return Loaded(FakePredictor())

    with serving(load=load, limits=replace(SMALL, timeout=0.01), wait=False) as server:
        until(lambda: server.service._engine.busy_for > 0.02)
        assert (server.service.working, server.service.stuck) == (True, False)
        assert server.get("/readyz").json() == {"status": "starting"}
        may.set()
        until(lambda: server.service.ready)


def test_the_end_waits_for_a_request_that_is_being_read() -> None:
    body = picture(255)
    with serving() as server, server.raw() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:9])
        until(lambda: server.service.buffered.held == 9)
        server.end()
        until(lambda: server.service.state == "draining")
        connection.sendall(body[9:])
        assert received(connection).startswith(b"HTTP/1.1 200")
        server.thread.join(60)
        assert not server.server.gave_up


def test_an_end_that_is_not_reached_in_time_is_forced() -> None:
    predictor = FakePredictor()
    with serving(predictor, replace(SMALL, grace=0.2)) as server, ThreadPoolExecutor(1) as clients:
        predictor.gate.clear()
        stuck = clients.submit(server.post, picture())
        until(lambda: server.service.accepted == 1)
        server.end()
        assert stuck.result().status_code == 500
        server.thread.join(60)
        assert not server.thread.is_alive()
        assert server.server.gave_up
