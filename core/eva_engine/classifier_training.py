"""A training run of a classifier, of images or videos: the parts that both put together alike."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from eva_data.holdout import validation_fact
from eva_engine.config import ClassifierConfig
from eva_engine.data.mixed_targets import ClassificationStep, MixedTargets
from eva_engine.evaluation.classification_report import Validation, meanings
from eva_engine.loop import TrainingRun
from eva_engine.report import Presentation
from eva_engine.steps.parameter_groups import ParameterGroup
from eva_report.content import Section, Step
from eva_runs.data_order import Samples


def train_classifier(
    config: ClassifierConfig,
    device: torch.device,
    *,
    model: nn.Module,
    groups: Sequence[ParameterGroup],
    samples: Samples,
    classes: Sequence[str],
    validation: Validation | None,
    flops: float,
    presentation: Presentation,
) -> None:
    """Train a classifier of named classes with the settings of its recipe."""
    TrainingRun(
        model=model,
        groups=groups,
        samples=samples,
        step_fn=ClassificationStep(MixedTargets(config.augment, num_classes=len(classes))),
        config=config,
        notes={"class_names": list(classes)},
        device=device,
        evaluate=validation,
        results=Validation.results,
        flops_per_sample=flops,
        presentation=presentation,
    ).start()


def present_classifier(
    config: ClassifierConfig,
    validation: Validation | None,
    *,
    task: str,
    what: str,
    unit: str,
    train: str,
    val: str,
    image: Callable[[int], Image.Image],
    next_steps: Callable[[str, str, Path], Sequence[Step]],
) -> Presentation:
    """Describe a training and its validation, if any, on the terminal and in its report.

    `train` and `val` count the samples, `image` shows one of validation by its index, and
    `next_steps` is given the places of the data, validation first, and the run's folder.
    """
    data = config.data
    described = [("train", f"{train} ({data.train})")]
    if validation is not None:
        described.append(validation_fact(val, share=data.val_share, val=data.val))

    def sections() -> Sequence[Section]:
        return () if validation is None else validation.sections(image, unit=unit)

    return Presentation(
        task=task,
        what=what,
        weights=config.model.init_checkpoint,
        data=described,
        meanings=meanings(unit),
        sections=sections,
        next_steps=partial(next_steps, data.val, data.train),
    )
