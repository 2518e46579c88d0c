"""From a network in torch to the file of a format. Batch, height and width stay open in all of them.

torch.export traces the network once; the ONNX file is made of that program, and OpenVINO's of the ONNX file.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from resurge.errors import UserError, kind_and_line
from resurge.export.onnx_graph import ceil_pools, join_slices
from resurge.files import Json
from resurge.infer.engines.engine import INPUT, SIDES, SIZES, need
from resurge.infer.formats import FORMATS
from resurge.tasks.detect.ops import onnx_table
from resurge.tasks.segment.heads.pspnet import PyramidPoolingHead

if TYPE_CHECKING:
    import onnx
    import openvino

# Traced with more than one image and with sides that differ: a size of 1, or two that are equal, would be taken for
# what they always are. No side of an inner map may come down to 1 either.
EXAMPLE = (2, 192, 256)
OPSET = 20
DIMENSIONS = ("batch", *SIDES)
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LOGITS = ("logits",)


class Deployed(nn.Module):
    """The network as it is exported: float32 images in; logits out, or a class for every pixel.

    Args:
        model: (N, C, H, W) -> logits (N, K) or (N, K, H, W).
        kind: what it computes in.
        decide: put out classes uint8 (N, H, W) and their probability float32 (N, H, W) in place of the logits.
    """

    def __init__(self, model: nn.Module, kind: torch.dtype = torch.float32, decide: bool = False) -> None:
        super().__init__()
        head = getattr(model, "head", None)
        if isinstance(head, PyramidPoolingHead):
            head.pool = grid_means
        self.model = model.to(kind)
        self.kind = kind
        self.decide = decide

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits: Tensor = self.model(images if self.kind == images.dtype else images.to(self.kind))
        if logits.dtype != torch.float32:
            logits = logits.float()
        if not self.decide:
            return logits
        # the largest probability is 1 / sum exp(z - max z): no softmax of all classes is stored
        highest, label = logits.max(dim=1)
        return label.to(torch.uint8), 1 / (logits - highest[:, None]).exp().sum(dim=1)


def grid_means(x: Tensor, bins: int) -> Tensor:
    """(N, C, h, w) -> (N, C, bins, bins): the means of the cells of a grid, as `adaptive_avg_pool2d` cuts it.

    There the sides of a cell depend on the size of the map, which no tracer leaves open. A mean over cells is linear
    along each side, so that it is two products with matrices that the size alone determines.
    """
    if bins == 1:
        return x.mean((2, 3), keepdim=True)
    down, across = (_shares(bins, x.shape[axis], x) for axis in (-2, -1))
    return down @ x @ across.T


def _shares(bins: int, length: int, like: Tensor) -> Tensor:
    """(bins, length): the weight of each pixel in the mean of each cell; cells may overlap by one pixel."""
    cell = torch.arange(bins, device=like.device)[:, None]
    first, behind = cell * length // bins, ((cell + 1) * length + bins - 1) // bins
    pixel = torch.arange(length, device=like.device)
    inside = (pixel >= first) & (pixel < behind)
    return inside.to(like.dtype) / (behind - first).to(like.dtype)


def trace(model: nn.Module, channels: int, sizes: bool = False) -> ExportedProgram:
    """The network as a program of torch.export, with batch, height and width open.

    Args:
        sizes: it takes the size of each image as well, as a detector does.

    Raises:
        UserError: the network has a part whose work depends on the size of the image in a way that cannot be traced.
    """
    open_ = torch.export.Dim.DYNAMIC
    batch, height, width = EXAMPLE
    example: tuple[Tensor, ...] = (torch.zeros(batch, channels, height, width),)
    dynamic: tuple[dict[int, object], ...] = ({0: open_, 2: open_, 3: open_},)
    if sizes:
        example, dynamic = (*example, torch.tensor([[height, width]] * batch)), (*dynamic, {0: open_})
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(model.eval(), example, dynamic_shapes=dynamic)
    except Exception as error:  # torch raises many kinds, none of them documented
        raise UserError(f"torch.export cannot trace this network: {kind_and_line(error)}") from error
    names = set(program.graph_signature.user_inputs)
    images = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in names)
    shape = images.meta["val"].shape
    fixed = [name for name, at in zip(DIMENSIONS, (0, 2, 3), strict=True) if isinstance(shape[at], int)]
    if fixed:
        raise UserError(
            f"torch.export fixed the {' and '.join(fixed)} of the images in this network; it stays open here."
        )
    for node in program.graph.nodes:  # where the code stood on this machine is nobody's business
        node.meta.pop("stack_trace", None)
    return program


class Writer(Protocol):
    """What writes a format.

    Args:
        program: of `trace`.
        outputs: their names.
        halve: store weights in fp16 where the program has them in fp32.

    Returns:
        What model.json is to state.
    """

    def __call__(
        self, program: ExportedProgram, folder: Path, outputs: Sequence[str] = LOGITS, halve: bool = False
    ) -> Json: ...


def write_program(program: ExportedProgram, folder: Path, outputs: Sequence[str] = LOGITS, halve: bool = False) -> Json:
    """Write the program of torch.export, whose outputs have no names and which is in its precision already."""
    content = BytesIO()
    with quiet():
        torch.export.save(program, content)
    # Not by torch itself: where the disk is full, its writer ends the process.
    (folder / FORMATS["torch"].file).write_bytes(content.getbuffer())
    return {}


def write_onnx(program: ExportedProgram, folder: Path, outputs: Sequence[str] = LOGITS, halve: bool = False) -> Json:
    """Write the ONNX file, checked by ONNX's own checker; returns its number of `nodes`.

    Raises:
        UserError: onnx or onnxscript is not installed, or the network has an operator that ONNX does not know.
    """
    onnx = need("onnx")
    need("onnxscript")
    path = folder / FORMATS["onnx"].file
    sizes = len(program.graph_signature.user_inputs) > 1
    try:
        with quiet():
            found = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT, SIZES] if sizes else [INPUT],
                output_names=list(outputs),
                opset_version=OPSET,
                custom_translation_table=onnx_table() if sizes else None,
                optimize=True,
                verbose=False,
            )
        assert found is not None
        found.save(path)
    except OSError:  # the disk is full, say
        raise
    except Exception as error:
        raise UserError(f"this network cannot be written as ONNX: {kind_and_line(error)}") from error
    model = onnx.load(path)
    ceil_pools(model.graph)
    join_slices(model.graph)
    _name_dimensions(model.graph)
    _clean(model)
    onnx.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    return {"nodes": len(model.graph.node)}


def _name_dimensions(graph: onnx.GraphProto) -> None:
    """`batch`, `height` and `width` in place of the tracer's symbols, everywhere."""
    sides = graph.input[0].type.tensor_type.shape.dim
    names = {sides[at].dim_param: name for name, at in zip(DIMENSIONS, (0, 2, 3), strict=True)}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = names.get(side.dim_param, side.dim_param)


