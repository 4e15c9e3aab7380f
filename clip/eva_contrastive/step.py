"""The optimizer step of contrastive training: losses of all pairs of a step, and what is trained.

Shapes: B pairs of a micro-batch of this process, A micro-batches of a step, G pairs of all
processes, L tokens, D values of a feature.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from open_clip.loss import ClipLoss, SigLipLoss, gather_features
from torch import Tensor, nn

from eva_backbone.layer_decay import freeze_layers
from eva_contrastive.config import ContrastiveConfig, Loss, TowerConfig
from eva_contrastive.model.eva_clip import ClipOutput, EvaClip, TextTower, VisionTower
from eva_engine import distributed
from eva_engine.steps.micro_batches import MicroBatches
from eva_engine.steps.parameter_groups import ParameterGroup, layer_decay_groups

LossFn = Callable[[ClipOutput], Tensor]
Batch = tuple[Tensor, Tensor]


def build_loss(kind: Loss) -> LossFn:
    """Build the loss of a process; call it where the process group has been joined.

    The mean of all processes' losses is that of the complete batch, and so is the mean of their
    gradients, which DeepSpeed takes: each process compares its own images and texts with those of
    all (local loss), and gradients flow back to the processes that the others came from. Features
    in half precision are compared in float32.

    Args:
        kind: `contrastive` (Radford et al., arXiv:2103.00020) or `sigmoid` (Zhai et al.,
            arXiv:2303.15343).

    Returns:
        Function from the model's output to the loss, a mean over the pairs.
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
def batch_metrics(output: ClipOutput) -> dict[str, Tensor]:
    """Give the factor of the cosines, and the accuracies of both directions.

    These are the shares of this process's images and texts whose counterpart is nearest of G.
    """
    images, texts = output.image_features.float(), output.text_features.float()
    all_images, all_texts = images, texts
    rank, processes = distributed.rank(), distributed.world_size()
    if processes > 1:
        all_images, all_texts = gather_features(
            images, texts, local_loss=True, rank=rank, world_size=processes
        )
    targets = torch.arange(len(images), device=images.device) + rank * len(images)
    return {
        "logit_scale": output.logit_scale.float().squeeze(),
        "image_to_text_accuracy": ((images @ all_texts.T).argmax(1) == targets).float().mean(),
        "text_to_image_accuracy": ((texts @ all_images.T).argmax(1) == targets).float().mean(),
    }


class ContrastiveStep:
    """The step function of a CLIP, an `eva_engine.steps.micro_batches.StepWithBeginning`.

    The loss of a step of several micro-batches is that of all their pairs, and so are its gradients
    (GradCache, Gao et al., arXiv:2101.06983): `begin` computes the features of all micro-batches
    without gradients, then the loss, and its gradients with respect to the features. Later each
    micro-batch is computed again, now with gradients, which begin with those of its features. So
    the memory is that of one micro-batch, of the features of all, and of the loss.

    Args:
        loss: Function of `build_loss`.
    """

    def __init__(self, loss: LossFn) -> None:
        self._loss = loss
        # of each micro-batch: loss and metrics of all, and the gradients of its own features
        self._shares: deque[tuple[Tensor, Mapping[str, Tensor], ClipOutput]] = deque()

    def begin(self, model: nn.Module, micro_batches: MicroBatches) -> None:
        """Compare the pairs of all micro-batches, if there are several; see `__call__`."""
        self._shares.clear()  # a step that an error left
        if len(micro_batches) == 1:
            return
        with torch.no_grad():
            outputs = [_encode(model, pairs) for pairs in micro_batches]
        together = _together(outputs)
        loss = self._loss(together)
        loss.backward()
        metrics = batch_metrics(together)
        for gradients in _gradients(
            together, sizes=[len(output.image_features) for output in outputs]
        ):
            self._shares.append((loss.detach(), metrics, gradients))

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute loss and metrics of a micro-batch: images (B, 3, H, W) and tokens (B, L).

        Returns:
            The loss; and the factor of the cosines and the accuracies of both directions. Where
            `begin` compared several micro-batches, all of this is the value of all of them, and
            the mean of the losses' gradients over the micro-batches is the gradient of the loss.
        """
        output = _encode(model, batch)
        if not self._shares:
            return self._loss(output), batch_metrics(output)
        loss, metrics, gradients = self._shares.popleft()
        surrogate = _product(output, gradients)
        return loss + (surrogate - surrogate.detach()), metrics


def _encode(model: nn.Module, batch: Batch) -> ClipOutput:
    images, tokens = batch
    output: ClipOutput = model(images.to(next(model.parameters()).dtype), tokens)
    return output


def _together(outputs: Sequence[ClipOutput]) -> ClipOutput:
    """Put features (A * B, D) of micro-batches together, for gradients of their own."""
    images, texts, (scale, *_), (bias, *_) = zip(*outputs, strict=True)
    parts: list[Any] = [torch.cat(images), torch.cat(texts), scale, bias]
    leaves: list[Any] = [p if p is None else p.detach().float().requires_grad_() for p in parts]
    return ClipOutput(*leaves)


def _gradients(together: ClipOutput, *, sizes: Sequence[int]) -> list[ClipOutput]:
    """Cut the gradients of a step into those that each micro-batch's backward pass begins with.

    The engine takes the mean over A micro-batches: each of them has its own features, and the
    factor and bias of the logits are the same in all.
    """
    grads: list[Any] = [None if part is None else part.grad for part in together]
    images, texts, scale, bias = grads
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


def freeze(config: ContrastiveConfig, model: EvaClip) -> None:
    """Stop the gradients of frozen parts; call it before `parameter_groups`.

    A tower that is locked (LiT, Zhai et al., arXiv:2111.07991) is not trained at all; of one with
    frozen blocks neither these nor the embeddings. Factor and bias of the logits are always.
    """
    for _, settings, tower in _towers(config, model):
        if settings.locked:
            tower.requires_grad_(False)
        elif settings.frozen_blocks:
            freeze_layers(tower, depth=tower.depth, below=settings.frozen_blocks + 1)
    for parameter in _of_logits(model):
        parameter.requires_grad_(True)


def parameter_groups(config: ContrastiveConfig, model: EvaClip) -> list[ParameterGroup]:
    """Group the trained parameters of both towers by layer and weight decay, and the logits'.

    The layers of a tower are those of `eva_backbone.layer_decay`. Vectors, biases, position
    embeddings and the class token have no weight decay.

    Args:
        config: The recipe.
        model: Its model, with everything frozen that is to be.
    """
    of_logits = _of_logits(model)
    apart = {id(parameter) for parameter in of_logits}
    groups = []
    for name, settings, tower in _towers(config, model):
        scale = settings.lr / config.optimizer.lr
        for group in layer_decay_groups(tower, settings, depth=tower.depth, lr_scale=scale):
            params = [parameter for parameter in group.params if id(parameter) not in apart]
            if params:
                groups.append(replace(group, name=f"{name}.{group.name}", params=params))
    return [*groups, ParameterGroup(name="logits", params=of_logits)]


def _towers(
    config: ContrastiveConfig, model: EvaClip
) -> list[tuple[str, TowerConfig, VisionTower | TextTower]]:
    return [("visual", config.vision, model.visual), ("text", config.text, model.text)]


def _of_logits(model: EvaClip) -> list[nn.Parameter]:
    parameters = (model.text.logit_scale, model.text.logit_bias)
    return [parameter for parameter in parameters if parameter is not None]
