"""Measures networks: for each configuration a row, in which ours and every setting of the baseline run in turn."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from resurge.bench.baselines import INSTALL, Baseline, baseline_of, settings_of
from resurge.bench.candidates import Candidate, Run, Workload, ours, outputs
from resurge.bench.files import Files, Log
from resurge.bench.output import Row
from resurge.bench.settings import AGAINST, PRECISIONS, RUNTIMES, Configuration, Settings, possible
from resurge.bench.subjects import Subject, open_subject
from resurge.errors import UserError, first_line, require_one_of
from resurge.infer.engines.engine import need
from resurge.infer.formats import FORMATS
from resurge.optimize import timing
from resurge.tasks.running import pick_device
from resurge.tasks.table import get_task

YARDSTICK = "the yardstick"
COPIED = 2**28
"""Bytes of each side of a copy that bandwidth is measured with: more than any cache."""


class Bench:
    """Measures one configuration after the other; the files this needs are in a folder that is removed at the end.

    with Bench(Settings(against="none")) as bench:
        for row in bench.rows("resnet50"):
            print(row["images_per_s"])
    """

    def __init__(self, settings: Settings, log: Log = lambda line: None) -> None:
        """Check the settings.

        Raises:
            UserError: a word is unknown, no combination is possible, a package is missing, or the device is not there.
        """
        self.settings, self.log = settings, log
        _check(settings)
        self.device = pick_device(settings.device)
        self.threads = settings.threads or torch.get_num_threads()
        self._baselines: dict[Subject, Baseline | str] = {}
        self._images: dict[Subject, np.ndarray] = {}
        self._yardsticks: dict[int, Subject] = {}
        self._bandwidth: float | None = None

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(self.threads)
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            torch.backends.cudnn.allow_tf32 = False  # fp32 is to be fp32 on a GPU too
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="resurge-bench-"))
            self._ending = stack.pop_all()
        self.files = Files(Path(folder), self.settings.pictures, self.settings.calibration, self.log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def rows(self, word: str) -> Iterator[Row]:
        """Every row of a network, as they are measured.

        Raises:
            UserError: there is no such network, it cannot be exported, or its outputs change when it is deployed.
        """
        subject = open_subject(word, self.settings.size)
        try:
            for configuration in self.configurations(subject):
                yield self.row(subject, configuration)
        finally:
            self.forget(subject)

    def configurations(self, subject: Subject) -> list[Configuration]:
        """What is measured of a network; an export has a runtime and a precision of its own."""
        if subject.export is None:
            return list(self.settings.configurations())
        if self.device.type != "cpu":
            raise UserError(f"{subject.name} is an export, which is measured on the processor: --device cpu.")
        runtime = "eager" if subject.export.format == "torch" else subject.export.format
        return [Configuration(runtime, subject.export.precision, batch) for batch in self.settings.batches]

    def forget(self, subject: Subject) -> None:
        """Remove the files of a network, unless it is the yardstick."""
        self._baselines.pop(subject, None)
        self._images.pop(subject, None)
        if subject.name != self.settings.yardstick:
            self.files.forget(subject)

    def baseline(self, subject: Subject) -> Baseline | str | None:
        """The other package's network, whose outputs in torch and fp32 are those of the subject; or, in words, why
        there is none; None with `against` none."""
        if self.settings.against == "none":
            return None
        if subject not in self._baselines:
            found = baseline_of(subject, self.settings.against)
            if isinstance(found, Baseline):
                found = found.checked(subject, self.workload(subject, Configuration("eager", "fp32", 1)).images)
            self._baselines[subject] = found
        return self._baselines[subject]

    def workload(self, subject: Subject, configuration: Configuration) -> Workload:
        """A configuration with the images of a network."""
        if subject not in self._images:
            self._images[subject] = subject.images(max(self.settings.batches), self.settings.pictures)
        return Workload(configuration, self._images[subject][: configuration.batch], self.threads, self.device)

    def row(self, subject: Subject, configuration: Configuration) -> Row:
        """Make every candidate ready, compare the outputs, measure.

        Raises:
            UserError: our own network cannot be run, or its outputs are not what they should be.
        """
        self.log(f"{subject.name}: {configuration}")
        work = self.workload(subject, configuration)
        own = ours(subject, work, self.files)
        expected = None if subject.export is not None else outputs(subject.run.model, work.images)
        own = own.compared(work.images, expected)
        if not own.fits(configuration.precision):
            raise UserError(
                f"{subject.name} in {configuration} gives other outputs than the network it was made of: "
                f"{own.difference:.1e} of the peak apart. Nothing was timed."
            )
        others, notes = self._others(subject, work, expected)
        yardstick = self._yardstick_of(subject, configuration)
        runs = {"ours": own.run, **{name: each.run for name, each in others.items()}}
        if yardstick is not None and yardstick is not subject:
            runs[YARDSTICK] = ours(yardstick, self.workload(yardstick, configuration), self.files).run
        raced = timing.race(runs, self.settings.rounds, slot=timing.SLOT, pause=timing.PAUSE)
        row = {
            **self.described(subject, work),
            **dict.fromkeys(("peer", "peer_setting", "ratio", "quartiles", "images_per_s", "peer_images_per_s")),
            "images_per_s": speed(raced, "ours", configuration),
            "efficiency": _efficiency(raced, subject, yardstick),
            **own.to_json(),
            "settings": {
                name: {"images_per_s": speed(raced, name, configuration), **each.to_json()}
                for name, each in others.items()
            },
            "notes": [*own.notes, *notes],
        }
        names = {"": "ours"}
        if others:
            best = names["peer_"] = raced.fastest(list(others))
            row |= {"peer": str(self.baseline(subject)), "peer_setting": best, **raced.ratio(best, "ours").to_json()}
            row["peer_images_per_s"] = speed(raced, best, configuration)
            row |= {f"peer_{key}": value for key, value in others[best].costs().items()}
        if configuration.batch == 1:
            row |= self._latencies(raced, runs, names)
        if self.device.type != "cpu" and subject.export is None:
            row |= self._floor(subject, configuration, raced.seconds("ours"))
        if configuration.runtime == "compile":
            torch._dynamo.reset()  # it compiles a function anew a few times only, then gives up without a word
        return row

    def described(self, subject: Subject, work: Workload) -> Row:
        """What a row is of."""
        return {
            "model": subject.name,
            **vars(work.configuration),
            "size": subject.size,
            "threads": work.threads,
            "device": work.device.type,
            "rounds": self.settings.rounds,
            "gmacs": round(subject.gmacs, 4),
            "top1": subject.top1,
            "random_weights": not subject.trained,
        }

    def _floor(self, subject: Subject, configuration: Configuration, seconds: float) -> Row:
        """The bytes of layer-by-layer traffic, and the share of the time in which the device could have moved them."""
        if self._bandwidth is None:
            self._bandwidth = bandwidth(self.device)
        images = (configuration.batch, subject.channels, subject.size, subject.size)
        moved = traffic(subject.run.model, images, {"fp32": 4, "bf16": 2}[configuration.precision])
        return {
            "floor_bytes": moved,
            "bandwidth_bytes_per_s": round(self._bandwidth),
            "floor_share": round(moved / self._bandwidth / seconds, 3),
        }

    def _others(
        self, subject: Subject, work: Workload, expected: np.ndarray | None
    ) -> tuple[dict[str, Candidate], list[str]]:
        """The settings of the baseline that run and whose outputs are right, and notes about the others."""
        baseline, configuration = self.baseline(subject), work.configuration
        if not isinstance(baseline, Baseline):
            return {}, [] if baseline is None else [f"{baseline}: timed alone"]
        if not possible(configuration.runtime, configuration.precision):
            return {}, [f"no peer in {configuration.runtime} {configuration.precision}: timed alone"]
        found: dict[str, Candidate] = {}
        notes = [] if baseline.same_weights else ["the peer has other weights: the outputs were not compared"]
        for name, make in settings_of(baseline, subject, work, self.files):
            try:
                made = make().compared(work.images, expected)
            except Exception as error:  # other packages raise what they like
                notes.append(f"{baseline}, {name}, does not run: {first_line(error)}")
                continue
            if made.fits(configuration.precision):
                found[name] = made
            else:
                apart = f"{made.difference:.1e} of the peak apart"
                notes.append(f"{baseline}, {name}, gives other outputs ({apart}): not timed")
        return found, notes

    def _yardstick_of(self, subject: Subject, configuration: Configuration) -> Subject | None:
        """The network that efficiency is counted against, on images of the same size; the subject where that is it."""
        name = self.settings.yardstick
        if name is None or not get_task(subject.run.task).in_catalog:
            return None
        if not possible(configuration.runtime, configuration.precision):
            return None
        if subject.name == name:
            return subject
        if subject.size not in self._yardsticks:
            self._yardsticks[subject.size] = open_subject(name, subject.size)
        return self._yardsticks[subject.size]

    def _latencies(self, raced: timing.Race, runs: Mapping[str, Run], names: Mapping[str, str]) -> Row:
        """Percentiles of single runs; where the rounds had too few, more are run in turn."""
        more = self.settings.latencies - min(len(raced.single(name)) for name in names.values())
        further = timing.race({name: runs[name] for name in names.values()}, max(more, 0), warm_up=int(more > 0))
        return {
            f"{prefix}latency_ms": timing.latencies([*raced.single(name), *further.single(name)])
            for prefix, name in names.items()
        }


def speed(raced: timing.Race, name: str, configuration: Configuration) -> float:
    """Images per second."""
    rate = configuration.batch / raced.seconds(name)
    return round(rate, 2) if rate >= 1 else float(f"{rate:.3g}")


def traffic(model: nn.Module, images: tuple[int, int, int, int], value_bytes: int) -> int:
    """Bytes that one pass moves if each convolution and linear layer reads its input and weights once and writes its
    output once, and all else is done on the way: the floor under its time on a GPU, as long as maps are larger than
    the caches. Deformable convolutions are not counted.

    The network runs on torch's meta device, which computes shapes only.

    Args:
        images: shape (N, C, H, W). value_bytes: of a number, 2 in bf16.
    """
    values = 0

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        values += inputs[0].numel() + output.numel() + sum(each.numel() for each in layer.parameters())

    shapes = copy.deepcopy(model).to("meta").eval()
    for layer in shapes.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(note)
    with torch.no_grad():
        shapes(torch.empty(images, device="meta"))
    return values * value_bytes


def bandwidth(device: torch.device, rounds: int = 9) -> float:
    """Bytes a second, read and written, of a large copy on the device; the fastest of a few."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def step() -> None:
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()
    return 2 * COPIED / min(timing.seconds(step) for _ in range(rounds))


