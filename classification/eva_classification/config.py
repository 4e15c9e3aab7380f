"""Settings of classification: what a recipe defines and the command line overrides."""

import re
from dataclasses import dataclass, field
from typing import Literal

from eva_backbone.variants import CLIP_MEAN, CLIP_STD, check_variant
from eva_engine.config import (
    OptimizerConfig,
    RunConfig,
    at_least,
    check_image_size,
    check_statistics,
    one_of_its_choices,
)

_POLICY = re.compile(r"(rand|augmix|original|originalr|v0|v0r|3a)(-|$)")  # timm's


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The classifier.

    Attributes:
        variant: A key of `eva_backbone.VARIANTS`.
        image_size: Side of its images in pixels.
        pooling: `mean` of the patches and `fc_norm`, or the class token (`cls`) after `norm`.
        linear_probe: Train a linear classifier (and a batch norm without parameters) on frozen
            features.
        trunk_precision: Of the frozen features of a linear probe, by autocast; the rest is
            `run.precision`.
        drop_path_rate: Stochastic depth rate of the last block; it rises linearly from 0.
        freeze_patch_embed: Do not train the patch embedding, as the official code for EVA-g.
        activation_checkpointing: Recompute each block in the backward pass, for less memory.
        init_checkpoint: Weights to begin with, by name or path; empty for random ones. A head of
            another number of classes begins anew.
    """

    variant: str
    image_size: int = 224
    pooling: Literal["mean", "cls"] = "mean"
    linear_probe: bool = False
    trunk_precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    drop_path_rate: float = 0.0
    freeze_patch_embed: bool = False
    activation_checkpointing: bool = False
    init_checkpoint: str = ""

    def __post_init__(self) -> None:
        check_image_size(self.image_size)
        check_variant(self.variant, image_size=self.image_size)
        one_of_its_choices(self)
        of_training = ("drop_path_rate", "activation_checkpointing", "freeze_patch_embed")
        if self.linear_probe and any(getattr(self, name) for name in of_training):
            raise ValueError(
                f"{', '.join(of_training)} have no use in a linear probe, whose features are "
                "frozen: leave them out"
            )
        if self.trunk_precision != "fp32" and not self.linear_probe:
            raise ValueError(
                f"trunk_precision={self.trunk_precision} is for linear probes; set run.precision"
            )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of training images (timm's transforms) and of batches (timm's Mixup).

    Attributes:
        scale: Smallest and largest share of the image's area that a crop has.
        crop: `retry` draws again what does not fit into the image (timm's and torchvision's),
            `once` cuts it off (BYOL's, official for linear probes).
        flip: Probability of a horizontal flip.
        auto_augment: timm's policy, such as `rand-m9-mstd0.5-inc1`; empty for none.
        color_jitter: Strength; only without `auto_augment`, which timm puts in its place.
        random_erase: Probability of erasing a rectangle.
        mixup: Alpha of mixup, 0 for none.
        cutmix: Alpha of cutmix, 0 for none.
        mixup_switch: Probability of cutmix; only where both are on.
        label_smoothing: Share of a label that goes to all classes.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    crop: Literal["retry", "once"] = "retry"
    flip: float = 0.5
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.0
    random_erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_switch: float = 0.5
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be two rising numbers in (0, 1], got {self.scale}")
        one_of_its_choices(self)
        at_least(self, color_jitter=0, mixup=0, cutmix=0)
        if self.auto_augment and not _POLICY.match(self.auto_augment):
            raise ValueError(
                f"auto_augment={self.auto_augment!r} is none of timm's policies (rand-..., "
                "augmix-..., original, originalr, v0, v0r, 3a); '' stands for none"
            )
        for name in ("flip", "random_erase", "mixup_switch", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.mixup_switch != 0.5 and not (self.mixup and self.cutmix):
            raise ValueError(
                f"mixup_switch={self.mixup_switch} has no effect with mixup={self.mixup} and "
                f"cutmix={self.cutmix}: it chooses between the two"
            )
        if self.color_jitter and self.auto_augment:
            raise ValueError(
                f"color_jitter={self.color_jitter} has no effect beside auto_augment="
                f"{self.auto_augment!r}: timm leaves it out; set one of them to nothing"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Labelled images.

    Attributes:
        train: Folder of class folders, or a data set by name, see `eva_data.labelled.folders`.
        val: The same for validation; empty evaluates nothing.
        classes: Text file with a class in each line, in the order of the labels, such as the
            folders of ImageNet-21K; empty for the sorted folders of `train`.
        crop_pct: Share of the resized image's side that the evaluation crop has.
        mean: Subtracted from the images.
        std: Divides the images.
    """

    train: str
    val: str = ""
    classes: str = ""
    crop_pct: float = 1.0
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct must be in (0, 1], got {self.crop_pct}")
        check_statistics(self.mean, self.std)


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """A classification recipe.

    Attributes:
        model: The classifier; the number of classes is that of the data.
        data: Images and labels.
        augment: Augmentation.
        optimizer: Optimizer and schedule.
        run: How the run is carried out.
    """

    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig
    run: RunConfig

    def __post_init__(self) -> None:
        if self.model.linear_probe and self.optimizer.layer_decay != 1.0:
            raise ValueError(
                f"layer_decay={self.optimizer.layer_decay} has no use in a linear probe, which "
                "trains one layer: leave it out"
            )
        if (self.augment.mixup or self.augment.cutmix) and self.run.batch_size % 2:
            raise ValueError(
                f"mixup and cutmix pair the samples of a batch: batch_size must be even, got "
                f"{self.run.batch_size}"
            )
