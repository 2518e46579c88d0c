"""One row: ours and every setting of a peer, made ready, compared, then run in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from resurge.bench.answers import SAME, Compared, answers, difference
from resurge.bench.contestants import Contestant, Job, ours
from resurge.bench.files import Files, Say
from resurge.bench.peers import Peer, peer_of, require, settings_of
from resurge.bench.settings import AGAINST, IMPOSSIBLE, PRECISIONS, RUNTIMES, Cell, Settings
from resurge.bench.subjects import Subject, open_subject
from resurge.bench.traffic import bandwidth, traffic
from resurge.errors import UserError, first_line, suggest
from resurge.infer.engines.engine import need
from resurge.optimize import timing
from resurge.tasks.running import pick_device
from resurge.tasks.table import get_task

NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
YARDSTICK = "the yardstick"
Row = dict[str, Any]


class Bench:
    """Measures one cell after the other; files that are needed on the way are in a folder that goes with it.

    with Bench(Settings(against="none")) as bench:
        for row in bench.rows("resnet50"):
            print(row["images_per_s"])
    """

    def __init__(self, settings: Settings, say: Say = lambda line: None) -> None:
        """Check what is asked for.

        Raises:
            UserError: a word is unknown, nothing of it is possible, a package is missing, or the device is not there.
        """
        self.settings, self.say = settings, say
        _check(settings)
        self.device = pick_device(settings.device)
        self.threads = settings.threads or torch.get_num_threads()
        self._peers: dict[str, Peer | str] = {}
        self._yardsticks: dict[int, Subject] = {}
        self._images: dict[tuple[str, int], np.ndarray] = {}
        self._bandwidth: float | None = None

    def __enter__(self) -> Bench:
        self._before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.allow_tf32 = False  # fp32 is to be fp32 on a GPU too
        self._folder = tempfile.TemporaryDirectory(prefix="resurge-bench-")
        self.files = Files(Path(self._folder.name), self.settings.pictures, self.settings.calibration, self.say)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threads, torch.backends.cudnn.allow_tf32 = self._before
        torch.set_num_threads(threads)
        self._folder.cleanup()

    def rows(self, word: str) -> Iterator[Row]:
        """Every row of a network, as they are measured.

        Raises:
            UserError: there is no such network, it cannot be exported, or it answers otherwise when it is deployed.
        """
        subject = open_subject(word, self.settings.size)
        try:
            for cell in self.cells(subject):
                yield self.row(subject, cell)
        finally:
            self.forget(subject)

    def cells(self, subject: Subject) -> list[Cell]:
        """What is measured of a network; an export has a runtime and a precision of its own."""
        if subject.export is None:
            return list(self.settings.cells())
        if self.device.type != "cpu":
            raise UserError(f"{subject.name} is an export, which is measured on the processor: --device cpu.")
        runtime = "eager" if subject.export.format == "torch" else subject.export.format
        return [Cell(runtime, subject.export.precision, batch) for batch in self.settings.batches]

    def forget(self, subject: Subject) -> None:
        """Remove the files of a network, unless it is the yardstick."""
        self._peers.pop(subject.name, None)
        self._images.pop((subject.name, subject.size), None)
        if subject.name != self.settings.yardstick:
            self.files.forget(subject)

    def peer(self, subject: Subject) -> Peer | str | None:
        """The peer of a network, which in torch and fp32 answers as the network does; or, in words, why there is none;
        None where none is asked for."""
        if self.settings.against == "none":
            return None
        if subject.name not in self._peers:
            self._peers[subject.name] = self._found(subject)
        return self._peers[subject.name]

    def _found(self, subject: Subject) -> Peer | str:
        peer = peer_of(subject, self.settings.against)
        if isinstance(peer, str) or subject.run is None:
            return peer
        images = self.job(subject, Cell("eager", "fp32", 1)).images
        apart = difference(answers(peer.net, images), answers(subject.run.model, images))
        if not apart <= SAME:
            return f"{peer} answers otherwise ({apart:.1e} of the peak apart): it is another network"
        return peer

    def job(self, subject: Subject, cell: Cell) -> Job:
        """What a cell is of a network."""
        key = (subject.name, subject.size)
        if key not in self._images:
            self._images[key] = subject.images(max(self.settings.batches), self.settings.pictures)
        return Job(cell, self._images[key][: cell.batch], self.threads, self.device)

    def row(self, subject: Subject, cell: Cell) -> Row:
        """Make everything ready, compare, race.

        Raises:
            UserError: our own network cannot be run, or answers otherwise than it should.
        """
        self.say(f"{subject.name}: {cell}")
        job = self.job(subject, cell)
        own = ours(subject, job, self.files)
        expected = answers(subject.run.model, job.images) if subject.run is not None else None
        compared = {"ours": Compared.of(own.ask(job.images), expected)}
        if not compared["ours"].fits(cell.precision):
            raise UserError(
                f"{subject.name} in {cell} answers otherwise than the network it was made of: "
                f"{compared['ours'].difference:.1e} of the peak apart. Nothing was timed."
            )
        others, notes = self._peers_ready(subject, job, expected, compared)
        yardstick = self._yardstick_of(subject, cell)
        runs = {"ours": own.run, **{name: each.run for name, each in others.items()}}
        if yardstick is not None and yardstick is not subject:
            runs[YARDSTICK] = ours(yardstick, self.job(yardstick, cell), self.files).run
        raced = timing.race(runs, self.settings.rounds, slot=timing.SLOT, pause=timing.PAUSE)
        best = raced.fastest(list(others)) if others else None
        row: Row = {
            **described(subject, job, self.settings.rounds),
            "peer": str(self.peer(subject)) if best else None,
            "peer_setting": best,
            **(raced.ratio(best, "ours").to_json() if best else {"ratio": None, "quartiles": None}),
            "images_per_s": speed(raced, "ours", cell),
            "peer_images_per_s": speed(raced, best, cell) if best else None,
            "efficiency": _efficiency(raced, subject, yardstick),
            **_costs(own),
            **{f"peer_{key}": value for key, value in (_costs(others[best]) if best else {}).items()},
            **compared["ours"].to_json(),
            "settings": {
                name: {"images_per_s": speed(raced, name, cell), **_costs(each), **compared[name].to_json()}
                for name, each in others.items()
            },
            "notes": [*own.notes, *notes],
        }
        if cell.batch == 1:
            row |= self._latencies(raced, {"": ("ours", own), **({"peer_": (best, others[best])} if best else {})})
        if job.device.type != "cpu" and subject.run is not None:
            row |= self._floor(subject, cell, raced.seconds("ours"))
        if cell.runtime == "compile":
            torch._dynamo.reset()  # it compiles a function anew a few times only, then gives up without a word
        return row

    def _floor(self, subject: Subject, cell: Cell, seconds: float) -> Row:
        """The bytes of layer-by-layer traffic, and the share of the time in which the device could have moved them."""
        assert subject.run is not None
        if self._bandwidth is None:
            self._bandwidth = bandwidth(self.device)
        images = (cell.batch, subject.channels, subject.size, subject.size)
        moved = traffic(subject.run.model, images, {"fp32": 4, "bf16": 2}[cell.precision])
        return {
            "floor_bytes": moved,
            "bandwidth_bytes_per_s": round(self._bandwidth),
            "floor_share": round(moved / self._bandwidth / seconds, 3),
        }

    def _peers_ready(
        self, subject: Subject, job: Job, expected: np.ndarray | None, compared: dict[str, Compared]
    ) -> tuple[dict[str, Contestant], list[str]]:
        """The settings of the peer that run and answer as they should, and what is to be said of the others."""
        peer, cell = self.peer(subject), job.cell
        if not isinstance(peer, Peer):
            return {}, [] if peer is None else [f"{peer}: timed alone"]
        if not _possible(cell):
            return {}, [f"no peer in {cell.runtime} {cell.precision}: timed alone"]
        found: dict[str, Contestant] = {}
        notes = [] if peer.same_weights else ["the peer has other weights: the answers were not compared"]
        for name, make in settings_of(peer, subject, job, self.files):
            try:
                made = make()
                own = Compared.of(made.ask(job.images), expected)
            except Exception as error:  # other packages raise what they like
                notes.append(f"{peer}, {name}, does not run: {first_line(error)}")
                continue
            if own.fits(cell.precision):
                found[name], compared[name] = made, own
            else:
                notes.append(f"{peer}, {name}, answers otherwise ({own.difference:.1e} of the peak apart): not timed")
        return found, notes

    def _yardstick_of(self, subject: Subject, cell: Cell) -> Subject | None:
        """The network that efficiency is counted against, on images of the same size; the subject where that is it."""
        name = self.settings.yardstick
        if name is None or not get_task(subject.task).in_catalog or not _possible(cell):
            return None
        if subject.name == name:
            return subject
        if subject.size not in self._yardsticks:
            self._yardsticks[subject.size] = open_subject(name, subject.size)
        return self._yardsticks[subject.size]

    def _latencies(self, raced: timing.Race, who: Mapping[str, tuple[str, Contestant]]) -> Row:
        """Percentiles of single runs; where the race had too few, more are run in turn."""
        more = self.settings.latencies - min(len(raced.single(name)) for name, _ in who.values())
        further = timing.race({name: each.run for name, each in who.values()}, more) if more > 0 else None
        return {
            f"{prefix}latency_ms": timing.latencies(
                [*raced.single(name), *(further.single(name) if further is not None else ())]
            )
            for prefix, (name, _) in who.items()
        }


def described(subject: Subject, job: Job, rounds: int) -> Row:
    """What a row is of."""
    cell = job.cell
    return {
        "model": subject.name,
        "runtime": cell.runtime,
        "precision": cell.precision,
        "batch": cell.batch,
        "size": subject.size,
        "threads": job.threads,
        "device": job.device.type,
        "rounds": rounds,
        "gmacs": round(subject.gmacs, 4),
        "top1": subject.top1,
        "random_weights": not subject.trained,
    }


def speed(raced: timing.Race, name: str, cell: Cell) -> float:
    """Images a second."""
    return round(cell.batch / raced.seconds(name), 2)


def _efficiency(raced: timing.Race, subject: Subject, yardstick: Subject | None) -> float | None:
    """images/s times multiply-adds, as a share of the yardstick's in the same rounds."""
    if yardstick is None:
        return None
    if yardstick is subject:
        return 1.0
    return round(raced.ratio(YARDSTICK, "ours").median * subject.gmacs / yardstick.gmacs, 3)


