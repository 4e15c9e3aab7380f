"""Fine-tuning on videos: the parts put together (paper sections 2.3.2 and A.2)."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.layer_decay import freeze_layers
from eva_backbone.layers import no_init_weights
from eva_data.classes import list_names
from eva_data.files import require_regular_file
from eva_data.kinetics import find_classes, mapping as kinetics_mapping
from eva_data.labelled_videos.sources import open_videos
from eva_data.labelled_videos.videos import LabelledVideos
from eva_engine import planning
from eva_engine.checkpoints.files import read_config
from eva_engine.classifier_training import classifier_groups, classifier_step, train_classifier
from eva_engine.config import require
from eva_engine.flops import image_input, training_flops
from eva_engine.steps.parameter_groups import ParameterGroup
from eva_runs.memory import MeasuredStep
from eva_video.commands import VIDEOS
from eva_video.config import MAPPED, DataConfig, ModelConfig, VideoConfig
from eva_video.data.clips import Clips, Sampling, TrainingClips
from eva_video.data.transforms import CentreTransform, Normalise, TrainingTransform
from eva_video.model.classifier import VideoClassifier, build_video_classifier, initialise

logger = logging.getLogger(__name__)


def build_model(
    config: ModelConfig, *, num_classes: int, head_rows: Sequence[int] | None = None
) -> VideoClassifier:
    """Build the classifier of a recipe, with its first weights and frozen lower blocks.

    `head_rows` are the rows of the head of `config.init_checkpoint` that are the classes; None
    takes the head as it is.
    """
    with no_init_weights(bool(config.init_checkpoint)):
        model = build_video_classifier(
            config.variant,
            num_classes=num_classes,
            frames=config.frames,
            img_size=config.image_size,
            drop_path_rate=config.drop_path_rate,
            activation_checkpointing=config.activation_checkpointing,
        )
    if config.init_checkpoint:
        initialise(model, config.init_checkpoint, head_rows=head_rows)
    if config.frozen_blocks:
        freeze_layers(model, depth=config.depth, below=config.frozen_blocks + 1)
    return model


def read_class_mapping(mapping: str, classes: Sequence[str]) -> list[int]:
    """Find the row of another data set's head for each class of the data.

    `k400`, `k600` and `k700` are for a head of Kinetics-722, in which classes are found by their
    names, or by their labels where all names are numbers; else the mapping is a .npy file.

    Raises:
        ValueError: If the file or the names are not such.
    """
    if mapping not in MAPPED:
        return _read_rows(Path(mapping), len(classes))
    if not all(name.isdecimal() for name in classes):
        return find_classes(classes, mapping).tolist()
    rows = kinetics_mapping(mapping)
    labels = [int(name) for name in classes]  # sorted as text, perhaps: 0, 1, 10
    if sorted(labels) != [*range(len(rows))]:
        raise ValueError(
            f"class_mapping {mapping}: the {len(labels)} classes are named by numbers from "
            f"{min(labels)} to {max(labels)}, and must be those from 0 to {len(rows) - 1}; name "
            "them in a file for data.classes"
        )
    return rows[labels].tolist()


def _read_rows(file: Path, count: int) -> list[int]:
    """Read a row of a head for each class from a .npy file, without running code in it."""
    try:
        require_regular_file(file)  # a pipe might never end
        rows = np.load(file, allow_pickle=False)
        require(
            rows.shape == (count,) and rows.dtype.kind in "iu", f"it is no row of {count} integers"
        )
    except Exception as error:  # numpy raises anything for a damaged header
        raise ValueError(f"class_mapping {file} cannot be used: {error}") from error
    return rows.tolist()


def _head_rows(config: ModelConfig, classes: Sequence[str]) -> list[int] | None:
    """Find the head's rows by the mapping, or mention a head that was trained for other classes."""
    if config.class_mapping:
        return read_class_mapping(config.class_mapping, classes)
    if config.init_checkpoint:
        source = resolve_source(config.init_checkpoint)
        noted = (read_config(source) or {}).get("class_names")
        if isinstance(noted, list) and len(noted) == len(classes) and noted != list(classes):
            logger.warning(
                "%s was trained for other classes, or in another order: its head begins with %s, "
                "the data with %s; its rows are taken as they are",
                source.name,
                list_names([*map(str, noted)], 3),
                list_names(classes, 3),
            )
    return None


def parameter_groups(config: VideoConfig, model: VideoClassifier) -> list[ParameterGroup]:
    """Group parameters as `classifier_groups`, the positions apart with `full_position_lr`."""
    groups = classifier_groups(config, model)
    positions = model.pos_embed
    if not config.model.full_position_lr or positions is None:
        return groups
    other_names = [
        replace(
            group, params=[parameter for parameter in group.params if parameter is not positions]
        )
        for group in groups
    ]
    return [*other_names, ParameterGroup(name="positions", params=[positions])]


def train(config: VideoConfig, device: torch.device, *, recipe: str = "") -> None:
    """Fine-tune on a device, from `eva_engine.distributed.start`.

    Raises:
        ValueError: If settings or data do not fit together.
    """
    model, data = config.model, config.data
    videos, held_out = _open_data(data)
    sampling = Sampling(frames=model.frames, kind=data.sampling, interval=data.frame_interval)
    normalise = Normalise(mean=data.mean, std=data.std)
    augment = TrainingTransform(model.image_size, normalise=normalise, augment=config.augment)
    centre = CentreTransform(model.image_size, normalise=normalise)
    build = partial(
        build_model, num_classes=len(videos.classes), head_rows=_head_rows(model, videos.classes)
    )
    train_classifier(
        VIDEOS,
        config,
        device,
        recipe=recipe,
        build=build,
        samples=TrainingClips(videos, sampling=sampling, transform=augment),
        others=None if held_out is None else Clips(held_out, sampling=sampling, transform=centre),
        title=f"{model.variant}, {model.frames} frames of {model.image_size} px",
        flops=training_flops(
            build,
            replace(model, class_mapping=""),
            inputs=[image_input(model.image_size, frames=model.frames)],
        ),
        groups=parameter_groups,
        beside_adapters=["pos_embed"] if model.full_position_lr else [],
    )


read_recipe = planning.reader(VideoConfig, "video")


def step(config: VideoConfig) -> MeasuredStep:
    """Build a step for `eva plan`."""
    settings = replace(config.model, init_checkpoint="", class_mapping="")
    model = build_model(settings, num_classes=planning.CLASSES)
    size = (settings.frames, 3, settings.image_size, settings.image_size)
    return classifier_step(
        config, model, model.patch_embed.proj.weight.new_empty(config.run.batch_size, *size)
    )


def _open_data(data: DataConfig) -> tuple[LabelledVideos, LabelledVideos | None]:
    """Open what is trained on, and what is validated on."""
    videos = open_videos(data.train, classes=data.classes or None, root=data.root or None)
    if data.val_share:
        return videos.hold_out(data.val_share, name="data.val_share")
    if not data.val:
        return videos, None
    root = data.val_root or (not Path(data.val).is_dir() and data.root) or None
    return videos, open_videos(data.val, classes=videos.classes, root=root)
