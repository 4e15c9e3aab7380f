"""`torch.compile`, block by block where there are blocks of the ViT.

Stochastic depth computes only the samples that it keeps, whose number is drawn in every step: a
graph of the model would break there, in every block. So a block that drops samples has its
attention and its MLP compiled, for any number of samples, and other blocks are compiled as one.
Many equal blocks share what was compiled for the first of them.
"""

import logging

import torch
from torch import nn

from eva_backbone.block import Block

logger = logging.getLogger(__name__)

BACKEND = "inductor"


def compile_model(model: nn.Module) -> int:
    """Have the parts of a model compiled when they are first called; names stay as they are.

    Args:
        model: The model.

    Returns:
        Number of the parts.
    """
    parts = list(_parts(model))
    for part in parts:
        part.forward = torch.compile(part.forward, backend=BACKEND, fullgraph=len(parts) > 1)  # type: ignore[method-assign]
    logger.info("%d parts of the model are compiled when they are first called", len(parts))
    return len(parts)


def _parts(model: nn.Module) -> list[nn.Module]:
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if not blocks:
        return [model]
    parts: list[nn.Module] = []
    for block in blocks:
        parts += [block.attn, block.mlp] if block.drop_path.rate else [block]
    return parts
