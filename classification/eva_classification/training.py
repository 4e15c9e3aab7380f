"""Fine-tuning and linear probing: the parts put together (paper section A.1)."""

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.layers import no_init_weights
from eva_classification.augmentation import training_transform
from eva_classification.commands import IMAGES
from eva_classification.config import ClassificationConfig, ModelConfig
from eva_classification.models import ImageClassifier, build_classifier, build_linear_probe
from eva_data.labelled_images import LabelledImages, hold_out_images, open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine import planning
from eva_engine.classifier_training import classifier_step, train_classifier
from eva_engine.steps.flops import training_flops
from eva_report.terminal import SHOWN
from eva_runs.memory import Step
from eva_runs.precision import DTYPES

logger = logging.getLogger(__name__)

HEADS = ("head", "fc_norm", "norm")  # a pre-trained file lacks them, or has another head


def build_model(config: ModelConfig, *, num_classes: int) -> ImageClassifier:
    """Build the classifier of a recipe, with its first weights."""
    arguments: dict[str, Any] = {
        "num_classes": num_classes,
        "pooling": config.pooling,
        "img_size": config.image_size,
    }
    with no_init_weights(bool(config.init_checkpoint)):
        if config.linear_probe:
            precision = config.trunk_precision
            arguments["trunk_dtype"] = None if precision == "fp32" else DTYPES[precision]
            model: ImageClassifier = build_linear_probe(config.variant, **arguments)
        else:
            model = build_classifier(
                config.variant,
                **arguments,
                drop_path_rate=config.drop_path_rate,
                activation_checkpointing=config.activation_checkpointing,
                freeze_patch_embed=config.freeze_patch_embed,
            )
    if config.init_checkpoint:
        report = load_pretrained(
            model,
            config.init_checkpoint,
            allow_missing=HEADS,
            allow_skipped=HEADS,
            reinitialise=("head",),
        )
        if report.from_scratch:
            logger.info("%s", report.from_scratch, extra=SHOWN)
        if config.linear_probe and "norm.weight" in report.missing:
            raise ValueError(
                f"{report.source} has no final norm, through which a linear probe takes the class "
                "token; set model.pooling=mean"
            )
        if config.linear_probe and "fc_norm.weight" in report.missing:
            logger.warning(
                "%s has no fc_norm: the frozen one scales nothing; pooling=cls takes the class "
                "token after the file's norm",
                report.source,
            )
    return model


def train(config: ClassificationConfig, device: torch.device) -> None:
    """Fine-tune or probe on a device, from `eva_engine.distributed.start`.

    Raises:
        ValueError: If settings or data do not fit together.
    """
    model = config.model
    samples, others = _open_data(config)
    build = partial(build_model, num_classes=len(samples.classes))
    train_classifier(
        IMAGES,
        config,
        device,
        build=build,
        samples=samples,
        others=others,
        what=f"{'linear probe of ' * model.linear_probe}{model.variant} at {model.image_size} px",
        flops=training_flops(build, model, backward=not model.linear_probe),
    )


read_recipe = planning.reader(ClassificationConfig, "classification")


def step(config: ClassificationConfig) -> Step:
    """Build a step for `eva plan`."""
    model, size = replace(config.model, init_checkpoint=""), config.model.image_size
    built = build_model(model, num_classes=planning.CLASSES)
    images = built.pos_embed.new_empty(config.run.batch_size, 3, size, size)
    return classifier_step(config, built, images)


def _open_data(config: ClassificationConfig) -> tuple[LabelledImages, LabelledImages | None]:
    """Open what is trained on, and what is validated on."""
    size, data = config.model.image_size, config.data
    samples: LabelledImages = open_labelled(
        data.train,
        training_transform(size, config.augment, data),
        classes=data.classes or None,
        upright=False,
    )
    transform = evaluation_transform(size, crop_pct=data.crop_pct, mean=data.mean, std=data.std)
    if data.val_share:
        return hold_out_images(samples, data.val_share, transform, name="data.val_share")
    if data.val:
        return samples, open_labelled(data.val, transform, classes=samples.classes, upright=False)
    return samples, None
