"""Files of models for other programs: `torch.export` and ONNX, written, run again and compared."""

import importlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_runs.options import ENDINGS

_FACTS = "preparation"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch says of itself while it saves and translates; a context."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=kind)
        yield


def write_program(
    program: torch.export.ExportedProgram,
    file: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    facts: Mapping[str, Any],
) -> None:
    """Write a program; the suffix of the file is its format.

    Args:
        program: A program that returns a dict of tensors.
        file: File ending in .pt2 or .onnx. Large ONNX weights go to a second file, .onnx.data.
        inputs: Names of its inputs.
        outputs: Names of its outputs, the keys of the dict.
        facts: What a caller must know to prepare the input; stored in the file, as JSON.
    """
    if file.suffix == ENDINGS["torch-export"]:
        torch.export.save(program, file, extra_files={f"{_FACTS}.json": json.dumps(facts)})
        return
    converted = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=list(inputs), output_names=list(outputs)
    )
    assert converted is not None
    converted.model.metadata_props[_FACTS] = json.dumps(facts)
    converted.save(file)


def open_program(file: Path) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Read a program again, as other programs do: an ONNX file by onnxruntime, on the CPU.

    Returns:
        A function that runs it: name of an input -> tensor, to name of an output -> tensor.
    """
    if file.suffix == ENDINGS["torch-export"]:
        module = torch.export.load(file).module()
        return lambda inputs: dict(module(*inputs.values()))
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    # all but the layout of convolutions: with it, onnxruntime 1.32 crashes in half precision where
    # tokens are transposed before a matrix product
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(None, {name: value.cpu().numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the largest absolute difference of each output of a model and its file."""
    assert list(expected) == list(found), (list(expected), list(found))
    return {
        name: (value.cpu().double() - found[name].cpu().double()).abs().max().item()
        for name, value in expected.items()
    }


def demand_close(found: Mapping[str, float], tolerance: float) -> None:
    """Refuse a file that differs from its model: name of an output -> largest difference.

    Raises:
        ValueError: If one is larger than the tolerance, or not a number.
    """
    worst = max(found.values(), key=lambda value: (math.isnan(value), value))
    if not worst <= tolerance:  # also for NaN
        raise ValueError(
            f"the written file differs by {worst:.2g} from the model, more than {tolerance:g}, and "
            "was deleted; export in float32, or set --tolerance"
        )
