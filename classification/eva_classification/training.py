"""Fine-tuning and linear probing (paper section A.1), and their augmentation by timm."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import get_image_size

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.layers import no_init_weights
from eva_classification.commands import IMAGES
from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_classification.models import ImageClassifier, build_classifier, build_linear_probe
from eva_data.images import warn_of_depth
from eva_data.labelled_images import LabelledImages, hold_out_images, open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine import planning
from eva_engine.classifier_training import classifier_step, train_classifier
from eva_engine.steps.flops import training_flops
from eva_report.terminal import SHOWN
from eva_runs.memory import MeasuredStep
from eva_runs.precision import DTYPES

logger = logging.getLogger(__name__)

RATIO = (3 / 4, 4 / 3)
BICUBIC = InterpolationMode.BICUBIC
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


def train(config: ClassificationConfig, device: torch.device, *, recipe: str = "") -> None:
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
        recipe=recipe,
        build=build,
        samples=samples,
        others=others,
        title=f"{'linear probe of ' * model.linear_probe}{model.variant} at {model.image_size} px",
        flops=training_flops(build, model, backward=not model.linear_probe),
    )


read_recipe = planning.reader(ClassificationConfig, "classification")


def step(config: ClassificationConfig) -> MeasuredStep:
    """Build a step for `eva plan`."""
    model, size = replace(config.model, init_checkpoint=""), config.model.image_size
    built = build_model(model, num_classes=planning.CLASSES)
    images = built.patch_embed.proj.weight.new_empty(config.run.batch_size, 3, size, size)
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
    warn_of_depth(len(samples), samples.sample_id)
    transform = evaluation_transform(size, crop_pct=data.crop_pct, mean=data.mean, std=data.std)
    if data.val_share:
        return hold_out_images(samples, data.val_share, transform, name="data.val_share")
    if data.val:
        return samples, open_labelled(data.val, transform, classes=samples.classes, upright=False)
    return samples, None


def training_transform(
    size: int, augment: AugmentConfig, data: DataConfig
) -> Callable[[Image.Image], Tensor]:
    """Build the transform of a training image, with random numbers from the global generators.

    Args:
        size: Side of the result in pixels.
        augment: Crops, flips, policy, erasing.
        data: Mean and standard deviation.

    Returns:
        A function from a PIL image to (3, size, size) float32.
    """
    transform: Any = create_transform(
        size,
        is_training=True,
        scale=augment.scale,
        ratio=RATIO,
        hflip=augment.flip,
        color_jitter=augment.color_jitter or None,
        auto_augment=augment.auto_augment or None,
        interpolation="bicubic",
        mean=data.mean,
        std=data.std,
        re_prob=augment.random_erase,
        re_mode="pixel",
    )
    if augment.crop == "once":
        transform.transforms[0] = CropOnce(size, augment.scale, RATIO, BICUBIC)
    result: Callable[[Image.Image], Tensor] = transform
    return result


class CropOnce(RandomResizedCrop):
    """Random crop of one draw: a side that is too long is cut to the image (BYOL, MAE).

    torchvision's draws up to ten times, so that large crops are rarer.
    """

    @staticmethod
    def get_params(
        img: Tensor | Image.Image, scale: Sequence[float], ratio: Sequence[float]
    ) -> tuple[int, int, int, int]:
        """Draw top, left, height and width of a crop.

        Args:
            img: Image to crop.
            scale: Smallest and largest share of its area.
            ratio: Smallest and largest width by height.
        """
        width, height = get_image_size(img)
        area = height * width * torch.empty(1).uniform_(*scale).item()
        low, high = (math.log(value) for value in ratio)
        aspect = math.exp(torch.empty(1).uniform_(low, high).item())
        crop_width = min(round(math.sqrt(area * aspect)), width)
        crop_height = min(round(math.sqrt(area / aspect)), height)
        top = int(torch.randint(0, height - crop_height + 1, (1,)))
        left = int(torch.randint(0, width - crop_width + 1, (1,)))
        return top, left, crop_height, crop_width
