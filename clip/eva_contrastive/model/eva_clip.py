"""EVA-CLIP: a vision tower, a text tower, and one space of features for both.

Shapes: B images or texts, H x W pixels, L tokens of a text, C channels, D values of a feature.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from eva_backbone.layers import init_head
from eva_backbone.variants import variant_arguments
from eva_backbone.vit import VisionTransformer
from eva_contrastive.config import TEXT_VARIANTS

CLASSIC_SCALE, SIGMOID_SCALE = 1 / 0.07, 10.0  # first factors of the cosines (CLIP, SigLIP)
SIGMOID_BIAS = -10.0  # SigLIP's first bias
CONTEXT_LENGTH = 77
_LONGEST = 50  # characters of a text for each of its tokens; a word of the vocabulary has 24
_KEPT_WORDS = 200_000  # whose tokens are remembered; captions of a large dataset have far more


class VisionTower(VisionTransformer):
    """The ViT with a linear projection of its class token (paper section 2.3.5).

    Of a ViT without a class token, it is the mean of the patches that is projected.

    Args:
        output_dim: D; 0 gives the vector itself, as files of the bare tower have it.
        patch_dropout: Share of the patches that a training step leaves out, drawn for each image
            (FLIP); their positions stay those of the image.
        **vit: Arguments of `VisionTransformer`.

    Raises:
        ValueError: For `patch_dropout` of a ViT with rotary positions, which are those of all
            patches.
    """

    def __init__(self, *, output_dim: int, patch_dropout: float = 0.0, **vit: Any) -> None:
        super().__init__(**vit)
        if patch_dropout and self.rope_embed is not None:
            raise ValueError(
                f"patch_dropout={patch_dropout} is for ViTs without rotary positions: set it to 0"
            )
        self.output_dim, self.patch_dropout = output_dim, patch_dropout
        self.head = nn.Linear(self.embed_dim, output_dim) if output_dim else nn.Identity()
        if isinstance(self.head, nn.Linear):
            init_head(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W), normalised by CLIP's statistics, as (B, D)."""
        tokens, grid = self.embed(images)  # (B, P + N, C)
        if self.training and self.patch_dropout:
            tokens = self._drop_patches(tokens)
        if self.cls_token is None:
            patches = self.forward_tokens(tokens, grid)[:, self.num_prefix_tokens :]
            pooled: Tensor = self.head(self.norm(patches).mean(dim=1))
            return pooled
        first = torch.zeros(tokens.shape[0], 1, dtype=torch.int64, device=tokens.device)
        features: Tensor = self.head(self.norm(self.forward_tokens(tokens, grid, read=first))[:, 0])
        return features

    def _drop_patches(self, tokens: Tensor) -> Tensor:
        """Keep the prefix tokens and a random part of the patches of each image."""
        prefix, patches = tokens.tensor_split([self.num_prefix_tokens], dim=1)
        count = patches.shape[1]
        num_kept = max(1, int(count * (1 - self.patch_dropout)))  # officially, too
        order = torch.rand(len(tokens), count, device=tokens.device).argsort(dim=1)[:, :num_kept]
        positions = order.sort(dim=1).values[..., None].expand(-1, -1, tokens.shape[2])
        return torch.cat([prefix, patches.gather(1, positions)], dim=1)


class TextTower(TextTransformer):
    """open_clip's text transformer with exact GELU, and what turns cosines into logits.

    The official files keep `logit_scale` here. It has one dimension more than theirs, because
    DeepSpeed cannot share a tensor without dimensions among processes; either form loads.

    Args:
        output_dim: D.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
        sigmoid: Build the bias of the sigmoid loss too, and begin as SigLIP does.
        **shape: `context_length` (L), `vocab_size` and `width` (C).
    """

    def __init__(
        self, *, output_dim: int, depth: int, num_heads: int, sigmoid: bool = False, **shape: int
    ) -> None:
        super().__init__(output_dim=output_dim, layers=depth, heads=num_heads, **shape)
        scale = SIGMOID_SCALE if sigmoid else CLASSIC_SCALE
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(scale)))
        self.logit_bias = nn.Parameter(torch.full((1,), SIGMOID_BIAS)) if sigmoid else None
        self.depth = depth

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in (f"{prefix}logit_scale", f"{prefix}logit_bias"):
            if name in state and state[name].ndim == 0:
                state[name] = state[name][None]
        super()._load_from_state_dict(state, prefix, *args)


