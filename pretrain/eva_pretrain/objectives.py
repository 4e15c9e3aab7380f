"""The pre-training objectives that the paper compares (section 2.1, Table 2).

Every objective is called in the same way and returns a loss and detached numbers for the log:
`objective(model, images, mask, teacher_features) -> (loss, metrics)`. `model` is a
`MaskedImageModeling` or what distributed training wrapped around it.

Shapes: B images, N patches, K masked patches of the batch, D channels of the teacher.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_pretrain.masked_image_modeling import negative_cosine
from eva_pretrain.tokens.tokenizer import FeatureTokenizer

Result = tuple[Tensor, dict[str, Tensor]]


class MaskedFeatures(nn.Module):
    """EVA's objective: regress the teacher's features of the masked patches (section 2.2)."""

    metric_names = ("cosine",)

    def forward(
        self, model: nn.Module, images: Tensor, mask: Tensor, teacher_features: Tensor
    ) -> Result:
        """Predict masked features.

        Args:
            model: Predicts D values.
            images: (B, 3, H, W).
            mask: (B, N) or (B, H/p, W/p) bool.
            teacher_features: (B, N, D) of the same patches, any length.

        Returns:
            The negative mean cosine, and `cosine`.

        Raises:
            ValueError: If the teacher's patches or channels are not those of the model.
        """
        targets = _select(teacher_features, mask)  # (K, D)
        loss = negative_cosine(model(images, mask), targets)
        return loss, {"cosine": -loss.detach()}


class FeatureDistillation(nn.Module):
    """Regress the teacher's features of all patches from the complete image (Table 2b).

    The paper's candidate without masks, after "Contrastive Learning Rivals Masked Image Modeling
    in Fine-tuning via Feature Distillation", arXiv:2205.14141; here with EVA's loss, so that the
    mask is the only difference. Build the model with `extra_tokens=("cls",)`.
    """

    metric_names = ("cosine",)

    def forward(
        self, model: nn.Module, images: Tensor, mask: Tensor | None, teacher_features: Tensor
    ) -> Result:
        """Predict all features.

        Args:
            model: Predicts D values.
            images: (B, 3, H, W).
            mask: Not used: this objective hides nothing.
            teacher_features: (B, N, D), any length.

        Returns:
            The negative mean cosine, and `cosine`.

        Raises:
            ValueError: If the teacher's patches or channels are not those of the model.
        """
        del mask
        loss = negative_cosine(model(images), teacher_features.flatten(0, 1))
        return loss, {"cosine": -loss.detach()}


class MaskedTokens(nn.Module):
    """Classify the masked patches into codes of the teacher's features (Table 2a, BEiT v2).

    Args:
        tokenizer: Trained; it is frozen here. The model's `target_dim` is its number of codes.
    """

    metric_names = ("accuracy", "code_usage")

    def __init__(self, tokenizer: FeatureTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)

    def forward(
        self, model: nn.Module, images: Tensor, mask: Tensor, teacher_features: Tensor
    ) -> Result:
        """Predict masked codes.

        Args:
            model: Predicts as many values as there are codes.
            images: (B, 3, H, W).
            mask: (B, N) or (B, H/p, W/p) bool.
            teacher_features: (B, N, D), any length.

        Returns:
            The mean cross-entropy over the masked patches; `accuracy`, and `code_usage`, the share
            of all codes that occur among the targets.

        Raises:
            ValueError: If the teacher's patches or the model's outputs are not those expected.
        """
        targets = _select(teacher_features, mask)  # (K, D)
        codes = self.tokenizer.encode(targets[None])[0]  # (K,), each from its patch alone
        logits = model(images, mask).float()
        num_codes = self.tokenizer.num_codes
        if logits.shape[1] != num_codes:
            raise ValueError(
                f"the model predicts {logits.shape[1]} values, the tokenizer has {num_codes} "
                f"codes; build the model with target_dim={num_codes}"
            )
        used = torch.zeros(num_codes, device=codes.device).index_fill(0, codes, 1.0)
        metrics = {
            "accuracy": (logits.detach().argmax(1) == codes).float().mean(),
            "code_usage": used.mean(),
        }
        return F.cross_entropy(logits, codes), metrics


def _select(per_patch: Tensor, mask: Tensor) -> Tensor:
    """Pick the masked patches of (B, N, ...), in the order of the model's predictions."""
    mask = mask.flatten(1)
    if per_patch.shape[:2] != mask.shape:
        raise ValueError(
            f"the teacher gives (images, patches) = {tuple(per_patch.shape[:2])}, the mask has "
            f"{tuple(mask.shape)}; choose image sizes that give both the same grid"
        )
    return per_patch[mask.to(per_patch.device)]
