"""A training run of a classifier, of images or videos."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eva_data.bands import Bands
from eva_data.classes import list_names
from eva_data.files import display_path
from eva_data.holdout import validation_fact
from eva_engine import planning
from eva_engine.commands.classifiers import ClassifierProject
from eva_engine.config import ClassifierConfig, LabelledConfig, RunConfig, require
from eva_engine.data.mixed_targets import ClassificationStep, MixedTargets, label_text
from eva_engine.evaluation.class_report import BestSections, class_sections, write_outcomes
from eva_engine.evaluation.classification_report import describe_scores
from eva_engine.evaluation.counting import (
    LEFT_OUT,
    Counted,
    LabelledSamples,
    OneLabel,
    ShownSamples,
    count,
)
from eva_engine.evaluation.own_data import BANDS
from eva_engine.loop import TrainingRun
from eva_engine.report import Presentation
from eva_engine.steps.parameter_groups import ParameterGroup, layer_decay_groups
from eva_report.content import Section
from eva_report.first_batch import image_tiles
from eva_report.sheets import Tile
from eva_runs.adapters import Adapters
from eva_runs.data_order import seed_everything
from eva_runs.interruption import StopSignal
from eva_runs.memory import MeasuredStep
from eva_runs.step_guard import BadSamples

logger = logging.getLogger(__name__)


def classifier_groups(config: ClassifierConfig, model: nn.Module) -> list[ParameterGroup]:
    """Group the parameters of a recipe's model by learning rate and weight decay."""
    return layer_decay_groups(model, config.optimizer, depth=config.model.depth)


def classifier_step(config: ClassifierConfig, model: nn.Module, inputs: Tensor) -> MeasuredStep:
    """Build a step for `eva plan`, on inputs of `planning.CLASSES`."""
    targets = MixedTargets(config.augment, num_classes=planning.CLASSES)
    batch = inputs, torch.zeros(len(inputs), dtype=torch.int64)
    side = config.model.image_size
    return planning.build_step(config, model, ClassificationStep(targets), batch, side)


class Validation:
    """Accuracy on validation samples during a run, each counted once.

    At most `run.max_bad_samples` that cannot be read are left out and named.

    Attributes:
        results: Names of the results.
        sections: Makes the sections of a report on the best evaluation by `run.best_metric`, or
            else by `top1`.
    """

    results = ("loss", "top1", "top5")

    def __init__(
        self, samples: ShownSamples, run: RunConfig, device: torch.device, *, unit: str = "images"
    ) -> None:
        self._samples, self._run, self._device, self._unit = samples, run, device, unit
        self.sections = BestSections(run.best_metric or "top1")
        self._left_out = BadSamples(run.max_bad_samples, done=LEFT_OUT)

    def __call__(self, model: nn.Module, stop: StopSignal | None = None) -> dict[str, float]:
        """Compute `loss`, and `top1` and `top5` in percent; called on all processes."""
        counted = count(
            model,
            self._samples,
            {"val": OneLabel()},
            device=self._device,
            max_bad_samples=len(self._samples),  # which `BadSamples` limits
            batch_size=self._run.batch_size,
            workers=self._run.workers,
            details=True,
            stop=stop,
        )
        self._left_out.add(dict.fromkeys(counted.left_out, ""))
        results = {name: getattr(counted.scores["val"], name) for name in self.results}
        self.sections.offer(results, partial(self._report, counted))
        return results

    def _report(self, counted: Counted) -> list[Section]:
        """Write what became of the samples of an evaluation, and make the sections on it."""
        write_outcomes(Path(self._run.output), counted, self._samples)
        return class_sections(self._samples, counted, unit=self._unit)


def check_classes(samples: object, others: object, data: LabelledConfig) -> None:
    """Refuse classes without a sample for training; warn of those that validation alone lacks."""
    empty, unseen = _empty_classes(samples), _empty_classes(others)
    require(
        not empty or data.allow_empty_classes,
        f"{data.train} has no sample of {list_names(empty)}: take them out of the list of classes, "
        "or allow them by --data.allow-empty-classes True",
    )
    missing = [name for name in unseen if name not in empty]
    if missing:
        logger.warning("no sample for validation is of %s", list_names(missing))


def _empty_classes(samples: Any) -> list[str]:
    """List the classes without a sample; none where labels are not known, as of named datasets."""
    labels = getattr(samples, "labels", None)
    if labels is None:
        return []
    counts = np.bincount(labels, minlength=len(samples.classes)).tolist()
    return [name for name, count in zip(samples.classes, counts, strict=True) if not count]


def train_classifier(
    project: ClassifierProject,
    config: ClassifierConfig,
    device: torch.device,
    *,
    recipe: str,
    build: Callable[[Any], nn.Module],
    samples: LabelledSamples,
    others: ShownSamples | None,
    title: str,
    flops: float,
    groups: Callable[[Any, Any], Sequence[ParameterGroup]] = classifier_groups,
    beside_adapters: Sequence[str] = (),
    bands: Bands | None = None,
) -> None:
    """Train a classifier with the settings of its recipe, on samples, validated on others.

    `recipe` is the recipe's name. `build` makes the model of `config.model` with its first weights,
    `groups` groups the parameters by recipe and model; `title` names it in words, `flops` are the
    model FLOPs of one sample, see `training_flops`; `beside_adapters` are trained with adapters;
    `bands` are those of the samples.
    """
    data, validation = config.data, None
    check_classes(samples, others, data)
    described = [("train", f"{project.counted(samples)} ({display_path(data.train)})")]
    if others is not None:
        validation = Validation(others, config.run, device, unit=project.unit)
        counted = project.counted(others)
        described.append(validation_fact(counted, share=data.val_share, val=data.val))
    if bands is not None:
        described.append(("bands", bands.describe()))

    def first_samples(batch: tuple[Tensor, Tensor]) -> Iterator[Tile]:
        inputs, labels = targets.mix(batch[0].clone(), batch[1])
        captions = (label_text(label, classes) for label in labels)
        return image_tiles(inputs, captions, data.mean, data.std, bands)

    seed_everything(config.run.seed, purpose="")
    model = build(config.model)
    base, lora = config.model.init_checkpoint, config.lora
    adapters = Adapters(model, lora, base, beside=beside_adapters) if lora.rank else None
    classes = list(samples.classes)
    targets = MixedTargets(config.augment, num_classes=len(classes))
    presentation = Presentation(
        task=project.task,
        recipe=recipe,
        model=title,
        weights=base,
        data=described,
        first_batch=first_samples,
        meanings=describe_scores(project.unit),
        sections=validation.sections if validation else tuple,
        next_steps=partial(project.steps_after_training, data.val, data.train),
    )
    TrainingRun(
        model=model,
        groups=groups(config, model),
        samples=samples,
        config=config,
        step_fn=ClassificationStep(targets),
        adapters=adapters,
        notes={"class_names": classes} | ({BANDS: bands.as_json()} if bands else {}),
        device=device,
        evaluate=validation,
        results=validation.results if validation else (),
        flops_per_sample=None if adapters else flops,
        presentation=presentation,
    ).start()
