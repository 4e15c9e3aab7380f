"""EVA's pre-training on one page, in the order of the paper's section 2.2.

A mask is drawn for each image, a frozen teacher gives its features, the student sees the image
without the masked patches and predicts the teacher's features there; the loss is their cosine.

Shapes: B images, H x W grid of N patches, K masked patches of the batch, M masked patches of the
image that has most, C channels of the student, D channels of the teacher's features.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from eva_backbone.layers import Linear
from eva_backbone.variants import variant_arguments
from eva_backbone.vit import VisionTransformer

INIT_STD = 0.015
ASPECT = (0.3, 1 / 0.3)  # smallest and largest ratio of a rectangle's height to its width
_ATTEMPTS = 10  # at one block, before the mask is left as it is

Batch = Mapping[str, Any]  # of `collate`
Positions = tuple[Tensor, Tensor, Tensor]  # see `masked_positions`
Result = tuple[Tensor, Mapping[str, Tensor]]  # the loss, and detached numbers for the log


# ---- the mask ------------------------------------------------------------------------------------
class BlockMasking:
    """Draw masks that are unions of rectangles (paper section 2.2, after BEiT, arXiv:2106.08254).

    A mask never exceeds `num_masked` patches and is often a few short of it: sampling stops when
    ten attempts in a row found no rectangle that fits into the rest. With the defaults, the recipe
    of EVA, 104.4 of 256 patches are masked on average. The numbers are drawn from Python's
    `random`, which a data loader seeds for each sample.

    Args:
        grid: (H, W).
        num_masked: Most patches to mask; 105 of 256 for the paper's 40 %.
        min_block: Smallest area of a rectangle, unless less is left to mask.

    Raises:
        ValueError: If there are fewer patches than `num_masked`.
    """

    def __init__(
        self, *, grid: tuple[int, int] = (16, 16), num_masked: int = 105, min_block: int = 16
    ) -> None:
        height, width = grid
        if not 0 < num_masked <= height * width:
            raise ValueError(
                f"num_masked must be in 1..{height * width} for the grid {height}x{width}, got "
                f"{num_masked}"
            )
        self.grid, self.num_masked, self.min_block = (height, width), num_masked, min_block

    def __call__(self) -> NDArray[np.bool_]:
        """Draw one mask (H, W) bool, True where a patch is masked."""
        mask = np.zeros(self.grid, dtype=np.bool_)
        missing = self.num_masked
        while missing > 0 and (added := self._add_block(mask, missing)):
            missing -= added
        return mask

    def _add_block(self, mask: NDArray[np.bool_], limit: int) -> int:
        """Mask a rectangle that adds 1..limit patches; return how many, 0 without success."""
        height, width = self.grid
        for _ in range(_ATTEMPTS):
            # near the end `limit` is below `min_block`; uniform() takes its bounds in any order
            area = random.uniform(self.min_block, limit)
            ratio = math.exp(random.uniform(*map(math.log, ASPECT)))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if rows >= height or columns >= width:
                continue
            top, left = random.randint(0, height - rows), random.randint(0, width - columns)
            block = mask[top : top + rows, left : left + columns]
            added = rows * columns - np.count_nonzero(block)
            if 0 < added <= limit:
                block[:] = True
                return added
        return 0


def masked_positions(mask: Tensor) -> Positions:
    """Turn masks into indexes. Their sizes depend on the mask, so on a GPU this synchronises.

    Args:
        mask: (B, N) bool.

    Returns:
        All int64: `read` (B, M), the masked patches of each image, padded with unmasked ones;
        `rows` (K,), the masked ones of those B * M; `patches` (K,), the masked ones of all B * N.

    Raises:
        ValueError: If nothing is masked.
    """
    counts = mask.sum(dim=1, keepdim=True)  # (B, 1)
    longest = int(counts.max())
    if longest == 0:
        raise ValueError("the mask hides no patch of any image: is mask.min_block too large?")
    read = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :longest]
    masked = torch.arange(longest, device=mask.device) < counts  # (B, M)
    return read, masked.flatten().nonzero().squeeze(1), mask.flatten().nonzero().squeeze(1)


def collate(samples: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Make a batch in the processes that load, with the `positions` of its masks, if any."""
    return with_positions(default_collate(samples))


