"""How fast a CPU computes in half precision."""

import logging
import timeit

import torch

logger = logging.getLogger(__name__)

_SIDE = 512  # of the probe's matrices


def rate_of(dtype: torch.dtype) -> float:
    """Multiply small matrices on the CPU: GF/s, the best of three."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    seconds = timeit.repeat(lambda: matrix @ matrix, number=1, repeat=4)  # the first warms up
    return 2e-9 * _SIDE**3 / min(seconds)


def warn_of_slow_bf16(device: torch.device) -> None:
    """Warn of bf16 on a CPU without instructions for it, by a probe of milliseconds."""
    if device.type != "cpu":
        return
    half, full = rate_of(torch.bfloat16), rate_of(torch.float32)
    if half < full / 2:
        text = "bf16 is slow on this CPU: %.0f GF/s in matrix products, %.0f in fp32; train in fp32"
        logger.warning(text, half, full)
