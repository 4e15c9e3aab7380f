"""Contrastive training: the parts put together (paper section 2.3.5)."""

import contextlib

from eva_backbone.initialisation import no_init_weights
from eva_contrastive.config import ModelConfig
from eva_contrastive.model.eva_clip import EvaClip, build_eva_clip
from eva_contrastive.model.loading import initialise


def build_model(config: ModelConfig, *, sigmoid: bool = False) -> EvaClip:
    """Build the model of a recipe, with its first weights.

    Args:
        config: Both towers.
        sigmoid: Build the bias of the sigmoid loss too.

    Returns:
        The model on the CPU.
    """
    with no_init_weights() if config.init_checkpoint else contextlib.nullcontext():
        model = build_eva_clip(
            config.variant,
            config.text,
            embed_dim=config.embed_dim,
            sigmoid=sigmoid,
            img_size=config.image_size,
            drop_path_rate=config.drop_path_rate,
            patch_dropout=config.patch_dropout,
            activation_checkpointing=config.activation_checkpointing,
        )
    model.text.set_grad_checkpointing(config.activation_checkpointing)
    initialise(model, config.init_checkpoint, config.text_checkpoint)
    return model
