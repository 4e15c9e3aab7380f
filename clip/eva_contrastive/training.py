"""Contrastive training: the parts put together (paper section 2.3.5)."""

import logging
import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from eva_backbone.checkpoints.loading import LoadReport
from eva_backbone.initialisation import no_init_weights
from eva_contrastive.config import TEXT_VARIANTS, ContrastiveConfig, ModelConfig
from eva_contrastive.data import Pairs, open_pairs, training_transform
from eva_contrastive.evaluation.validation import ContrastiveValidation
from eva_contrastive.interpolation import check_start, write_interpolated
from eva_contrastive.model.eva_clip import EvaClip, build_eva_clip
from eva_contrastive.model.loading import initialise
from eva_contrastive.reports import present_training
from eva_contrastive.step import ContrastiveStep, build_loss, freeze, parameter_groups
from eva_data.captions.sources import CaptionedImages
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.loop import TrainingRun
from eva_engine.steps.flops import image_input, training_flops

logger = logging.getLogger(__name__)


def build_model(config: ModelConfig, *, sigmoid: bool = False) -> tuple[EvaClip, LoadReport | None]:
    """Build the model of a recipe, with its first weights, on the CPU; see `initialise`."""
    with no_init_weights(bool(config.init_checkpoint)):
        model = build_eva_clip(
            config.variant, config.text, embed_dim=config.embed_dim, sigmoid=sigmoid,
            img_size=config.image_size, drop_path_rate=config.drop_path_rate,
            patch_dropout=config.patch_dropout,
            activation_checkpointing=config.activation_checkpointing,
        )  # fmt: skip
    model.text.set_grad_checkpointing(config.activation_checkpointing)
    return model, initialise(model, config.init_checkpoint, config.text_checkpoint)


def _check_locked(config: ContrastiveConfig, report: LoadReport | None) -> None:
    """Refuse a locked text tower that begins at random, and mention such a projection of images."""
    missing = {"text.text_projection", "visual.head.weight"} if report is None else report.missing
    begins_at_random = "text.text_projection" in missing and not config.model.text_checkpoint
    if config.text.locked and begins_at_random:
        raise ValueError(
            "text.locked would keep a text tower that begins at random: name its weights as "
            "model.text_checkpoint, or a complete CLIP as model.init_checkpoint"
        )
    if config.vision.locked and "visual.head.weight" in missing:
        logger.warning(
            "vision.locked keeps a projection of the images that begins at random, since no file "
            "gives it: vision.frozen_blocks=%d would train it and the final norm, and nothing else",
            config.model.depth,
        )


def build_validation(
    config: ContrastiveConfig, pairs: CaptionedImages | None
) -> ContrastiveValidation | None:
    """Make the evaluation of a run on pairs, its class folders, or both; None for neither."""
    data, size = config.data, config.model.image_size
    if pairs is None and not data.zero_shot:
        return None
    transform = evaluation_transform(size, mean=data.mean, std=data.std)
    classes = open_labelled(data.zero_shot, transform, upright=False) if data.zero_shot else None
    return ContrastiveValidation(
        config.run, transform, pairs=pairs, classes=classes, templates=data.templates
    )


def count_flops(config: ContrastiveConfig) -> float:
    """Count the model FLOPs of a pair in training, forward and backward."""

    def build(model: ModelConfig) -> EvaClip:
        built, _ = build_model(model, sigmoid=config.loss == "sigmoid")
        freeze(config, built)
        return built

    tokens = torch.zeros(1, TEXT_VARIANTS[config.model.text].context_length, dtype=torch.int64)
    inputs = [image_input(config.model.image_size), tokens.to("meta")]
    untrained = replace(config.model, text_checkpoint="")
    return training_flops(build, untrained, inputs=inputs)


def train(config: ContrastiveConfig, device: torch.device) -> None:
    """Train on a device, from `eva_engine.distributed.start`.

    Raises:
        ValueError: If settings or data do not fit together.
    """
    check_start(config)
    captions, others = open_pairs(config.data)
    validation = build_validation(config, others)
    distributed.seed_all(config.run.seed)
    model, report = build_model(config.model, sigmoid=config.loss == "sigmoid")
    _check_locked(config, report)
    freeze(config, model)
    transform = training_transform(config.model.image_size, config.data)
    TrainingRun(
        model=model,
        groups=parameter_groups(config, model),
        samples=Pairs(captions, transform, model.context_length),
        step_fn=ContrastiveStep(build_loss(config.loss)),
        config=config,
        device=device,
        evaluate=validation,
        results=validation.results if validation else (),
        flops_per_sample=count_flops(config),
        limits={"text.logit_scale": (0.0, math.log(config.max_logit_scale))},
        presentation=present_training(config, len(captions), validation),
    ).start()
    if distributed.rank() == 0:
        write_interpolated(config, partial(_first_weights, config))


def _first_weights(config: ContrastiveConfig) -> dict[str, Tensor]:
    return build_model(config.model, sigmoid=config.loss == "sigmoid")[0].state_dict()
