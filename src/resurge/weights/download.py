"""What names a file of weights, and getting it into the cache: checked, resumable, and clear about what to do without
a network.

Imports no torch; `huggingface_hub` is imported when a hub repository is asked for.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

from resurge.errors import UserError
from resurge.files import sha256
from resurge.untrusted import open_regular

CHUNK = 1 << 20
ATTEMPTS = 3
TIMEOUT_SECONDS = 30.0
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}  # ours, not the network's

HUB_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of trained weights, where it is, and what its numbers expect.

    Attributes:
        kind: "hub" (a repository of huggingface.co) or "url".
        location: `owner/name` on the hub, or the whole address.
        file: the file's name, on the hub and in the cache.
        sha256: hexadecimal SHA-256 of the file or its first digits; empty when nobody published one.
        revision: branch, tag or commit on the hub; empty means the newest.
        label: which training the weights are from, in the words of those who published them.
        licence: licence of the weights as published; "see repository" where none is stated for them.
        layout: the names its state dict uses, one of `resurge.weights.layouts.naming.LAYOUTS`.
        top1: published top-1 accuracy of exactly this file in per cent, if any.
        size: side of the square crop, in pixels, that evaluation uses.
        crop_pct: crop side divided by the short side of the resized image.
        interpolation: "bilinear" or "bicubic".
        mean, std: of the normalisation, RGB, for pixels in 0..1.
    """

    kind: str
    location: str
    file: str
    sha256: str = ""
    revision: str = ""
    label: str = ""
    licence: str = "see repository"
    layout: str = "auto"
    top1: float | None = None
    size: int = 224
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __str__(self) -> str:
        return f"hub:{self.location}" if self.kind == "hub" else self.location


def parse_source(text: str) -> Source:
    """Read `hub:owner/name[@revision][:file]` or an `http(s)://` address; raises UserError if the text is neither."""
    if text.startswith(("http://", "https://")):
        name = PurePosixPath(unquote(urlsplit(text).path)).name
        if not name:
            raise UserError(f"expected the address of a file of weights, got {text!r}, which names no file.")
        # File names of PyTorch's convention, NAME-PREFIX.pth, carry the first 8 digits of their SHA-256.
        prefix = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", name)
        return Source(kind="url", location=text, file=name, sha256=prefix.group(1) if prefix else "")
    hub = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([\w./-]+))?", text)
    if hub is None:
        raise UserError(
            f"expected hub:owner/name (or hub:owner/name@revision:file) or an http(s) address, got {text!r}."
        )
    return Source(kind="hub", location=hub.group(1), revision=hub.group(2) or "", file=hub.group(3) or HUB_FILE)


