"""Learning rate per step: linear warm-up, half a cosine."""

import math


def warmup_cosine(
    step: int, *, peak: float, end: float, warmup_steps: int, total_steps: int
) -> float:
    """Compute the learning rate of a step (the official schedule, reproduced by its logs).

    The warm-up is `linspace(0, peak, warmup_steps)`, both ends included; the cosine starts at
    `peak` and never quite reaches `end`.

    Args:
        step: Optimizer step, from 0.
        peak: Value at the end of the warm-up.
        end: Value that the cosine approaches.
        warmup_steps: Steps of the warm-up.
        total_steps: Steps of the run.

    Returns:
        The value.

    Raises:
        ValueError: If the step is not in the run, or the warm-up longer than the run.
    """
    if warmup_steps > total_steps:
        raise ValueError(f"the warm-up of {warmup_steps} steps exceeds the run of {total_steps}")
    if not 0 <= step < total_steps:
        raise ValueError(f"step {step} is not in 0..{total_steps - 1}")
    if step < warmup_steps:
        return peak * step / max(1, warmup_steps - 1)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * progress))
