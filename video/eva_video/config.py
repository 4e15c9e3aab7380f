"""Settings of video action recognition: what a recipe defines and the command line overrides."""

from dataclasses import dataclass, field
from typing import Literal

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_engine.config import (
    ClassifierConfig,
    LabelledConfig,
    MixingConfig,
    VitConfig,
    at_least,
    check_probabilities,
    require,
)

Kind = Literal["tsn", "dense"]  # of sampling, see `eva_video.data.clips`
JitterEach = Literal["clip", "frame"]  # what has one jitter, see `eva_video.data.transforms`
MAPPED = ("k400", "k600", "k700")  # whose classes a head of Kinetics-722 has
PREDICTIONS = "predictions.json"  # of the demo
LEAST_WINDOW = 0.05  # seconds; a shorter one is a typing error, and there would be millions


@dataclass(frozen=True, kw_only=True)
class ModelConfig(VitConfig):
    """The classifier; a head of `init_checkpoint` for another number of classes is left out.

    Attributes:
        frames: Frames of a clip. Positions of a file for another number are resampled; those of an
            image model are repeated for each frame.
        frozen_blocks: Lower blocks that are not trained, with the embeddings, for less memory; 0
            trains everything.
        class_mapping: Which rows of the head of `init_checkpoint` the classes take: `k400`, `k600`
            or `k700` picks those of this data set's classes from a head of Kinetics-722, a .npy
            file holds the row of each class; empty takes a head of the same size as it is.
        full_position_lr: Train the positions with the learning rate of the last layer, whatever
            `optimizer.layer_decay`: those of an image model begin alike in all frames, and only
            their differences show the order of the frames.
    """

    frames: int = 8
    frozen_blocks: int = 0
    class_mapping: str = ""
    full_position_lr: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, frames=1, frozen_blocks=0)
        limit = 0 if self.full_position_lr else self.depth
        require(
            self.frozen_blocks <= limit,
            f"frozen_blocks={self.frozen_blocks} must be at most {self.depth}, the blocks of "
            f"{self.variant}, and 0 with full_position_lr, since it freezes the positions too",
        )
        mapped = self.class_mapping in ("", *MAPPED) or self.class_mapping.endswith(".npy")
        require(
            mapped and bool(self.init_checkpoint or not self.class_mapping),
            f"class_mapping must be one of {', '.join(MAPPED)} or a .npy file, for the head of an "
            f"init_checkpoint, got {self.class_mapping!r}",
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig(LabelledConfig):
    """Labelled videos; pixels are normalised by ImageNet's statistics, not by CLIP's.

    Attributes:
        train: List, folder of class folders or shards, see `eva_data.labelled_videos.sources`.
        root: Folder that the paths of lists begin in; empty for the folder of the list.
        val_root: The same for `val`; empty takes `root`, unless `val` is a folder.
        sampling: `tsn` takes a frame of each of `frames` equal segments of a video, `dense` frames
            at a fixed distance.
        frame_interval: Distance of the frames of `dense`.
        mean: Mean of the pixels, which is subtracted.
        std: Standard deviation of the pixels, by which they are divided.
    """

    root: str = ""
    val_root: str = ""
    sampling: Kind = "tsn"
    frame_interval: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, frame_interval=1)
        require(
            self.frame_interval == 1 or self.sampling == "dense",
            f"frame_interval={self.frame_interval} needs sampling=dense, got {self.sampling}",
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(MixingConfig):
    """Augmentation of training clips, beside the mixing of batches.

    Attributes:
        scales: Sides of the crop as falling shares of the frame's shorter side; its width and its
            height are the same or neighbours in this list.
        flip: Probability of a horizontal flip of a clip; 0 where left and right or writing matter
            (motion, Something-Something).
        color_jitter: Probability that brightness, contrast, saturation and hue of a clip change.
        jitter_each: What that change is drawn for: once for the `clip`, or for each `frame` of it,
            as officially.
        gray: Probability that a clip loses its colours.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    flip: float = 0.5
    color_jitter: float = 0.8
    jitter_each: JitterEach = "clip"
    gray: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probabilities(self, "flip", "color_jitter", "gray")
        falling = all(high > low for high, low in zip(self.scales, self.scales[1:], strict=False))
        fits = self.scales and falling and 0 < self.scales[-1] <= self.scales[0] <= 1
        require(bool(fits), f"scales must be falling numbers in (0, 1], got {self.scales}")


@dataclass(frozen=True, kw_only=True)
class VideoConfig(ClassifierConfig):
    """A recipe of video action recognition, see `ClassifierConfig`."""

    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def check_windows(seconds: float | None, stride: float | None) -> None:
    """Refuse windows that are too short or leave gaps, and a stride without windows.

    Raises:
        ValueError: Naming the lengths in seconds.
    """
    lengths = [value for value in (seconds, stride) if value is not None]
    short = any(not LEAST_WINDOW <= value < float("inf") for value in lengths)
    gaps = stride is not None and (seconds is None or stride > seconds)
    require(
        not short and not gaps,
        f"windows must be at least {LEAST_WINDOW} seconds long and their stride no longer than "
        f"they are, got {seconds} and {stride}",
    )
