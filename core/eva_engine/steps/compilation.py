"""`torch.compile`, block by block where there are blocks of the ViT.

Stochastic depth computes only the samples that it keeps, whose number is drawn in every step: a
graph of the model would break there, in every block. So a block that drops samples has its
attention and its MLP compiled, for any number of samples, and other blocks are compiled as one.
Many equal blocks share what was compiled for the first of them. What cannot be compiled as one
graph is an error, and does not run uncompiled.
"""

import logging

from torch import nn

from eva_backbone.block import Block

logger = logging.getLogger(__name__)

BACKEND = "inductor"
_VERSIONS = 64


def compile_model(model: nn.Module) -> int:
    """Let the parts of a model be compiled when they are first called; names stay as they are.

    Args:
        model: The model.

    Returns:
        Number of the parts.
    """
    import torch._dynamo  # heavy

    limits = torch._dynamo.config  # training, evaluation, and batches of one sample: each its own
    limits.recompile_limit = max(limits.recompile_limit, _VERSIONS)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    parts = [part for block in blocks for part in _parts(block)] or [model]
    for part in parts:
        compiled = torch.compile(part.forward, backend=BACKEND, fullgraph=bool(blocks))
        part.forward = compiled
    logger.info("%d parts of the model are compiled when they are first called", len(parts))
    return len(parts)


def _parts(block: Block) -> list[nn.Module]:
    return [block.attn, block.mlp] if block.drop_path.rate else [block]
