"""Fine-tuning on videos: the parts put together (paper sections 2.3.2 and A.2)."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.initialisation import no_init_weights
from eva_backbone.layer_decay import freeze_layers
from eva_data.classes import listed
from eva_data.files import require_regular_file
from eva_data.holdout import held_out
from eva_data.kinetics import find_classes
from eva_data.kinetics import mapping as kinetics_mapping
from eva_data.labelled_videos.opening import open_videos
from eva_data.labelled_videos.sources import LabelledVideos
from eva_engine import distributed
from eva_engine.checkpoints.files import read_config
from eva_engine.classifier_training import present_classifier, train_classifier
from eva_engine.config import require
from eva_engine.evaluation.classification_report import Validation
from eva_engine.report import Presentation
from eva_engine.steps.flops import image_input, training_flops
from eva_engine.steps.parameter_groups import ParameterGroup, layer_decay_groups
from eva_report.content import Step
from eva_runs.commands import command_to_run, folder_to_show
from eva_video.config import MAPPED, DataConfig, ModelConfig, VideoConfig
from eva_video.data.clips import CentreClips, Sampling, TrainingClips, counted_videos, strips_of
from eva_video.data.transforms import Normalise, TrainingTransform
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
    rows = kinetics_mapping("k722", mapping)
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
                source.name, listed([*map(str, noted)], 3), listed(classes, 3),
            )  # fmt: skip
    return None


def training_clips(config: VideoConfig, videos: LabelledVideos) -> TrainingClips:
    """Make the training data of a recipe: a random clip of each video."""
    transform = TrainingTransform(
        config.model.image_size, normalise=normalisation(config.data), augment=config.augment
    )
    return TrainingClips(videos, sampling=sampling(config), transform=transform)


def validation_clips(config: VideoConfig, videos: LabelledVideos) -> CentreClips:
    """Make the validation data of a recipe: the central view of each video."""
    return CentreClips(
        videos,
        sampling=sampling(config),
        image_size=config.model.image_size,
        normalise=normalisation(config.data),
    )


def parameter_groups(config: VideoConfig, model: VideoClassifier) -> list[ParameterGroup]:
    """Group the parameters of a recipe's model by learning rate and weight decay.

    With `full_position_lr` the positions are one more than those of `layer_decay_groups`.
    """
    groups = layer_decay_groups(model, config.optimizer, depth=config.model.depth)
    if not config.model.full_position_lr:
        return groups
    positions = model.pos_embed
    others = [
        replace(group, params=[one for one in group.params if one is not positions])
        for group in groups
    ]
    return [*others, ParameterGroup(name="positions", params=[positions])]


def sampling(config: VideoConfig) -> Sampling:
    """Give the rule by which a recipe chooses frames."""
    data = config.data
    return Sampling(frames=config.model.frames, kind=data.sampling, interval=data.frame_interval)


def normalisation(data: DataConfig) -> Normalise:
    """Give what makes numbers of a recipe's pixels."""
    return Normalise(mean=data.mean, std=data.std)


def train(config: VideoConfig, device: torch.device) -> None:
    """Fine-tune on a device, from `eva_engine.distributed.start`.

    Raises:
        ValueError: If settings or data do not fit together.
    """
    data = config.data
    videos = open_videos(
        data.train, classes=data.classes or None, root=data.root or None, backend=data.backend
    )
    classes = list(videos.classes)
    validation = others = None
    if data.val_share:
        names = (videos.name(index) for index in range(len(videos)))
        held = held_out(
            names, data.val_share, classes=videos.labels.tolist(), name="data.val_share"
        )
        others = videos.subset(np.flatnonzero(held).tolist())
        videos = videos.subset(np.flatnonzero(~held).tolist())
    elif data.val:
        others = open_videos(
            data.val,
            classes=classes,
            root=data.val_root or (not Path(data.val).is_dir() and data.root) or None,
            backend=data.backend,
        )
    if others is not None:
        validation = Validation(
            validation_clips(config, others), config.run, device, skip_unreadable=True
        )
    head_rows = _head_rows(config.model, classes)
    distributed.seed_all(config.run.seed)
    model = build_model(config.model, num_classes=len(classes), head_rows=head_rows)
    train_classifier(
        config,
        device,
        model=model,
        groups=parameter_groups(config, model),
        samples=training_clips(config, videos),
        classes=classes,
        validation=validation,
        flops=training_flops(
            partial(build_model, num_classes=len(classes)),
            replace(config.model, class_mapping=""),
            inputs=[image_input(config.model.image_size, frames=config.model.frames)],
        ),
        presentation=present_training(config, videos, others, validation),
    )


def present_training(
    config: VideoConfig,
    videos: LabelledVideos,
    others: LabelledVideos | None,
    validation: Validation | None,
) -> Presentation:
    """Describe a training and its validation, if any, on the terminal and in its report."""
    model = config.model
    return present_classifier(
        config,
        validation,
        task="Video recognition",
        what=f"{model.variant}, {model.frames} frames of {model.image_size} px",
        unit="videos",
        train=counted_videos(videos),
        val="" if others is None else counted_videos(others),
        image=strips_of(videos if others is None else others),
        next_steps=_next_steps,
    )


def _next_steps(val: str, train: str, folder: Path) -> list[Step]:
    evaluate = command_to_run(
        "video evaluate", "video/evaluate.py",
        "--weights", folder, "--data", val, "--output", folder / "evaluation",
    )  # fmt: skip
    demo = command_to_run(
        "video demo", "video/demo.py",
        "--weights", folder, "--output", folder / "demo",
        folder_to_show(val, train, otherwise="VIDEO_OR_FOLDER"),
    )  # fmt: skip
    scored = Step(text="Score the best weights with 12 views of each video.", command=evaluate)
    named = Step(text="Name what happens in videos.", command=demo)
    return [scored, named] if val else [named]  # not on what it was trained on
