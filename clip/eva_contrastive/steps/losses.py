"""Contrastive losses over all processes, by open_clip, and the accuracy within a batch.

Shapes: B pairs of this process, G pairs of all processes, D values of a feature.
"""

from collections.abc import Callable

import torch
from open_clip.loss import ClipLoss, SigLipLoss, gather_features
from torch import Tensor

from eva_contrastive.config import Loss
from eva_contrastive.model.eva_clip import ClipOutput
from eva_engine import distributed

LossFn = Callable[[ClipOutput], Tensor]


def build_loss(kind: Loss) -> LossFn:
    """Build the loss of a process; call it where the process group has been joined.

    The mean of all processes' losses is that of the complete batch, and so is the mean of their
    gradients, which DeepSpeed takes: each process compares its own pictures and texts with those of
    all (local loss), and gradients flow back to the processes that the others came from. Features
    in half precision are compared in float32.

    Args:
        kind: `contrastive` (Radford et al., arXiv:2103.00020) or `sigmoid` (Zhai et al.,
            arXiv:2303.15343).

    Returns:
        Function that computes the loss, a mean over the pairs, of what the model gives.
    """
    rank, processes = distributed.rank(), distributed.world_size()
    if kind == "contrastive":
        loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=processes)
    else:
        loss = SigLipLoss(rank=rank, world_size=processes, dist_impl="gather")

    def compute(output: ClipOutput) -> Tensor:
        value: Tensor = loss(*(None if part is None else part.float() for part in output))
        return value

    return compute


@torch.no_grad()
def batch_accuracies(output: ClipOutput) -> dict[str, Tensor]:
    """Find how often the caption of a picture is the nearest one of the batch, and vice versa.

    Args:
        output: Features of B pairs of this process.

    Returns:
        Shares of this process's pictures and texts whose counterpart is the nearest of G.
    """
    images, texts = output.image_features.float(), output.text_features.float()
    all_images, all_texts = images, texts
    rank, processes = distributed.rank(), distributed.world_size()
    if processes > 1:
        all_images, all_texts = gather_features(
            images, texts, local_loss=True, rank=rank, world_size=processes
        )
    own = torch.arange(len(images), device=images.device) + rank * len(images)
    return {
        "image_to_text_accuracy": ((images @ all_texts.T).argmax(1) == own).float().mean(),
        "text_to_image_accuracy": ((texts @ all_images.T).argmax(1) == own).float().mean(),
    }
