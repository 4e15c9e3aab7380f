"""Number formats of inference: what suits the hardware, half precision, int8."""

import logging
import timeit
from typing import Any, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from eva_backbone import VisionTransformer
from eva_runs.options import Precision
from eva_runs.processes import is_main

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SIDE = 512  # of the probe's matrices
_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # instructions of x86, and of ARM
_MATRICES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)  # all that autocast lowers in a backbone


def resolve(precision: Precision | None, device: torch.device) -> Precision:
    """Choose a precision for a device.

    Args:
        precision: "auto" is bf16 where the hardware has instructions for it, else fp16 on a GPU and
            fp32 elsewhere. None is what classifiers were published with: fp16 on a GPU, else fp32.
        device: Where a model runs.

    Raises:
        ValueError: If there is no such precision.
    """
    if precision not in (None, *get_args(Precision)):
        choices = ", ".join(get_args(Precision))
        raise ValueError(f"precision must be one of {choices}, got {precision!r}")
    if precision == "auto":
        if device.type == "cuda":
            computes_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
        else:  # older torch does not tell
            capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()
            computes_bf16 = device.type == "cpu" and any(map(capabilities.get, _BF16))
        if computes_bf16:
            return "bf16"
    if precision in (None, "auto"):
        return "fp16" if device.type == "cuda" else "fp32"
    return precision


def require_finite(
    values: Tensor | NDArray[Any], subject: str, *, advice: str = "use --precision fp32 or bf16"
) -> None:
    """Raise a FloatingPointError that names the subject, in the plural, unless all is finite."""
    if not torch.as_tensor(values).isfinite().all():
        raise FloatingPointError(f"{subject} are not finite: {advice}")


def choose_dtype(precision: Precision | None, device: torch.device) -> torch.dtype:
    """Choose the number format of a precision; with int8, of all that is not quantised."""
    return DTYPES[resolve("auto" if precision == "int8" else precision, device)]


def to_precision(model: nn.Module, precision: Precision | None, device: torch.device) -> Any:
    """Move a model to a device and cast it, or quantise its ViT; returns it."""
    warn_of_slow_bf16(precision, device)
    model = model.to(device, choose_dtype(precision, device))
    if precision == "int8":
        _quantise(model, device)
    return model


def lower_backbone(backbone: nn.Module, precision: Precision, device: torch.device) -> None:
    """Let the backbone of a detector or segmentor compute in a precision, by autocast.

    Its weights of matrix products are cast, which saves their memory and computes the same. Inputs
    and outputs, and with them all heads, stay in float32, as in training.
    """
    warn_of_slow_bf16(precision, device)
    dtype = choose_dtype(precision, device)
    for layer in backbone.modules():
        if isinstance(layer, _MATRICES):
            layer.to(dtype)
    if precision == "int8":
        _quantise(backbone, device)
    if dtype == torch.float32:
        return
    forward = backbone.forward

    def lowered(images: Tensor) -> Any:
        with torch.autocast(device.type, dtype):
            return tree_map(Tensor.float, forward(images))

    backbone.forward = lowered  # hooks cannot hold a context


def precision_of(model: nn.Module) -> str:
    """Name the format of a model's parameters: "float32", or "int8" if its ViT is quantised."""
    if any(type(parameter).__module__.startswith("torchao.") for parameter in model.parameters()):
        return "int8"
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def rate_of(dtype: torch.dtype) -> float:
    """Multiply small matrices on the CPU: GF/s, the best of three."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    seconds = timeit.repeat(lambda: matrix @ matrix, number=1, repeat=4)  # the first warms up
    return 2e-9 * _SIDE**3 / min(seconds)


def warn_of_slow_bf16(precision: str | None, device: torch.device) -> None:
    """Warn, on the main process, of bf16 on a CPU that is slow in it: a probe of milliseconds."""
    if precision != "bf16" or device.type != "cpu" or not is_main():
        return
    half, full = rate_of(torch.bfloat16), rate_of(torch.float32)
    if half < full / 2:
        message = (
            "bf16 is slow on this CPU: %.0f GF/s in matrix products, %.0f in fp32; choose fp32"
        )
        logger.warning(message, half, full)


def require_device(name: str) -> torch.device:
    """Return a device by its name.

    Raises:
        ValueError: If this machine does not have it.
    """
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r}: {str(error).partition(chr(10))[0]}") from error
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"device {name!r}: this machine has {count} GPUs for PyTorch; use cpu")
    return device


def _quantise(model: nn.Module, device: torch.device) -> None:
    """Quantise the weights of the linear layers of a model's ViT by torchao."""
    if is_main():
        message = "int8 is for memory: each pass unpacks the weights of the ViT, and %s is faster"
        logger.warning(message, resolve("auto", device))
    from torchao import quantization as ao

    for vit in (part for part in model.modules() if isinstance(part, VisionTransformer)):
        ao.quantize_(vit.blocks, ao.Int8WeightOnlyConfig(set_inductor_config=False))
