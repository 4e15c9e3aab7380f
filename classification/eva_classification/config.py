"""Settings of classification: what a recipe defines and the command line overrides."""

from dataclasses import dataclass, field
from typing import Literal

from eva_data.bands import BandRequest
from eva_engine.config import (
    ClassifierConfig,
    LabelledConfig,
    MixingConfig,
    VitConfig,
    at_least,
    check_probabilities,
    require,
    require_increasing,
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(VitConfig):
    """The classifier; a head of `init_checkpoint` for another number of classes is left out.

    Attributes:
        pooling: `mean` of the patches and `fc_norm`, or the class token (`cls`) after `norm`.
        linear_probe: Train a linear classifier (and a batch norm without parameters) on frozen
            features.
        trunk_precision: Precision of the frozen features of a linear probe, by autocast; the rest
            has `run.precision`.
        freeze_patch_embed: Do not train the patch embedding, as the official code for EVA-g.
    """

    pooling: Literal["mean", "cls"] = "mean"
    linear_probe: bool = False
    trunk_precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    freeze_patch_embed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        training = ("drop_path_rate", "activation_checkpointing", "freeze_patch_embed")
        require(
            not self.linear_probe or not any(getattr(self, name) for name in training),
            f"{', '.join(training)} have no use in a linear probe, whose features are frozen: "
            "leave them out",
        )
        require(
            self.linear_probe or self.trunk_precision == "fp32",
            f"trunk_precision={self.trunk_precision} is for linear probes; set run.precision",
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(MixingConfig):
    """Augmentation of training images (timm's transforms), beside the mixing of batches.

    Attributes:
        scale: Smallest and largest share of the image's area that a crop has.
        crop: `retry` draws again what does not fit into the image (timm's and torchvision's),
            `once` cuts it off (BYOL's, official for linear probes).
        flip: Probability of a horizontal flip.
        auto_augment: timm's policy, such as `rand-m9-mstd0.5-inc1`; empty for none.
        color_jitter: Strength; only without `auto_augment`, which timm puts in its place.
        random_erase: Probability of erasing a rectangle.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    crop: Literal["retry", "once"] = "retry"
    flip: float = 0.5
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.0
    random_erase: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_increasing(self, "scale")
        at_least(self, color_jitter=0)
        check_probabilities(self, "flip", "random_erase")
        require(
            not self.color_jitter or not self.auto_augment,
            f"color_jitter={self.color_jitter} has no effect beside auto_augment="
            f"{self.auto_augment!r}: timm leaves it out; set one of them to nothing",
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig(LabelledConfig):
    """Labelled images.

    Attributes:
        train: Folder of class folders, or a dataset by name, see `eva_data.labelled_images`.
        crop_pct: Share of the resized image's side that the evaluation crop has.
        bands: Bands of the images, in place of RGB; `mean` and `std` are measured then.
        band_range: Values that become 0 and 1, see `eva_data.bands.BandRequest`.
        show_bands: Bands that drawings show.
    """

    crop_pct: float = 1.0
    bands: int = 0
    band_range: str = ""
    show_bands: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.band_request()

    def band_request(self) -> BandRequest | None:
        """Return what is said of bands; None for images in RGB."""
        if not self.bands:
            return None
        return BandRequest(count=self.bands, range=self.band_range, show=self.show_bands)


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(ClassifierConfig):
    """A classification recipe, see `ClassifierConfig`."""

    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.model.linear_probe or self.optimizer.layer_decay == 1.0,
            f"layer_decay={self.optimizer.layer_decay} has no use in a linear probe, which trains "
            "one layer: leave it out",
        )
