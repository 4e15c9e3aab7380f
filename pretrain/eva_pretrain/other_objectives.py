"""The objectives that the paper compares with its own (section 2.1, Table 2).

Shapes: B images, N patches, K masked patches of the batch, D channels of the teacher's features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_pretrain.masked_image_modeling import (
    Positions,
    Result,
    negative_cosine,
    select,
)
from eva_pretrain.tokens.tokenizer import FeatureTokenizer


class FeatureDistillation:
    """Regress the teacher's features of all patches from the complete image (Table 2b).

    The paper's candidate without masks, after "Contrastive Learning Rivals Masked Image Modeling
    in Fine-tuning via Feature Distillation", arXiv:2205.14141; here with EVA's loss, so that the
    mask is the only difference. Build the model with `extra_tokens=("cls",)`.
    """

    metric_names: tuple[str, ...] = ("cosine",)

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        mask: Tensor | None,
        features: Tensor,
        positions: Positions | None,
    ) -> Result:
        """Return the negative mean cosine; see `Objective`. No mask is used."""
        del mask, positions
        loss = negative_cosine(model(images), features.flatten(0, 1))
        return loss, {"cosine": -loss.detach()}


class MaskedTokens(nn.Module):
    """Classify the masked patches into codes of the teacher's features (Table 2a, BEiT v2).

    Args:
        tokenizer: A trained one; it is frozen here. The model's `target_dim` is its number of
            codes.
    """

    metric_names: tuple[str, ...] = ("accuracy", "code_usage")

    def __init__(self, tokenizer: FeatureTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)

    def forward(
        self,
        model: nn.Module,
        images: Tensor,
        mask: Tensor,
        features: Tensor,
        positions: Positions,
    ) -> Result:
        """Return the mean cross-entropy over the masked patches; see `Objective`.

        `accuracy` counts correct codes, `code_usage` is the share of all codes that occur
        among the targets.
        """
        targets = select(features, mask, positions)  # (K, D)
        codes = self.tokenizer.encode(targets[None])[0]  # (K,), each from its patch alone
        logits = model(images, mask, positions).float()
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
