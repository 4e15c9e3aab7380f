"""Model FLOPs, for the log's share of the peak."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def forward_flops(build: Callable[[], nn.Module], *, image_size: int) -> float:
    """Model FLOPs of one image's forward pass, counted on the meta device.

    Args:
        build: Makes the model.
        image_size: Side of the image in pixels.

    Returns:
        Twice the multiplications of all matrix products.
    """
    with torch.device("meta"):
        model = build().eval()
        images = torch.empty(1, 3, image_size, image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return float(counter.get_total_flops())
