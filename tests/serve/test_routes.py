"""What clients who behave get."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from serving import FAILS, SMALL, UNUSABLE, FakePredictor, Running, brightness, picture, serving, until


@pytest.fixture(scope="module")
def server():
    with serving(explain=lambda image: picture(9, image.size)) as running:
        yield running


def test_an_image_as_it_is(server: Running) -> None:
    answer = server.post(picture(255, (20, 16)))
    assert answer.status_code == 200
    (entry,) = answer.json()["images"]
    assert (entry["index"], entry["width"], entry["height"]) == (0, 20, 16)
    assert entry["predictions"][0] == {"class": "bright", "score": 1.0}


def test_several_images_in_a_form_and_as_base64_keep_their_order(server: Running) -> None:
    greys = [0, 255, 51, 102]
    files = [("images", (f"{grey}.png", picture(grey), "image/png")) for grey in greys]
    form = server.http.post("/predict", files=files).json()["images"]
    texts = [base64.b64encode(picture(grey)).decode() for grey in greys]
    texts[0] = "data:image/png;base64," + texts[0]
    plain = server.http.post("/predict", json={"images": texts}).json()["images"]
    for entries in (form, plain):
        assert [round(255 * brightness(entry)) for entry in entries] == greys
    assert [entry["name"] for entry in form] == ["0.png", "255.png", "51.png", "102.png"]


def test_one_bad_image_spoils_no_other(server: Running) -> None:
    files = [("images", ("a.png", picture(255))), ("images", ("b.png", b"no image")), ("images", ("c", picture(0)))]
    answer = server.http.post("/predict", files=files)
    first, second, third = answer.json()["images"]
    assert answer.status_code == 200
    assert second["error"]["kind"] == "not-an-image"
    assert (brightness(first), brightness(third)) == (1, 0)


def test_the_gravest_status_when_none_is_answered(server: Running) -> None:
    answer = server.http.post("/predict", files=[("images", ("a", b"")), ("images", ("b", picture(0, FAILS)))])
    assert answer.status_code == 500
    assert [entry["error"]["kind"] for entry in answer.json()["images"]] == ["empty", "failed"]


def test_a_failure_of_the_model_is_500_and_the_next_image_is_answered(server: Running) -> None:
    assert server.post(picture(0, FAILS)).status_code == 500
    assert server.post(picture(0, UNUSABLE)).status_code == 422
    assert server.post(picture(0)).status_code == 200


def test_options(server: Running) -> None:
    assert len(server.post(picture(), "/predict?top=1").json()["images"][0]["predictions"]) == 1
    for query in ("top=0", "top=x", "score=2", "scor=0.5"):
        answer = server.post(picture(), f"/predict?{query}")
        assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "bad-query")
    assert "Did you mean 'score'" in answer.json()["error"]["message"]


def test_objects_and_maps() -> None:
    with serving(FakePredictor(task="instances")) as server:
        (entry,) = server.post(picture(0, (21, 16)), "/predict?score=0.2").json()["images"]
        assert [found["score"] for found in entry["objects"]] == [0.9, 0.3]
        (entry,) = server.post(picture(0, (21, 16)), "/predict?masks=false").json()["images"]
        assert len(entry["objects"]) == 1
        assert "mask" not in entry["objects"][0]
    with serving(FakePredictor(task="segment")) as server:
        (entry,) = server.post(picture(0, (21, 16))).json()["images"]
        labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["map"]))))
        assert labels.shape == (16, 21)
        assert (labels[:, :10] == 0).all()
        assert (labels[:, 10:] == 1).all()
        assert "map" not in server.post(picture(), "/predict?masks=false").json()["images"][0]


def test_health_information_and_counts(server: Running) -> None:
    assert server.get("/healthz").json() == {"status": "alive"}
    assert server.get("/readyz").json() == {"status": "ready"}
    told = server.get("/info").json()
    assert (told["task"], told["classes"], told["format"]) == ("classify", ["dark", "bright"], "fake")
    assert told["limits"]["max_images"] == SMALL.max_images
    server.post(b"nothing")
    server.get("/no-such-path")
    counts = server.get("/metrics").text
    for line in (
        'resurge_requests_total{route="/predict",status="415"}', 'route="other",status="404"',
        'resurge_images_total{outcome="not-an-image"}', "resurge_batch_images_bucket", "resurge_queue_images 0.0",
        "resurge_queue_limit_images 8.0", "resurge_request_seconds_bucket", "resurge_ready 1.0",
    ):  # fmt: skip
        assert line in counts


def test_pages_and_their_headers(server: Running) -> None:
    for path in ("/", "/docs", "/page/page.js", "/page/drawing.js", "/page/style.css", "/page/icon.svg"):
        answer = server.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in answer.text
    assert server.get("/page/../app.py").status_code == 404
    assert server.get("/page/..%2fapp.py").status_code == 404
    assert server.get("/predict").status_code == 405


def test_explanations(server: Running) -> None:
    answer = server.post(picture(0, (30, 20)), "/explain")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (30, 20)
    assert server.post(b"", "/explain").status_code == 422
    with serving() as export:
        assert export.post(picture(), "/explain").status_code == 404


def test_the_token() -> None:
    with serving(token="s3cret") as server:
        for path in ("/info", "/metrics", "/info%0A", "/metrics%0A", "/info/", "/INFO", "/nowhere"):
            assert server.get(path).status_code == 401
        assert server.post(picture(), path="/predict%0A").status_code == 401
        answer = server.post(picture())
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for wrong in ("Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer é".encode()):
            assert server.get("/info", headers={"authorization": wrong}).status_code == 401
        assert server.get("/info", headers={"authorization": "Bearer s3cret"}).status_code == 200
        assert server.get("/info", headers={"authorization": "bearer  s3cret"}).status_code == 200
        for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
            assert server.get(path).status_code == 200


def test_a_name_that_is_not_the_servers_is_refused() -> None:
    with serving(hosts=frozenset({"localhost", "127.0.0.1", "[::1]"})) as server:
        assert server.get("/info", headers={"host": "attacker.example:80"}).status_code == 421
        for name in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"):
            assert server.get("/info", headers={"host": name}).status_code == 200


def test_images_of_many_requests_go_through_the_model_together() -> None:
    predictor = FakePredictor()
    with serving(predictor, replace(SMALL, queue=16)) as server, ThreadPoolExecutor(9) as clients:
        predictor.gate.clear()
        first = clients.submit(server.post, picture(0))
        until(lambda: predictor.batches)
        others = [clients.submit(server.post, picture(25 * number)) for number in range(1, 9)]
        until(lambda: len(server.service._batcher) == 8)
        predictor.gate.set()
        greys = [round(255 * brightness(other.result().json()["images"][0])) for other in [first, *others]]
        assert greys == [25 * number for number in range(9)]
        assert predictor.batches == [1, 4, 4]
