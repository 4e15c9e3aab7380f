"""Files of models for other programs: `torch.export`, ONNX and OpenVINO, written and run again."""

import importlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.recording import quiet
from eva_data.saving import OF_WRITING, explain_os_errors, make_folder, open_atomic
from eva_runs.options import DATA, EXPORT_SUFFIXES

Inputs = Mapping[str, Tensor]
_FACTS = "preparation"
_BLOCKS = re.compile(r"/blocks\.\d+/")  # of the ViT, in the names of traced nodes
_ONNX, _OPENVINO = EXPORT_SUFFIXES["onnx"], EXPORT_SUFFIXES["openvino"]


@contextmanager
def replacing_program(output: Path) -> Iterator[Path]:
    """Name a file to write and compare; without an error it and its weights get their names."""
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
        part, data = Path(folder) / output.name, _weights_beside(output)
        with explain_os_errors(output, only=OF_WRITING, part=part):
            yield part
        beside = part.with_name(data.name)
        if beside.exists():
            os.replace(beside, data)
        elif output.suffix == _ONNX:
            data.unlink(missing_ok=True)  # of an earlier export
        facts = part.with_name(f"{part.name}.json")
        if facts.exists():
            os.replace(facts, output.with_name(facts.name))
        os.replace(part, output)


def _weights_beside(file: Path) -> Path:
    return (
        file.with_suffix(".bin") if file.suffix == _OPENVINO else file.with_name(file.name + DATA)
    )


def save_program(program: torch.onnx.ONNXProgram, file: Path, facts: Mapping[str, Any]) -> None:
    """Write an ONNX program, or as OpenVINO's, and its facts as FILE.json beside it.

    Large weights of ONNX go to a second file, those of OpenVINO always.
    """
    program.model.metadata_props[_FACTS] = json.dumps(facts)
    file.with_name(f"{file.name}.json").write_text(json.dumps(facts, indent=1))
    if file.suffix == _ONNX:
        program.save(file)
        return
    openvino = importlib.import_module("openvino")
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        onnx_file = Path(folder) / "model.onnx"
        program.save(onnx_file)
        model = openvino.Core().read_model(onnx_file)
        model.set_rt_info(json.dumps(facts), _FACTS)
        openvino.save_model(model, file, compress_to_fp16=False)


def _read_onnx(file: Path) -> torch.onnx.ONNXProgram:
    import onnx_ir

    return torch.onnx.ONNXProgram(onnx_ir.load(file), None)


def _lowered(
    program: torch.onnx.ONNXProgram, precision: str, samples: Iterable[Inputs], folder: Path
) -> torch.onnx.ONNXProgram:
    file = folder / "lowered.onnx"
    program.save(file)
    lower_precision(file, precision, samples)
    return _read_onnx(file)


def lower_precision(file: Path, precision: str, samples: Iterable[Inputs]) -> None:
    """Rewrite an ONNX file by onnxruntime's own tools.

    "fp16" puts the ViT's blocks into half precision. "int8" does so with linear layers alone, whose
    inputs get the ranges that they have in the samples.
    """
    onnx = importlib.import_module("onnx")
    graph = onnx.load(file, load_external_data=False).graph
    if precision == "fp16":
        float16 = importlib.import_module("onnxruntime.transformers.float16")
        others = [node.name for node in graph.node if not _BLOCKS.search(node.name)]
        half = float16.convert_float_to_float16(
            str(file),
            keep_io_types=True,
            node_block_list=others,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, "Resize"],  # no kernel for the CPU
        )
        onnx.save(half, file)
        return
    quantization = importlib.import_module("onnxruntime.quantization")
    weights = {tensor.name for tensor in graph.initializer}
    linear = [
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and weights.intersection(node.input)
        and "_predictor." not in node.name  # small, and scores and boxes are their outputs
    ]
    batches = ({name: value.numpy() for name, value in inputs.items()} for inputs in samples)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def get_next(self) -> Any:
            return next(batches, None)

    quantization.quantize_static(
        file,
        file,
        Reader(),
        nodes_to_quantize=linear,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
    )


def trace_to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    axes: Mapping[str, Sequence[int]],
    folder: Path,
    precision: str = "fp32",
    samples: Iterable[Inputs] = (),
) -> torch.onnx.ONNXProgram:
    """Trace a module, where sizes depend on values; `axes` of inputs and outputs vary.

    Other precisions than fp32 are those of `lower_precision`.
    """
    file = folder / "traced.onnx"
    folder.mkdir()  # where each tensor of a large model has a file, if `place` is a string
    torch.onnx.export(
        module.eval(),
        (*inputs.values(),),
        str(file),
        dynamo=False,
        dynamic_axes=axes,
        opset_version=17,
        input_names=[*inputs],
        output_names=[*outputs],
    )
    program = _read_onnx(file)
    return program if precision == "fp32" else _lowered(program, precision, samples, folder)