def _clean(model: onnx.ModelProto) -> None:
    """Take away what the exporter notes down beside the network: stack traces, with the paths of this machine."""
    graph = model.graph
    for thing in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")


def write_openvino(
    program: ExportedProgram, folder: Path, outputs: Sequence[str] = LOGITS, halve: bool = False
) -> Json:
    """Write OpenVINO's two files."""
    made = write_onnx(program, folder, outputs)
    onnx_file = folder / FORMATS["onnx"].file
    onnx_to_openvino(onnx_file, folder, halve)
    onnx_file.unlink()
    return made


def onnx_to_openvino(onnx_file: Path, folder: Path, halve: bool = False) -> None:
    """Write OpenVINO's two files of an ONNX file."""
    with quiet():
        save_openvino(need("openvino").convert_model(onnx_file), folder, halve=halve)


def save_openvino(model: openvino.Model, folder: Path, *, halve: bool) -> None:
    """Write an OpenVINO model.

    Raises:
        UserError: it cannot be written.
    """
    if model.has_rt_info(["conversion_parameters"]):  # they hold the path it was converted from
        model.set_rt_info("", ["conversion_parameters"])
    path = folder / FORMATS["openvino"].file
    try:
        need("openvino").save_model(model, path, compress_to_fp16=halve)
    except RuntimeError as error:  # of a full disk OpenVINO says "iostream error"
        free = shutil.disk_usage(folder).free / 1e6
        raise UserError(
            f"OpenVINO cannot write {path.name} ({kind_and_line(error)}). The disk has {free:.0f} MB left: "
            "free some space, or write to another one."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and log lines: those of exporters are about themselves. What fails still raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