def default_cache() -> Path:
    """`$RESURGE_CACHE`, or `~/.cache/resurge`."""
    named = os.environ.get("RESURGE_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "resurge"


def cached_path(source: Source, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where `fetch` looks first, and where a file that was brought by hand belongs."""
    root = Path(cache_dir) if cache_dir is not None else default_cache()
    if source.kind == "hub":
        return root / "hub" / source.location.replace("/", "--") / Path(source.file).name
    if not source.sha256:  # many addresses end in the same name, and no hash would tell them apart
        root = root / hashlib.sha256(source.location.encode()).hexdigest()[:8]
    return root / Path(source.file).name


def fetch(source: Source | str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the local path of a file of weights, downloading it when it is not there yet.

    Args:
        source: a `Source`, `hub:owner/name`, or an http(s) address. `$RESURGE_MIRROR` is the address of a folder that
            has the files of plain addresses under their own names; the hub's mirror is `$HF_ENDPOINT`.
        cache_dir: folder to keep files in; `default_cache()` by default.

    Raises:
        UserError: the file cannot be had, is not what was promised, or cannot be stored. The message says where a
            file brought by hand is looked for.
    """
    if isinstance(source, str):
        source = parse_source(source)
    path = cached_path(source, cache_dir)
    if path.is_file():
        problem = _problem(path, source.sha256)
        if problem:
            raise UserError(f"{path}: {problem}. Remove it or put the right file there, or pass --weights FILE.")
        return path
    if source.kind == "hub":
        return _fetch_hub(source, path, cache_dir)
    return _fetch_url(source, path)


def looks_like_web_page(head: bytes) -> bool:
    """Whether a file's first bytes are HTML or XML, which is what portals and error pages send with status 200."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))


def _problem(path: Path, expected: str) -> str:
    """Why the file cannot be the one asked for, or an empty string."""
    with open_regular(path) as file:
        head = file.read(512)
    if not head:
        return "the file is empty"
    if looks_like_web_page(head):
        return "this is a web page, not weights"
    if expected:
        found = sha256(path)
        if not found.startswith(expected.lower()):
            return f"expected a SHA-256 that begins with {expected}, got {found[: max(8, len(expected))]}"
    return ""


def _by_hand(path: Path) -> str:
    return f"Put the file here: {path}, or pass --weights FILE."


def _fetch_hub(source: Source, path: Path, cache_dir: str | os.PathLike[str] | None) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT")
    revision = source.revision or None
    cache = None if cache_dir is None else str(Path(cache_dir) / "huggingface")

    def get(file: str) -> Path:
        try:
            got = hf_hub_download(source.location, file, revision=revision, cache_dir=cache, local_files_only=True)
        except LocalEntryNotFoundError:
            # Ask once first: the download itself tries for half a minute before it admits there is no network.
            address = hf_hub_url(source.location, file, revision=revision, endpoint=endpoint)
            get_hf_file_metadata(address)
            got = hf_hub_download(source.location, file, revision=revision, cache_dir=cache, endpoint=endpoint)
        return Path(got)

    try:
        try:
            local = get(source.file)
        except EntryNotFoundError as error:
            # Repositories older than safetensors have only the pickle. "Not in the cache, and no network" is also
            # an EntryNotFoundError, and no reason to ask for another file.
            if isinstance(error, LocalEntryNotFoundError) or source.file != HUB_FILE:
                raise
            local = get("pytorch_model.bin")
    except Exception as error:  # the client's transport errors differ between its versions and are not exported
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"cannot get {source.file} of {source}: {reason} {_by_hand(path)}") from error
    problem = _problem(local, source.sha256)
    if problem:
        raise UserError(f"{source}, file {source.file}: {problem}. {_by_hand(path)}")
    return local


def _fetch_url(source: Source, path: Path) -> Path:
    from filelock import FileLock

    mirror = os.environ.get("RESURGE_MIRROR")
    address = f"{mirror.rstrip('/')}/{source.file}" if mirror else source.location
    if not address.startswith(("http://", "https://")):
        raise UserError(f"expected an http(s) address, got {address!r}. {_by_hand(path)}")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.is_file():  # another process may have been faster
                _download(address, part, bool(source.sha256), _by_hand(path))
                problem = _problem(part, source.sha256)
                _version_file(part).unlink(missing_ok=True)
                if problem:
                    part.unlink()
                    raise UserError(f"{address}: {problem}. {_by_hand(path)}")
                part.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot store {path}: {reason}. Free some space, or name another cache folder in RESURGE_CACHE."
        ) from error
    return path


def _download(address: str, part: Path, has_hash: bool, advice: str) -> None:
    """Bring `part` to its full length, resuming what an earlier attempt left of the same version; raises UserError when
    that fails. Where nobody knows which version that was, it goes on only if a hash will show what came of it."""
    reason = ""
    if not has_hash and not _version(part, address):
        part.unlink(missing_ok=True)
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            expected = _transfer(address, part, before)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                part.unlink()  # what lies there is not the beginning of this file
                continue
            raise UserError(f"cannot get {address}: HTTP {error.code} {error.reason}. {advice}") from error
        except (OSError, http.client.HTTPException) as error:  # URLError and TLS errors are OSErrors
            if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
                raise
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        else:
            if expected in (None, _size(part)):
                return
            reason = f"the connection ended after {_size(part)} of {expected} bytes"
        if _size(part) == before:
            break  # no progress: another attempt would only take more of the user's time
    raise UserError(f"cannot get {address}: {reason}. Run it again to go on where it stopped. {advice}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _version(part: Path, address: str) -> str:
    """The ETag or the date of the file of which `part` is the beginning; "" where that is not known."""
    try:
        where, version = _version_file(part).read_text(encoding="utf-8").split("\n")[:2]
    except (OSError, ValueError):
        return ""
    return version if where == address else ""


def _transfer(address: str, part: Path, before: int) -> int | None:
    """One request, from byte `before` on if the file there is still the one that was begun. Returns the length of the
    whole file, None where it is not announced."""
    headers = {"User-Agent": "resurge", "Accept-Encoding": "identity"}
    begun = _version(part, address) if before else ""
    if before:
        headers["Range"] = f"bytes={before}-"
    if begun:
        headers["If-Range"] = begun
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        span = response.headers.get("Content-Range", "") if response.status == http.client.PARTIAL_CONTENT else ""
        start = before if span.startswith(f"bytes {before}-") else 0
        # strong, as a range needs it
        version = response.headers.get("ETag", "W/")
        version = response.headers.get("Last-Modified", "") if version.startswith("W/") else version
        if start and begun and version != begun:  # a server that knows Range, but not If-Range
            part.unlink()
            return _transfer(address, part, 0)
        if not start:
            _version_file(part).write_text(f"{address}\n{version}\n", encoding="utf-8")
        length = response.headers.get("Content-Length", "")
        expected = start + int(length) if length.isdigit() else None
        with part.open("ab" if start else "wb") as file:
            _copy(response, file, start, expected, part.stem)
    return expected


def _copy(response: IO[bytes], file: IO[bytes], have: int, expected: int | None, name: str) -> None:
    """Copy the body and show progress on standard error."""
    start, begun, shown = have, time.monotonic(), 0.0
    live = sys.stderr.isatty()
    while chunk := response.read(CHUNK):
        file.write(chunk)
        have += len(chunk)
        now = time.monotonic()
        if live and now - shown > 0.2:
            shown = now
            speed = (have - start) / max(now - begun, 1e-3)
            share = f" of {expected / 2**20:.1f}" if expected else ""
            line = f"\r{name}: {have / 2**20:.1f}{share} MiB, {speed / 2**20:.1f} MiB/s "
            print(line, end="", file=sys.stderr, flush=True)
    print(f"{chr(13) if live else ''}{name}: {have / 2**20:.1f} MiB downloaded", file=sys.stderr)
