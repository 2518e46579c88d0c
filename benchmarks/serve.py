"""`resurge serve` under load, over loopback, against the same model without a server on the same cores.

    python benchmarks/serve.py EXPORT --images DIR                  # saturation, twice the load; classifiers
    python benchmarks/serve.py EXPORT --images DIR --soak 10        # and ten minutes of it, memory watched

Offline is what a careful script does: JPEGs decoded in threads ahead of the model, batches of the same size. The
server is the command, in a process of its own, with `--batch` and `--decoders` as given here and else with its
defaults. Clients and server share the cores, as they do here, so what the clients cost is part of the served figure.
Offline and served take turns; the figure is the median over rounds of the ratio served / offline images a second.

At saturation a fixed number of clients ask one after the other. At twice the load requests come at twice the rate that
saturation reached, whatever becomes of them: some are answered 503, none may be lost or answered wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from resurge.files import atomic_write_text
from resurge.machine import described as machine

RESULT = Path(__file__).parent / "results" / "serve.json"
PACKAGES = ("resurge", "starlette", "uvicorn", "openvino", "onnxruntime", "numpy", "pillow")
TOLERANCE = 0.02  # of a probability: batches of other sizes round otherwise, in bf16 and int8 visibly

Expected = list[dict[str, float]]  # for each file the probability of every class


# ------------------------------------------------------------------------------------------------------- offline


def offline(model: str, files: Sequence[str], batch: int, decoders: int, seconds: float) -> tuple[float, Expected]:
    """Images a second from files to answers, and what the model says of each file; in a process of its own."""
    from resurge.data.images import open_image
    from resurge.infer.predictor import Predictor

    predictor = Predictor(model)
    contents = [Path(file).read_bytes() for file in files]

    def answers(limit: float) -> Iterator[Any]:
        """Answers of the files over and over, until all were seen and the time is over."""
        end = time.perf_counter() + limit
        with ThreadPoolExecutor(decoders) as threads:
            ahead: deque[Future[Any]] = deque()
            given = 0
            while given < len(contents) or time.perf_counter() < end:
                while len(ahead) < 3 * batch:
                    ahead.append(threads.submit(open_image, contents[(given + len(ahead)) % len(contents)]))
                images = [ahead.popleft().result() for _ in range(batch)]
                given += batch
                yield from predictor.predict(images)

    expected = [
        dict(zip(answer.names, answer.scores.tolist(), strict=True))
        for answer, _ in zip(answers(0), files, strict=False)
    ]
    began = time.perf_counter()
    count = sum(1 for _ in answers(seconds))
    return count / (time.perf_counter() - began), expected


# -------------------------------------------------------------------------------------------------------- clients


@dataclass
class Tally:
    """What became of requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    wrong: int = 0
    seconds: list[float] = field(default_factory=list)  # of those answered 200
    wall: float = 0.0

    def summary(self) -> dict[str, Any]:
        told = self.seconds or [float("nan")]
        shares = {f"p{share}_ms": round(1000 * float(np.percentile(told, share)), 2) for share in (50, 95, 99)}
        statuses = {str(status): count for status, count in sorted(self.statuses.items())}
        rate = {"images_per_second": self.statuses[200] / self.wall} if self.wall else {}
        return {**rate, **shares, "statuses": statuses, "lost": self.lost, "wrong": self.wrong}


class Client:
    """Asks the server; connections are kept and used again."""

    def __init__(self, port: int, bodies: Sequence[bytes], expected: Expected) -> None:
        self.port, self.expected = port, expected
        head = (
            "POST /predict?top=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
        )
        self.requests = [head.format(len(body)).encode() + body for body in bodies]
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, number: int, tally: Tally) -> int:
        """Send one file and count what comes back; gives the status, 0 for a lost request."""
        began = time.perf_counter()
        try:
            status, body = await asyncio.wait_for(self._exchange(self.requests[number]), 120)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError):
            tally.lost += 1
            return 0
        tally.statuses[status] += 1
        if status == 200:
            tally.seconds.append(time.perf_counter() - began)
            tally.wrong += self._wrong(json.loads(body), self.expected[number])
        return status

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head:
            writer.close()
        else:
            self._free.append((reader, writer))
        return int(head[9:12]), body

    @staticmethod
    def _wrong(told: dict[str, Any], expected: dict[str, float]) -> bool:
        best = told["images"][0]["predictions"][0]
        known = expected.get(best["class"], -1.0)
        return abs(best["score"] - known) > TOLERANCE or known < max(expected.values()) - TOLERANCE


async def saturate(client: Client, clients: int, seconds: float) -> Tally:
    """So many clients ask one file after the other."""
    tally = Tally()
    began = time.perf_counter()

    async def one(first: int) -> None:
        number = first
        while time.perf_counter() < began + seconds:
            if await client.ask(number % len(client.requests), tally) in (0, 503):
                await asyncio.sleep(0.05)
            number += clients

    await asyncio.gather(*(one(first) for first in range(clients)))
    tally.wall = time.perf_counter() - began
    return tally


async def flood(client: Client, rate: float, seconds: float) -> Tally:
    """So many requests a second, whatever becomes of them."""
    tally = Tally()
    began = time.perf_counter()
    tasks = []
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(client.ask(number % len(client.requests), tally)))
    await asyncio.gather(*tasks)
    tally.wall = time.perf_counter() - began
    return tally