def with_positions(batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Add the `positions` of the masks (B, H, W) of a batch, if it has any."""
    positions = {"positions": masked_positions(batch["mask"].flatten(1))} if "mask" in batch else {}
    return {**batch, **positions}


# ---- the student ---------------------------------------------------------------------------------
class MaskedImageModeling(VisionTransformer):
    """Predict the teacher's features of hidden patches (paper section 2.2).

    "We corrupt the input patches with [MASK] tokens [...] The output feature of EVA is first
    normalized and then projected to the same dimension as the CLIP feature via a linear layer."

    The official checkpoint of the pre-trained EVA has these parameters under these names. EVA-L
    is pre-trained with the same class (docs/deviations.md).

    Args:
        target_dim: D, the outputs of `lm_head`: 768 for CLIP ViT-L/14, 1024 for EVA-CLIP, the
            number of codes for tokenised targets.
        extra_tokens: Leave "mask" out to train without masks (feature distillation): a mask token
            that gets no gradient stops distributed training.
        **vit: Further arguments of `VisionTransformer`.
    """

    def __init__(
        self, *, target_dim: int, extra_tokens: Sequence[str] = ("cls", "mask"), **vit: Any
    ) -> None:
        super().__init__(extra_tokens=extra_tokens, **vit)
        self.target_dim = target_dim
        self.lm_head = Linear(self.embed_dim, target_dim)
        nn.init.trunc_normal_(self.lm_head.weight, std=INIT_STD, a=-INIT_STD, b=INIT_STD)
        nn.init.zeros_(self.lm_head.bias)

    def init_weights(self, *, std: float = INIT_STD, bound: float = INIT_STD) -> None:
        """Initialise like the official pre-training: a normal distribution cut at one `std`."""
        super().init_weights(std=std, bound=bound)

    def forward(
        self, images: Tensor, mask: Tensor | None = None, positions: Positions | None = None
    ) -> Tensor:
        """Predict features of patches.

        Args:
            images: (B, 3, H * p, W * p), normalised, for patches of p pixels.
            mask: (B, N) or (B, H, W) bool, True where a patch is hidden and predicted. None hides
                nothing and predicts all.
            positions: `masked_positions` of the mask; None computes them.

        Returns:
            (K, D) in the order of `targets[mask]`: image after image, patches in reading order.

        Raises:
            ValueError: For an unfit image size or mask, or one that masks nothing.
        """
        if mask is None:
            tokens = self.forward_tokens(*self.embed(images))  # (B, P + N, C)
            patches = tokens[:, self.num_prefix_tokens :]
            return self.lm_head(self.norm(patches)).flatten(0, 1)
        mask = mask.flatten(1)
        tokens, grid = self.embed(images, mask.to(images.device))  # (B, P + N, C)
        read, rows, _ = masked_positions(mask) if positions is None else positions
        read = read + self.num_prefix_tokens
        read, rows = (index.to(images.device, non_blocking=True) for index in (read, rows))
        # the last block works for the masked patches alone, and so do the norm and the head
        tokens = self.forward_tokens(tokens, grid, read=read)  # (B, M, C)
        masked = tokens.flatten(0, 1).index_select(0, rows)  # (K, C)
        return self.lm_head(self.norm(masked))


def masked_image_modeling(
    variant: str, *, target_dim: int, **overrides: Any
) -> MaskedImageModeling:
    """Build the student of a ViT size, a key of `eva_backbone.VARIANTS`, with other arguments."""
    return MaskedImageModeling(target_dim=target_dim, **variant_arguments(variant) | overrides)


# ---- the loss ------------------------------------------------------------------------------------
def cosines(predictions: Tensor, targets: Tensor) -> Tensor:
    """Compute the cosine (K,) of each row of (K, D), of any length, in float32."""
    return F.cosine_similarity(predictions.float(), targets.float(), dim=-1, eps=1e-8)


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Compute the negative cosine of rows (K, D) of any length, the loss of section 2.2.

    It is the mean over all patches of the local batch, in float32: an image with more masked
    patches weighs more.
    """
    return -cosines(predictions, targets).mean()


class Objective(Protocol):
    """Loss and metrics of predictions (K, ...) for the teacher's features (K, D) of any length.

    `agreement` with the teacher is that of each patch, (K,), called `measure` in reports.
    """

    metric_names: tuple[str, ...]
    measure: str

    def __call__(self, predictions: Tensor, features: Tensor) -> Result: ...  # noqa: D102

    def agreement(self, predictions: Tensor, features: Tensor) -> Tensor: ...  # noqa: D102


class MaskedFeatures:
    """EVA's objective: regress the teacher's features of the masked patches (section 2.2).

    A batch without masks is feature distillation, the paper's other candidate in Table 2b (after
    arXiv:2205.14141): all patches are predicted from the complete image. Its loss is EVA's too, so
    that the mask is the only difference. Build its model without a mask token.
    """

    metric_names: tuple[str, ...] = ("cosine",)
    measure = "cosine"

    def __call__(self, predictions: Tensor, features: Tensor) -> Result:
        """Return the negative mean cosine; see `Objective`."""
        loss = negative_cosine(predictions, features)
        return loss, {"cosine": -loss.detach()}

    def agreement(self, predictions: Tensor, features: Tensor) -> Tensor:
        """Return the cosines; see `Objective`."""
        return cosines(predictions, features)


class MaskedPixels(MaskedFeatures):
    """MAE's loss, the squared error of normalised pixels, for `PixelTeacher`."""

    def __call__(self, predictions: Tensor, features: Tensor) -> Result:
        """Return the mean squared error; see `Objective`."""
        cosine = cosines(predictions.detach(), features).mean()
        return F.mse_loss(predictions.float(), features), {"cosine": cosine}


# ---- the step ------------------------------------------------------------------------------------
class PretrainStep:
    """The step function: the teacher's features of a batch, and the objective's loss.

    Args:
        teacher: The frozen network, an `eva_pretrain.teachers.Teacher`, on the device; None for
            batches that have its `features` (B, N, D).
        objective: Loss that is computed from its features.
    """

    def __init__(self, teacher: Any, objective: Objective) -> None:
        self.teacher, self.objective = teacher, objective

    def __call__(self, model: nn.Module, batch: Batch) -> Result:
        """Compute loss and metrics of a batch of `collate` on the device."""
        return self.objective(*self.compare(model, batch))

    def compare(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predict the masked patches of a batch, or all of one without masks.

        Returns:
            Predictions, and the teacher's features (K, D) of the same patches.
        """
        if self.teacher is None:
            features = batch["features"].float().flatten(0, 1)
        else:
            features = self.teacher(batch.get("teacher_images", batch["images"])).flatten(0, 1)
        images = batch["images"].to(next(model.parameters()).dtype)
        predictions: Tensor = model(images, batch.get("mask"), batch.get("positions"))
        if "mask" in batch:
            patches = batch["positions"][2].to(features.device, non_blocking=True)
            features = features.index_select(0, patches)
        return predictions, features
