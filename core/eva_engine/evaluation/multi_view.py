"""Several views of each sample, judged together.

Shapes: B samples, V views, K classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MultiView(nn.Module):
    """Gives the mean over views of a model's probabilities, as their logarithm.

    The official evaluations of videos sum the probabilities of the views. The logarithm of their
    mean has the same order, and as logits it has that mean as its softmax, so that losses are
    right too.

    Args:
        model: Model from inputs (B, ...) to logits (B, K).
        columns: Columns of the logits that compete, in the order of the labels; None takes all.
        views_per_forward: Views that go through the model at once; None takes those of a batch.

    Raises:
        ValueError: If `views_per_forward` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        columns: Sequence[int] | None = None,
        views_per_forward: int | None = None,
    ) -> None:
        super().__init__()
        if views_per_forward is not None and views_per_forward < 1:
            raise ValueError(f"views_per_forward must be at least 1, got {views_per_forward}")
        self.model, self.views_per_forward = model, views_per_forward
        self.columns: Tensor | None
        chosen = None if columns is None else torch.tensor(columns)
        self.register_buffer("columns", chosen, persistent=False)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Judge samples.

        Args:
            views: (B, V, ...).

        Returns:
            Logarithms of the mean probabilities (B, K) and of each view's (B, V, K), float32.
        """
        size = views.shape[:2]
        flat = views.flatten(0, 1)  # (B * V, ...)
        parts = flat.split(self.views_per_forward or len(flat))
        logits = torch.cat([self.model(part) for part in parts]).float()
        if self.columns is not None:
            logits = logits[:, self.columns]
        each = logits.log_softmax(dim=1).unflatten(0, size)  # (B, V, K)
        return each.logsumexp(dim=1) - math.log(size[1]), each