# --------------------------------------------------------------------------------------------------------- server


@dataclass
class Served:
    port: int
    process: psutil.Process

    def measure(self, work: Callable[[Client], Awaitable[Tally]], bodies: Sequence[bytes], expected: Expected) -> Tally:
        async def main() -> Tally:
            return await work(Client(self.port, bodies, expected))

        return asyncio.run(main())

    @property
    def megabytes(self) -> float:
        return self.process.memory_info().rss / 1e6


@contextlib.contextmanager
def server(model: str, more: Sequence[str]) -> Iterator[Served]:
    command = [sys.executable, "-m", "resurge", "serve", model, "--port", "0", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("serving"):
                raise SystemExit("the server did not start")
            url = line.split()[-1]
            with httpx.Client(base_url=url, timeout=120, verify=False) as client:
                while client.get("/readyz").status_code != 200:
                    if process.poll() is not None:
                        raise SystemExit("the server ended before it was ready")
                    time.sleep(0.2)
            yield Served(int(url.rpartition(":")[2]), psutil.Process(process.pid))
        finally:
            process.terminate()
            if process.wait(300) != 0:
                print("the server did not end with 0", file=sys.stderr)


def soak(served: Served, minutes: float, clients: int, bodies: Sequence[bytes], expected: Expected) -> dict[str, Any]:
    """Saturation for minutes, with the server's memory; growth is that of the second half."""
    samples: list[tuple[float, float]] = []
    began = time.perf_counter()

    async def watched(client: Client) -> Tally:
        work = asyncio.create_task(saturate(client, clients, 60 * minutes))
        while not work.done():
            samples.append((time.perf_counter() - began, served.megabytes))
            await asyncio.wait([work], timeout=5)
        return work.result()

    tally = served.measure(watched, bodies, expected)
    late = [sample for sample in samples if sample[0] > 30 * minutes]
    growth = statistics.linear_regression(*zip(*late, strict=True)).slope * 60 if len(late) > 2 else None
    memory = {"first_mb": samples[0][1], "last_mb": samples[-1][1], "highest_mb": max(mb for _, mb in samples)}
    return {"minutes": minutes, **tally.summary(), **memory, "mb_per_minute_in_the_second_half": growth}


# ------------------------------------------------------------------------------------------------------------ all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder of `resurge export` or `resurge train`, of a classifier")
    parser.add_argument("--images", type=Path, required=True, help="a folder with JPEG files, searched through")
    parser.add_argument("--count", type=int, default=200, help="files that are used (default: 200)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (default: 15)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--clients", type=int, default=32, help="at saturation (default: 32)")
    parser.add_argument("--batch", type=int, default=8, help="largest batch of both sides (default: 8)")
    parser.add_argument("--decoders", type=int, default=2, help="threads that decode, of both sides (default: 2)")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="go on under load, and watch the memory")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="default: %(default)s")
    options = parser.parse_args()

    found = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    step = max(1, len(found) // options.count)
    files = [str(path) for path in found[::step][: options.count]]
    if not files:
        raise SystemExit(f"no JPEG files in {options.images}")
    bodies = [Path(file).read_bytes() for file in files]
    alone = (options.model, files, options.batch, options.decoders, options.seconds)
    shared = ["--max-batch", str(options.batch), "--workers", str(options.decoders)]

    rounds: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    with server(options.model, shared) as served, ProcessPoolExecutor(1, mp_context=context) as apart:
        _, expected = apart.submit(offline, *alone[:-1], 0.0).result()
        served.measure(lambda client: saturate(client, options.clients, 3.0), bodies, expected)  # to warm up
        for number in range(options.rounds):
            rate, _ = apart.submit(offline, *alone).result()
            tally = served.measure(
                lambda client: saturate(client, options.clients, options.seconds), bodies, expected
            ).summary()
            rounds.append({"offline": rate, "served": tally, "ratio": tally["images_per_second"] / rate})
            print(f"round {number + 1}: offline {rate:.1f}/s, served {tally['images_per_second']:.1f}/s", flush=True)
        rate = 2 * statistics.median(one["served"]["images_per_second"] for one in rounds)
        twice = served.measure(lambda client: flood(client, rate, options.seconds), bodies, expected).summary()
        long = soak(served, options.soak, options.clients, bodies, expected) if options.soak else None

    ratios = [one["ratio"] for one in rounds]
    told = json.loads((Path(options.model) / "model.json").read_text(encoding="utf-8"))
    result = {
        "model": {key: told.get(key) for key in ("spec", "task", "export")},
        "images": len(files),
        "settings": {name: getattr(options, name) for name in ("seconds", "clients", "batch", "decoders")},
        "ratio": {"median": statistics.median(ratios), "all": ratios},
        "rounds": rounds,
        "twice_the_load": {"requests_per_second": rate, **twice},
        "soak": long,
        "machine": {**machine(*PACKAGES), "cores": psutil.cpu_count()},
    }
    atomic_write_text(options.json, json.dumps(result, indent=1) + "\n", '{\n "model": ')
    print(f"served / offline: {statistics.median(ratios):.3f} (median of {len(ratios)})")
    print("saturation:", json.dumps(rounds[-1]["served"]))
    print("twice the load:", json.dumps(twice))
    if long is not None:
        print("soak:", json.dumps(long))


if __name__ == "__main__":
    main()
