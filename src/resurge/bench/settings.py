"""What is to be measured. Imports no torch, so that the command line knows the words at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

RUNTIMES = ("eager", "compile", "onnx", "openvino")
PRECISIONS = ("fp32", "bf16", "int8")
AGAINST = ("timm", "torchvision", "none")
YARDSTICK = "resnet50d"

IMPOSSIBLE = {
    ("onnx", "bf16"): "ONNX Runtime has no bf16 convolution on a processor",
    ("eager", "int8"): "int8 is made for OpenVINO and ONNX Runtime",
    ("compile", "int8"): "int8 is made for OpenVINO and ONNX Runtime",
}
"""Runtimes and precisions that do not go together, and why."""


def possible(runtime: str, precision: str) -> bool:
    """Whether bench measures a runtime in a precision."""
    return precision in PRECISIONS and (runtime, precision) not in IMPOSSIBLE


@dataclass(frozen=True)
class Configuration:
    """In what a network runs, in which precision, and how many images at a time."""

    runtime: str
    precision: str
    batch: int

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision} batch {self.batch}"


@dataclass(frozen=True)
class Settings:
    """What `Bench` measures, and how.

    runtimes, precisions, batches: every combination that is possible is measured.
    size: side of the images, pixels; None for what each network is made for.
    against: timm, torchvision or none.
    rounds: in each round every candidate runs once.
    threads: of the arithmetic, for all; None for as many as torch takes by itself.
    device: cpu, or cuda for eager and compile.
    pictures: a folder that int8 is calibrated on; None for patterns (a run: the data it was trained on).
    calibration: pictures for int8, at most; the same for both sides.
    latencies: single runs at batch 1 that percentiles are taken from, at least.
    yardstick: the network that efficiency is counted against; None for no efficiency.
    """

    runtimes: tuple[str, ...] = ("eager", "onnx", "openvino")
    precisions: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = (1, 8)
    size: int | None = None
    against: str = "timm"
    rounds: int = 11
    threads: int | None = None
    device: str = "cpu"
    pictures: str | None = None
    calibration: int = 32
    latencies: int = 100
    yardstick: str | None = YARDSTICK

    def configurations(self) -> Iterator[Configuration]:
        """Those that are possible, by batch size and then by precision."""
        for batch in self.batches:
            for precision in self.precisions:
                for runtime in self.runtimes:
                    if possible(runtime, precision):
                        yield Configuration(runtime, precision, batch)

    def left_out(self) -> list[str]:
        """The chosen combinations that are not possible, in sentences."""
        return [
            f"{runtime} in {precision} is left out: {reason}."
            for (runtime, precision), reason in IMPOSSIBLE.items()
            if runtime in self.runtimes and precision in self.precisions
        ]