class CallableModule(nn.Module):
    """A model by a function that calls it, whose output may get a name."""

    def __init__(self, model: nn.Module, call: Callable[[Tensor], Any], output: str = "") -> None:
        super().__init__()
        self.model, self.call, self.output = model, call, output

    def forward(self, inputs: Tensor) -> Any:
        """Return the output, in a dict if it has a name."""
        outputs = self.call(inputs)
        return {self.output: outputs} if self.output else outputs


def normal_batches(model: nn.Module, *shape: int) -> Callable[[int], Tensor]:
    """Make a function that draws a batch (size, *shape) for a model."""
    weight, source = next(model.parameters()), torch.Generator()
    return lambda size: torch.randn(size, *shape, generator=source.manual_seed(size)).to(weight)


def write_compared(
    module: nn.Module,
    file: Path,
    *,
    name: str,
    inputs: Callable[[int], Tensor],
    facts: Mapping[str, Any],
    tolerance: float,
    batch_size: int | None = None,
    relative: bool = True,
    samples: Iterable[Inputs] | None = None,
) -> dict[str, float]:
    """Write a model of batches, read the file again and compare: output -> largest difference.

    The module is in evaluation mode and returns a dict of tensors; `name` is that of its input. The
    file's suffix is its format; it has `facts`, what a caller must know to prepare the input, as
    JSON. `inputs` makes a batch of a size; any size fits the file unless `batch_size` fixes one. If
    `relative`, differences are shares of the largest value of an output. One above the tolerance is
    a ValueError. With `samples` the file is int8, see `lower_precision`.
    """
    # torch.export takes a dimension of one example for a fixed one
    sizes = (2, 1, 5) if batch_size is None else (batch_size,)
    shapes = ({0: torch.export.Dim("batch")},) if batch_size is None else None
    worst: dict[str, float] = {}
    with torch.no_grad(), quiet():
        # first: interpolation matrices, once there, become constants instead of a linear system
        batches = [(values, module(values)) for values in map(inputs, sizes)]
        program = torch.export.export(module, batches[0][:1], dynamic_shapes=shapes)
        if file.suffix == EXPORT_SUFFIXES["torch-export"]:
            more = {f"{_FACTS}.json": json.dumps(facts)}
            with open_atomic(file) as stream:  # by its path torch aborts the process on a full disk
                torch.export.save(program, stream, extra_files=more)
        else:
            names = [*batches[0][1]]
            converted: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[name], output_names=names
            )
            if samples is not None:
                converted = _lowered(converted, "int8", samples, file.parent)
            save_program(converted, file, facts)
        run = open_program(file)
        for values, expected in batches:
            outputs = run({name: values})
            for key, value in expected.items():
                unit = max(value.abs().max().item(), 1e-12) if relative else 1.0
                difference = (value.cpu().double() - outputs[key].cpu().double()).abs().max().item()
                require_close(difference / unit, tolerance)
                worst[key] = max(difference / unit, worst.get(key, 0.0))
    return worst


def open_program(file: Path) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Read a program again, as other programs do: by onnxruntime or OpenVINO, on the CPU.

    Returns:
        A function that runs it: name of an input -> tensor, to name of an output -> tensor.
    """
    if file.suffix == EXPORT_SUFFIXES["torch-export"]:
        module = torch.export.load(file).module()
        return lambda inputs: dict(module(*inputs.values()))
    if file.suffix == _OPENVINO:
        core = importlib.import_module("openvino").Core()
        compiled = core.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda inputs: {
            name: torch.from_numpy(value.copy())
            for output, value in compiled({k: v.numpy() for k, v in inputs.items()}).items()
            for name in output.get_names()
        }
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    # all but the layout of convolutions: with it, onnxruntime 1.32 crashes in half precision where
    # tokens are transposed before a matrix product
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = session.run(None, {name: value.cpu().numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(names, outputs, strict=True)}

    return run


def require_close(difference: float, tolerance: float) -> None:
    """Refuse a file that differs from its model by more, or by NaN, with a ValueError."""
    if not difference <= tolerance:
        raise ValueError(
            f"the written file differs by {difference:.2g} from the model, more than "
            f"{tolerance:g}, and was deleted"
        )
