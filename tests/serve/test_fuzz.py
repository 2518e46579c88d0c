"""Whatever is sent, the answer is one that is documented, and the server goes on."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import hypothesis
import hypothesis.strategies as st
import pytest
from serving import Running, picture, serving

few = hypothesis.settings(max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])

FILES = [
    picture(7, (30, 20), format, **options)
    for format, options in [
        ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("WEBP", {}), ("BMP", {}),
        ("TIFF", {}),
    ]
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture with some bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "insert", "end"])):
            case "change":
                data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del data[place : place + draw(st.integers(1, 40))]
            case "insert":
                data[place:place] = draw(st.binary(max_size=40))
            case "end":
                del data[place:]
    return bytes(data)


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running
        assert running.post(picture()).status_code == 200
        assert running.service.accepted == running.service.buffered.held == running.service._decoder.budget.held == 0


@pytest.fixture(scope="module")
def documented(server: Running) -> dict[str, Any]:
    return server.get("/openapi.json").json()["paths"]["/predict"]["post"]["responses"]


def check(answer: httpx.Response, documented: dict[str, Any]) -> None:
    assert str(answer.status_code) in documented
    assert answer.status_code < 500
    told = answer.json()
    if answer.status_code == 200:
        entries = told["images"]
        assert [entry["index"] for entry in entries] == list(range(len(entries)))
        assert any("error" not in entry for entry in entries)
    else:
        assert set(told["error"]) == {"kind", "message"}


@few
@hypothesis.given(damaged())
def test_damaged_pictures(server: Running, documented: dict[str, Any], content: bytes) -> None:
    check(server.post(content, kind="application/octet-stream"), documented)


@few
@hypothesis.given(
    st.binary(max_size=300),
    st.sampled_from(["image/png", "application/json", "multipart/form-data; boundary=b", "text/html", ""])
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).map(str.strip),
)
def test_any_bytes_of_any_type(server: Running, documented: dict[str, Any], content: bytes, kind: str) -> None:
    check(server.post(content, kind=kind), documented)


@few
@hypothesis.given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
        | st.sampled_from([base64.b64encode(file).decode() for file in FILES]),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.just("images") | st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    )
)  # fmt: skip
def test_any_json(server: Running, documented: dict[str, Any], value: Any) -> None:
    check(server.post(json.dumps(value).encode(), kind="application/json"), documented)
    check(server.post(json.dumps({"images": [value]}).encode(), kind="application/json"), documented)


@few
@hypothesis.given(
    st.lists(damaged(), min_size=1, max_size=5), st.lists(st.text(max_size=20), min_size=5, max_size=5), st.data()
)
def test_forms(
    server: Running, documented: dict[str, Any], contents: list[bytes], names: list[str], data: st.DataObject
) -> None:
    files = [("images", (name, content)) for name, content in zip(names, contents, strict=False)]
    request = server.http.build_request("POST", "/predict", files=files)
    check(server.http.send(request), documented)
    body = bytearray(request.read())
    place = data.draw(st.integers(0, len(body) - 1))
    body[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=5))
    check(server.post(bytes(body), kind=request.headers["content-type"]), documented)


@few
@hypothesis.given(
    st.dictionaries(st.sampled_from(["top", "score", "masks", "x"]), st.text(max_size=6) | st.integers() | st.floats())
)
def test_any_options(server: Running, documented: dict[str, Any], query: dict[str, Any]) -> None:
    check(server.post(FILES[0], params=query), documented)
