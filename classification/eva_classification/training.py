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
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import (
    Compose,
    InterpolationMode,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
)
from torchvision.transforms.functional import get_image_size

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.checkpoints.run_folders import complete_checkpoints
from eva_backbone.layers import no_init_weights
from eva_classification.commands import IMAGES
from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_classification.models import ImageClassifier, build_classifier, build_linear_probe
from eva_data.bands import Bands, continue_bands, measure_bands
from eva_data.images import warn_of_depth
from eva_data.labelled_images import (
    LabelledImages,
    hold_out_images,
    open_labelled,
    use_bands,
)
from eva_data.transforms import (
    BandTransform,
    band_transform,
    evaluation_transform,
    scale_bands,
)
from eva_engine import planning
from eva_engine.classifier_training import classifier_step, train_classifier
from eva_engine.evaluation.own_data import bands_of_training
from eva_engine.flops import image_input, training_flops
from eva_report.terminal import SHOWN
from eva_runs.memory import MeasuredStep
from eva_runs.precision import DTYPES
from eva_runs.processes import run_on_main_rank

logger = logging.getLogger(__name__)

RATIO = (3 / 4, 4 / 3)
BICUBIC = InterpolationMode.BICUBIC
HEADS = ("head", "fc_norm", "norm")  # a pre-trained file lacks them, or has another head


def build_model(config: ModelConfig, *, num_classes: int, in_channels: int = 3) -> ImageClassifier:
    """Build the classifier of a recipe, with its first weights.

    The patch embedding of other images than RGB is trained, whatever the recipe says.
    """
    arguments: dict[str, Any] = {
        "num_classes": num_classes,
        "pooling": config.pooling,
        "img_size": config.image_size,
        "in_channels": in_channels,
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
                freeze_patch_embed=config.freeze_patch_embed and in_channels == 3,
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
    samples, held_out, bands = _open_data(config)
    channels = bands.count if bands else 3
    build = partial(build_model, num_classes=len(samples.classes), in_channels=channels)
    kind = "linear probe of " if model.linear_probe else ""
    train_classifier(
        IMAGES,
        config,
        device,
        recipe=recipe,
        build=build,
        samples=samples,
        others=held_out,
        title=f"{kind}{model.variant} at {model.image_size} px",
        flops=training_flops(
            build,
            model,
            inputs=[image_input(model.image_size, channels=channels)],
            backward=not model.linear_probe,
        ),
        bands=bands,
    )


read_recipe = planning.reader(ClassificationConfig, "classification")


def step(config: ClassificationConfig) -> MeasuredStep:
    """Build a step for `eva plan`."""
    model, size = replace(config.model, init_checkpoint=""), config.model.image_size
    channels = config.data.bands or 3
    built = build_model(model, num_classes=planning.CLASSES, in_channels=channels)
    images = built.patch_embed.proj.weight.new_empty(config.run.batch_size, channels, size, size)
    return classifier_step(config, built, images)


def _open_data(
    config: ClassificationConfig,
) -> tuple[LabelledImages, LabelledImages | None, Bands | None]:
    """Open what is trained on, and what is validated on; measure the bands of the former."""
    size, data = config.model.image_size, config.data
    held_out: LabelledImages | None = None
    request, bands = data.band_request(), None
    checkpoints = complete_checkpoints(config.run.output) if config.run.resume else ()
    if checkpoints:
        bands = continue_bands(bands_of_training(config.run.output), request)
    samples: LabelledImages = open_labelled(
        data.train,
        None if request else training_transform(size, config.augment, data),
        classes=data.classes or None,
        upright=False,
        has_bands=request is not None,
    )
    transform: Any = evaluation_transform(
        size, crop_pct=data.crop_pct, mean=data.mean, std=data.std
    )
    if data.val_share:
        samples, held_out = hold_out_images(
            samples, data.val_share, transform, name="data.val_share"
        )
    elif data.val:
        held_out = open_labelled(
            data.val,
            transform,
            classes=samples.classes,
            upright=False,
            has_bands=request is not None,
        )
    if request is None:
        warn_of_depth(len(samples), samples.sample_id)
        return samples, held_out, None
    files = [samples.sample_id(index) for index in range(len(samples))]
    bands = bands or run_on_main_rank(partial(measure_bands, files, request))
    logger.info("bands %s", bands.describe(), extra=SHOWN)
    use_bands(samples, bands, band_training_transform(size, config.augment, bands))
    if held_out is not None:
        use_bands(held_out, bands, band_transform(size, bands, crop_pct=data.crop_pct))
    return samples, held_out, bands


def band_training_transform(size: int, augment: AugmentConfig, bands: Bands) -> BandTransform:
    """Build the transform of a training image of bands, without what only knows RGB."""
    if augment.auto_augment or augment.color_jitter:
        left_out = "auto_augment" if augment.auto_augment else "color_jitter"
        logger.info("augment.%s is left out: it only knows RGB", left_out, extra=SHOWN)
    crop = CropOnce if augment.crop == "once" else RandomResizedCrop
    transform: BandTransform = Compose(
        [
            partial(scale_bands, bands=bands),
            crop(size, augment.scale, RATIO, BICUBIC),
            RandomHorizontalFlip(augment.flip),
            Normalize(bands.mean, bands.std),
            RandomErasing(augment.random_erase, mode="pixel", device="cpu"),
        ]
    )
    return transform


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
