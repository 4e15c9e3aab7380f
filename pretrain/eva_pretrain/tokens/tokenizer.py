"""A tokenizer of the teacher's features, for the tokenised targets of the paper's Table 2a.

Origin: vector-quantised knowledge distillation (VQ-KD) of BEiT v2, arXiv:2208.06366; own code.
There the encoder sees pixels; here it sees the features that are to be reconstructed, which the
teacher computes anyway in every step.

Shapes: B images, N patches, n vectors, D channels of the teacher, d of a code, K codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_backbone.attention import Attention
from eva_backbone.block import Block
from eva_backbone.layers import LAYER_NORM_EPS
from eva_pretrain.masked_image_modeling import negative_cosine
from eva_pretrain.tokens.codebook import Codebook


class FeatureTokenizer(nn.Module):
    """Encode features into codes, and reconstruct the features from the codes.

    Train it in float32 or under autocast: its codebook is a moving average.

    Args:
        feature_dim: D, 768 for CLIP ViT-L/14.
        num_codes: K.
        code_dim: d; a small number, so that the codes are used evenly.
        width: Hidden width of the encoder, width of the decoder.
        num_heads: Attention heads of the decoder, which is one transformer block.
        commitment: Weight of the pull of the encoder towards the codes.
        decay: Decay of the codebook's moving averages.
        revive_below: A code is replaced when its share of all uses falls below this part of 1 / K.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        num_codes: int = 8192,
        code_dim: int = 32,
        width: int = 768,
        num_heads: int = 12,
        commitment: float = 1.0,
        decay: float = 0.99,
        revive_below: float = 0.01,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.num_codes = num_codes
        self.commitment = commitment
        self.codebook = Codebook(
            num_codes=num_codes, code_dim=code_dim, decay=decay, revive_below=revive_below
        )
        self.encoder = _two_layers(feature_dim, width, code_dim)
        self.decoder_embed = nn.Linear(code_dim, width)
        block = Block(
            width,
            attention=Attention(width, num_heads=num_heads, qkv_bias="qkv"),
            mlp_dim=4 * width,
            window_size=0,
            layer_scale=None,
            drop_path_rate=0.0,
        )
        self.decoder_blocks = nn.ModuleList([block])
        self.decoder_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.decoder_head = _two_layers(width, width, feature_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear) and not module.weight.is_meta:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruct features; in training also move the codes.

        Args:
            features: (B, N, D) of the teacher, any length.

        Returns:
            The loss, and for the log `cosine` of the reconstruction, `commitment` (before its
            weight), `perplexity` and `code_usage` (the share of the codes that are used) of this
            batch: over all processes in training, of this process in evaluation.

        Raises:
            ValueError: For features of another shape, or a codebook in half precision.
        """
        vectors = self._vectors(features)  # (B, N, d)
        quantised, counts = self.codebook(vectors.flatten(0, 1))  # (n, d), (K,)
        quantised = quantised.view_as(vectors)
        commitment = F.mse_loss(vectors, quantised)
        # the gradient of the decoder goes straight through to the encoder
        decoded = self._decode(vectors + (quantised - vectors).detach())
        reconstruction = negative_cosine(decoded, features)
        share = counts / counts.sum()
        metrics = {
            "cosine": -reconstruction.detach(),
            "commitment": commitment.detach(),
            "perplexity": torch.special.entr(share).sum().exp(),
            "code_usage": (counts > 0).float().mean(),
        }
        return reconstruction + self.commitment * commitment, metrics

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Name the code of each patch, which depends on this patch alone; changes nothing.

        Args:
            features: (B, N, D).

        Returns:
            (B, N) int64 in 0..K-1.

        Raises:
            ValueError: For features of another shape, or a tokenizer that was never trained.
        """
        if not self.codebook.started:
            raise ValueError("this tokenizer was never trained; train it or load its weights first")
        vectors = self._vectors(features)
        return self.codebook.nearest(vectors.flatten(0, 1)).view(vectors.shape[:2])

    def _vectors(self, features: Tensor) -> Tensor:
        if features.ndim != 3 or features.shape[2] != self.feature_dim:
            raise ValueError(
                f"expected features of shape (batch, patches, {self.feature_dim}), got "
                f"{tuple(features.shape)}"
            )
        # only the direction is reconstructed, so only the direction is seen
        features = F.rms_norm(features.float(), (self.feature_dim,), eps=1e-6)
        vectors = self.encoder(features.to(self.decoder_norm.weight.dtype))
        return F.normalize(vectors.float(), dim=-1)

    def _decode(self, codes: Tensor) -> Tensor:
        tokens = self.decoder_embed(codes.to(self.decoder_norm.weight.dtype))  # (B, N, width)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_head(self.decoder_norm(tokens))  # (B, N, D)


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