def _costs(who: Contestant) -> Row:
    return {"load_s": round(who.load_s, 3), "memory_mb": None if who.memory_mb is None else round(who.memory_mb, 1)}


def _possible(cell: Cell) -> bool:
    return cell.precision in PRECISIONS and (cell.runtime, cell.precision) not in IMPOSSIBLE


def _check(settings: Settings) -> None:
    words: list[tuple[str, tuple[str, ...], str]] = [(word, RUNTIMES, "runtime") for word in settings.runtimes]
    words += [(word, PRECISIONS, "precision") for word in settings.precisions]
    words.append((settings.against, AGAINST, "package to compare with"))
    for word, known, what in words:
        if word not in known:
            raise UserError(f"unknown {what} {word!r}; it is one of {', '.join(known)}.{suggest(word, known)}")
    if not list(settings.cells()):
        raise UserError(f"nothing is left to measure: {' '.join(settings.left_out())}")
    if settings.device.partition(":")[0] not in ("cpu", "cuda"):  # of others it is not known when they are done
        raise UserError(f"bench measures on cpu or cuda; got --device {settings.device}.")
    if settings.device.partition(":")[0] != "cpu" and set(settings.runtimes) & set(NEEDED):
        raise UserError("onnx and openvino run on the processor here; with a GPU take --runtimes eager,compile.")
    for runtime in settings.runtimes:
        for name in NEEDED.get(runtime, ()):
            need(name)
    if "int8" in settings.precisions:
        need("nncf")
    if settings.against != "none":
        require(settings.against)