class ClipOutput(NamedTuple):
    """Result of a forward pass."""

    image_features: Tensor  # (B, D) of unit length
    text_features: Tensor  # (B, D) of unit length
    logit_scale: Tensor  # (1,), the factor of their cosines
    logit_bias: Tensor | None  # (1,), what is added then


class EvaClip(nn.Module):
    """Both towers, under the official parameter names `visual.*` and `text.*`.

    Attributes:
        image_size: H and W.
        context_length: L.
        embed_dim: D.
    """

    def __init__(self, visual: VisionTower, text: TextTower) -> None:
        super().__init__()
        self.visual, self.text = visual, text
        self.image_size: int = visual.img_size
        self.context_length: int = text.context_length
        self.embed_dim: int = visual.output_dim

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Encode images (B, 3, H, W), normalised by CLIP's statistics, as (B, D)."""
        features: Tensor = self.visual(images)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Encode tokens (B, L) int64, see `tokenize`, as (B, D)."""
        features: Tensor = self.text(tokens)
        return F.normalize(features, dim=-1) if normalize else features

    def forward(self, images: Tensor, tokens: Tensor) -> ClipOutput:
        """Encode images (B, 3, H, W) and tokens (B, L)."""
        return ClipOutput(
            self.encode_image(images, normalize=True),
            self.encode_text(tokens, normalize=True),
            self.text.logit_scale.exp(),
            self.text.logit_bias,
        )


def build_eva_clip(
    vision: str = "eva_g_patch14",
    text: str = "clip_l",
    *,
    embed_dim: int = 1024,
    sigmoid: bool = False,
    text_overrides: dict[str, Any] | None = None,
    **vision_overrides: Any,
) -> EvaClip:
    """Build a model of two sizes.

    Args:
        vision: A key of `eva_backbone.VARIANTS`.
        text: A key of `eva_contrastive.config.TEXT_VARIANTS`.
        embed_dim: D.
        sigmoid: Build the bias of the sigmoid loss too.
        text_overrides: Arguments of `TextTower` that replace the variant's.
        **vision_overrides: Arguments of `VisionTower` that replace or join the variant's.

    Returns:
        The model, freshly initialised.
    """
    visual = VisionTower(output_dim=embed_dim, **variant_arguments(vision) | vision_overrides)
    shape = asdict(TEXT_VARIANTS[text]) | (text_overrides or {})
    return EvaClip(visual, TextTower(output_dim=embed_dim, sigmoid=sigmoid, **shape))


def tokenize(texts: str | Sequence[str], context_length: int = CONTEXT_LENGTH) -> Tensor:
    """Turn texts into tokens (B, L) int64; a longer text is cut, and keeps its end token."""
    tokenizer = _without_rare_words()
    several = [texts] if isinstance(texts, str) else texts
    tokens: Tensor = tokenizer(
        [_beginning(sentence, context_length) for sentence in several], context_length
    )
    return tokens


def count_tokens(sentence: str) -> int:
    """Count the tokens of a text, with those of its start and end; of a very long one its first."""
    return len(_without_rare_words().encode(_beginning(sentence, CONTEXT_LENGTH))) + 2


def _beginning(sentence: str, length: int) -> str:
    """Cut what cannot reach the tokens; a word takes a time that grows with its square."""
    longest = _LONGEST * length
    return sentence if len(sentence) <= longest else " ".join(sentence.split())[:longest]


_tokenizer = cache(SimpleTokenizer)


def _without_rare_words() -> Any:
    """Keep the tokenizer's memory of words from growing through all captions of a dataset."""
    tokenizer: Any = _tokenizer()
    if len(tokenizer.cache) > _KEPT_WORDS:
        special = map(tokenizer.decoder.get, tokenizer.all_special_ids)
        tokenizer.cache = {token: token for token in special}
    return tokenizer