def _efficiency(raced: timing.Race, subject: Subject, yardstick: Subject | None) -> float | None:
    """images/s times multiply-adds, as a share of the yardstick's in the same rounds."""
    if yardstick is None:
        return None
    if yardstick is subject:
        return 1.0
    return round(raced.ratio(YARDSTICK, "ours").median * subject.gmacs / yardstick.gmacs, 3)


def _check(settings: Settings) -> None:
    words: list[tuple[str, tuple[str, ...], str]] = [(word, RUNTIMES, "runtime") for word in settings.runtimes]
    words += [(word, PRECISIONS, "precision") for word in settings.precisions]
    words.append((settings.against, AGAINST, "package to compare with"))
    for word, known, what in words:
        require_one_of(what, word, known)
    if not list(settings.configurations()):
        raise UserError(f"nothing is left to measure: {' '.join(settings.left_out())}")
    kind = settings.device.partition(":")[0]
    if kind not in ("cpu", "cuda"):  # of others it is not known when they are done
        raise UserError(f"bench measures on cpu or cuda; got --device {settings.device}.")
    if kind != "cpu" and set(settings.runtimes) & set(FORMATS):
        raise UserError("onnx and openvino run on the processor here; with a GPU take --runtimes eager,compile.")
    for format in (FORMATS[runtime] for runtime in settings.runtimes if runtime in FORMATS):
        for name in (*format.packages, *format.helpers):
            need(name)
    if "int8" in settings.precisions:
        need("nncf")
    if settings.against != "none":
        need(settings.against, INSTALL)
