"""How fast a CPU computes in half precision."""

import logging
import time

import torch

logger = logging.getLogger(__name__)

_SIDE = 512  # of the probe's matrices


def rate_of(dtype: torch.dtype) -> float:
    """Multiply small matrices on the CPU: GF/s, the best of three."""
    matrix, best = torch.ones(_SIDE, _SIDE, dtype=dtype), float("inf")
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        best = min(best, time.perf_counter() - began)
    return 2e-9 * _SIDE**3 / best


def warn_of_slow_bf16(device: torch.device) -> None:
    """Warn of bf16 on a CPU without instructions for it, by a probe of milliseconds."""
    if device.type != "cpu":
        return
    half, full = rate_of(torch.bfloat16), rate_of(torch.float32)
    if half < full / 2:
        text = "bf16 is slow on this CPU: %.0f GF/s in matrix products, %.0f in fp32; train in fp32"
        logger.warning(text, half, full)
