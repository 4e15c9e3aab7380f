"""The step function of contrastive training, which compares all micro-batches of a step.

Shapes: B pairs of a micro-batch of this process, A micro-batches of a step, L tokens, D values of a
feature.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eva_contrastive.model.eva_clip import ClipOutput
from eva_contrastive.steps.losses import LossFn, batch_accuracies
from eva_engine.steps.micro_batches import MicroBatches

Pairs = tuple[Tensor, Tensor]


class _Share(NamedTuple):
    """What a micro-batch has of a step: loss and metrics of all, and gradients of its own."""

    loss: Tensor
    metrics: dict[str, Tensor]
    gradients: ClipOutput


class ContrastiveStep:
    """The step function of a CLIP, an `eva_engine.steps.micro_batches.StepWithBeginning`.

    The loss of a step of several micro-batches is that of all their pairs, and so are its gradients
    (GradCache, Gao et al., arXiv:2101.06983): `begin` computes the features of all micro-batches
    without gradients, then the loss, and its gradients with respect to the features. Later each
    micro-batch is computed again, now with gradients, which begin with those of its features. So
    the memory is that of one micro-batch and of the features of all; and between the two passes
    that of the loss, which grows with the logits: A * B pairs of this process by those of all.

    Args:
        loss: Function of `eva_contrastive.steps.losses.build_loss`.
    """

    def __init__(self, loss: LossFn) -> None:
        self._loss = loss
        self._shares: deque[_Share] = deque()

    def begin(self, model: nn.Module, micro_batches: MicroBatches) -> None:
        """Compare the pairs of all micro-batches, if there are several.

        Args:
            model: An `EvaClip`, or what distributed training wrapped around it.
            micro_batches: Pairs, see `__call__`.
        """
        self._shares.clear()  # a step that an error left
        if len(micro_batches) == 1:
            return
        with torch.no_grad():
            outputs = [_encode(model, pairs) for pairs in micro_batches]
        together = _together(outputs)
        loss = self._loss(together)
        loss.backward()
        metrics = _metrics(together)
        for gradients in _gradients(together, sizes=[len(one.image_features) for one in outputs]):
            self._shares.append(_Share(loss.detach(), metrics, gradients))

    def __call__(self, model: nn.Module, batch: Pairs) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute loss and metrics of a micro-batch.

        Args:
            model: An `EvaClip`, or what distributed training wrapped around it.
            batch: Pictures (B, 3, H, W) and tokens (B, L) of the pairs.

        Returns:
            The loss; and the factor of the cosines and the accuracies of both directions. Where
            `begin` compared several micro-batches, all of this is the value of all of them, and
            the mean of the losses' gradients over the micro-batches is the gradient of the loss.
        """
        output = _encode(model, batch)
        if not self._shares:
            return self._loss(output), _metrics(output)
        share = self._shares.popleft()
        surrogate = _product(output, share.gradients)
        return share.loss + (surrogate - surrogate.detach()), share.metrics


def _encode(model: nn.Module, batch: Pairs) -> ClipOutput:
    images, tokens = batch
    output: ClipOutput = model(images.to(next(model.parameters()).dtype), tokens)
    return output


def _together(outputs: Sequence[ClipOutput]) -> ClipOutput:
    """Put features of micro-batches together, for gradients of their own."""
    first = outputs[0]
    return ClipOutput(
        _leaf(torch.cat([one.image_features for one in outputs])),  # (A * B, D)
        _leaf(torch.cat([one.text_features for one in outputs])),  # (A * B, D)
        _leaf(first.logit_scale),
        None if first.logit_bias is None else _leaf(first.logit_bias),
    )


def _leaf(value: Tensor) -> Tensor:
    return value.detach().float().requires_grad_()


def _gradients(together: ClipOutput, *, sizes: Sequence[int]) -> list[ClipOutput]:
    """Cut the gradients of a step into what each micro-batch begins its backward pass with.

    The engine takes the mean over A micro-batches: each of them has its own features, and the
    factor and bias of the logits are the same in all.
    """
    images, texts, scale, bias = (None if part is None else part.grad for part in together)
    assert images is not None
    assert texts is not None
    assert scale is not None
    count = len(sizes)
    return [
        ClipOutput(count * of_images, count * of_texts, scale, bias)
        for of_images, of_texts in zip(images.split(sizes), texts.split(sizes), strict=True)
    ]


def _product(output: ClipOutput, gradients: ClipOutput) -> Tensor:
    """Compute the scalar whose gradients with respect to the outputs are the given ones."""
    products = [
        (part.float() * gradient).sum()
        for part, gradient in zip(output, gradients, strict=True)
        if part is not None and gradient is not None
    ]
    return torch.stack(products).sum()


def _metrics(output: ClipOutput) -> dict[str, Tensor]:
    return {"logit_scale": output.logit_scale.detach().float().squeeze()} | batch_accuracies(output)
