"""Downloads against a server on this machine: whole, resumed, cut short, wrong, absent."""

from __future__ import annotations

import hashlib
import io

import pytest
import torch
from weights.server import Files, serving

from resurge.errors import UserError
from resurge.weights.checkpoint import load_weights
from resurge.weights.download import Source, cached_path, default_cache, fetch, parse_source


def pickled(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


WEIGHTS = pickled({"fc.weight": torch.arange(400_000).float()})
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
NAME = f"net-{DIGEST[:8]}.pth"


@pytest.fixture(autouse=True)
def _no_proxy_and_no_mirror(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "RESURGE_MIRROR", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def files():
    with serving(Files({f"/{NAME}": WEIGHTS})) as running:
        yield running


def test_downloads_once_and_checks(files, tmp_path, capsys):
    path = fetch(f"{files.address}/{NAME}", tmp_path)
    assert path == tmp_path / NAME
    assert path.read_bytes() == WEIGHTS
    assert "MiB downloaded" in capsys.readouterr().err
    assert fetch(f"{files.address}/{NAME}", tmp_path) == path
    assert len(files.requests) == 1
    assert not list(tmp_path.glob("*.part"))


def test_full_hash(files, tmp_path):
    source = Source(kind="url", location=f"{files.address}/{NAME}", file=NAME, sha256=DIGEST.upper())
    assert fetch(source, tmp_path).read_bytes() == WEIGHTS


def test_goes_on_where_an_earlier_run_stopped(files, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(WEIGHTS[:1000])
    assert fetch(f"{files.address}/{NAME}", tmp_path).read_bytes() == WEIGHTS
    assert files.requests == [("GET", f"/{NAME}", "bytes=1000-")]


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("if_range", [True, False])
def test_two_versions_of_a_file_are_never_mixed(files, tmp_path, header, if_range):
    """Without a hash in its name, only the server can say that the file is still the one that was begun."""
    first, second = bytes(300_000), bytes([1]) * 400_000
    files.if_range = if_range
    files.contents["/net.pth"], files.headers["/net.pth"] = first, {header: '"one"'}
    files.cut_after["/net.pth"] = [1000, 0]
    with pytest.raises(UserError, match="Run it again"):
        fetch(f"{files.address}/net.pth", tmp_path)
    files.contents["/net.pth"], files.headers["/net.pth"] = second, {header: '"two"'}
    path = fetch(f"{files.address}/net.pth", tmp_path)
    assert path.read_bytes() == second
    assert sorted(file.name for file in path.parent.iterdir()) == ["net.pth", "net.pth.lock"]


def test_the_same_version_of_a_file_is_resumed(files, tmp_path):
    files.contents["/net.pth"], files.headers["/net.pth"] = WEIGHTS, {"ETag": '"one"'}
    files.cut_after["/net.pth"] = [1000, 0]
    with pytest.raises(UserError, match="Run it again"):
        fetch(f"{files.address}/net.pth", tmp_path)
    assert fetch(f"{files.address}/net.pth", tmp_path).read_bytes() == WEIGHTS
    assert files.requests[-1] == ("GET", "/net.pth", "bytes=1000-")


def test_a_file_of_no_known_version_is_begun_anew(files, tmp_path):
    files.contents["/net.pth"] = bytes(5000)
    address = f"{files.address}/net.pth"
    part = cached_path(parse_source(address), tmp_path).with_name("net.pth.part")
    part.parent.mkdir()
    part.write_bytes(bytes([1]) * 1000)
    assert fetch(address, tmp_path).read_bytes() == bytes(5000)


def test_starts_anew_where_the_server_does_not_resume(files, tmp_path):
    files.ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(b"something else")
    assert fetch(f"{files.address}/{NAME}", tmp_path).read_bytes() == WEIGHTS


def test_starts_anew_when_the_rest_lies_beyond_the_file(files, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(WEIGHTS + b"more")
    assert fetch(f"{files.address}/{NAME}", tmp_path).read_bytes() == WEIGHTS


def test_resumes_by_itself_when_the_connection_breaks(files, tmp_path):
    files.cut_after[f"/{NAME}"] = [500_000, 300_000]
    assert fetch(f"{files.address}/{NAME}", tmp_path).read_bytes() == WEIGHTS
    assert [wanted for _, _, wanted in files.requests] == [None, "bytes=500000-", "bytes=800000-"]


def test_truncated_again_and_again(files, tmp_path):
    files.cut_after[f"/{NAME}"] = [10, 10, 10, 10]
    with pytest.raises(UserError, match=rf"30 of {len(WEIGHTS)} bytes.*go on where it stopped.*--weights FILE"):
        fetch(f"{files.address}/{NAME}", tmp_path)
    assert not (tmp_path / NAME).exists()
    files.cut_after.clear()
    assert fetch(f"{files.address}/{NAME}", tmp_path).read_bytes() == WEIGHTS


def test_wrong_hash_is_not_kept(files, tmp_path):
    source = Source(kind="url", location=f"{files.address}/{NAME}", file=NAME, sha256="deadbeef")
    with pytest.raises(UserError, match=rf"begins with deadbeef, got {DIGEST[:8]}.*Put the file here"):
        fetch(source, tmp_path)
    assert not (tmp_path / NAME).exists()
    assert not (tmp_path / f"{NAME}.part").exists()


def test_error_page_instead_of_the_file(files, tmp_path):
    files.contents["/page.pth"] = b"\n<!DOCTYPE html><html>please log in</html>"
    with pytest.raises(UserError, match="web page, not weights"):
        fetch(f"{files.address}/page.pth", tmp_path)
    assert not list(tmp_path.rglob("page.pth"))


def test_empty_answer(files, tmp_path):
    files.contents["/empty.pth"] = b""
    with pytest.raises(UserError, match="empty"):
        fetch(f"{files.address}/empty.pth", tmp_path)


def test_not_found_says_where_to_put_it(files, tmp_path):
    with pytest.raises(UserError, match=r"HTTP 404.*Put the file here: .*gone\.pth, or pass --weights FILE"):
        fetch(f"{files.address}/gone.pth", tmp_path)


def test_without_a_network_a_file_brought_by_hand_is_used(tmp_path):
    with serving(Files()) as closed:
        address = closed.address  # nothing listens there afterwards
    with pytest.raises(UserError, match="Put the file here"):
        fetch(f"{address}/{NAME}", tmp_path)
    (tmp_path / NAME).write_bytes(WEIGHTS)
    assert fetch(f"{address}/{NAME}", tmp_path).read_bytes() == WEIGHTS


def test_a_wrong_file_brought_by_hand_is_refused_and_kept(tmp_path):
    (tmp_path / NAME).write_bytes(b"not it")
    with pytest.raises(UserError, match="Remove it or put the right file there"):
        fetch(f"http://127.0.0.1:1/{NAME}", tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"not it"


def test_mirror(files, tmp_path, monkeypatch):
    monkeypatch.setenv("RESURGE_MIRROR", files.address + "/")
    assert fetch(f"https://example.invalid/some/where/{NAME}", tmp_path).read_bytes() == WEIGHTS


def test_a_cache_that_cannot_be_written(files, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="RESURGE_CACHE"):
        fetch(f"{files.address}/{NAME}", tmp_path / "file" / "cache")


def test_cache_folder_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RESURGE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    assert cached_path(parse_source(f"https://example.invalid/a/{NAME}?raw=true")) == tmp_path / NAME


def test_two_addresses_with_one_file_name_are_two_files(files, tmp_path):
    files.contents |= {"/a/model.pth": WEIGHTS, "/b/model.pth": pickled({"fc.weight": torch.zeros(3)})}
    first, second = (fetch(f"{files.address}/{folder}/model.pth", tmp_path) for folder in "ab")
    assert first.read_bytes() == WEIGHTS
    assert second.read_bytes() == files.contents["/b/model.pth"]


# ------------------------------------------------------------------------------------------------------------- hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one repository that has `model.safetensors` and one that has only the old pickle."""
    running = Files()
    for repository, file in (("timm/new", "model.safetensors"), ("timm/old", "pytorch_model.bin")):
        path = f"/{repository}/resolve/main/{file}"
        running.contents[path] = WEIGHTS
        running.headers[path] = {"ETag": f'"{DIGEST}"', "X-Repo-Commit": "0" * 40}
    with serving(running):
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield running


def test_hub(hub, tmp_path):
    path = fetch("hub:timm/new", tmp_path)
    assert path.read_bytes() == WEIGHTS
    assert tmp_path in path.parents


def test_hub_cache_is_used_without_a_network(hub, tmp_path, monkeypatch):
    fetch("hub:timm/new", tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert fetch("hub:timm/new", tmp_path).read_bytes() == WEIGHTS


def test_hub_without_safetensors_has_the_pickle(hub, tmp_path):
    hub.absent_headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "0" * 40}
    assert fetch("hub:timm/old", tmp_path).read_bytes() == WEIGHTS


def test_hub_without_the_repository(hub, tmp_path):
    hub.absent_headers = {"X-Error-Code": "RepoNotFound"}
    with pytest.raises(UserError, match=r"cannot get model\.safetensors of hub:timm/absent"):
        fetch("hub:timm/absent", tmp_path)


def test_hub_out_of_reach_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"Put the file here: .*timm--resnest50d\.in1k.model\.safetensors"):
        fetch("hub:timm/resnest50d.in1k", tmp_path)
    by_hand = cached_path(parse_source("hub:timm/resnest50d.in1k"), tmp_path)
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(WEIGHTS)
    assert fetch("hub:timm/resnest50d.in1k", tmp_path) == by_hand


@pytest.mark.parametrize("text", ["hub:name-alone", "ftp://host/file.pth", "hub:a/b/c", "https://host/"])
def test_addresses_that_cannot_be(text):
    with pytest.raises(UserError, match="expected"):
        parse_source(text)


def test_hub_address_with_revision_and_file():
    source = parse_source("hub:timm/resnet18.a1_in1k@v1.0:sub/weights.bin")
    assert (source.location, source.revision, source.file) == ("timm/resnet18.a1_in1k", "v1.0", "sub/weights.bin")


def test_load_weights_from_an_address(files, tmp_path):
    from resurge.arch.backbone import Backbone
    from resurge.arch.zoo import get_spec

    backbone = Backbone(get_spec("resnet20_cifar"))
    content = pickled(backbone.state_dict())
    files.contents["/mine.pth"] = content
    report = load_weights(Backbone(get_spec("resnet20_cifar")), f"{files.address}/mine.pth", cache_dir=tmp_path)
    assert len(report.loaded) == len(backbone.state_dict())
