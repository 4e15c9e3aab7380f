"""Masked-image pre-training: the parts put together (paper section 2.2)."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.layers import no_init_weights
from eva_backbone.variants import variant_arguments
from eva_data.files import display_path
from eva_data.holdout import validation_fact
from eva_engine import distributed, planning
from eva_engine.config import Precision
from eva_engine.data.loading import evaluation_loader
from eva_engine.evaluation.counting import LEFT_OUT, IndexedSamples, Mapped, collate_readable
from eva_engine.flops import training_flops
from eva_engine.loop import TrainingRun
from eva_engine.report import Presentation
from eva_engine.steps.parameter_groups import layer_decay_groups
from eva_pretrain.cached_features import open_part
from eva_pretrain.config import PretrainConfig, StudentConfig
from eva_pretrain.masked_image_modeling import (
    BlockMasking,
    MaskedFeatures,
    MaskedImageModeling,
    MaskedPixels,
    Objective,
    PretrainStep,
    collate,
    masked_image_modeling,
    masked_positions,
    with_positions,
)
from eva_pretrain.report import MEANINGS, SHOWN, first_samples, gallery, next_steps
from eva_pretrain.teachers import Teacher, build_teacher
from eva_pretrain.tokenizer import MaskedTokens, load_tokenizer
from eva_pretrain.transforms import PretrainTransform, ValidationTransform, Views
from eva_report.content import Gallery, Section
from eva_runs.data_order import seed_everything, to_device
from eva_runs.interruption import StopSignal
from eva_runs.memory import MeasuredStep
from eva_runs.step_guard import BadSamples


def build_student(config: StudentConfig, *, target_dim: int, masked: bool) -> MaskedImageModeling:
    """Build the model that is trained, with its first weights, and a mask token if `masked`."""
    own_tokens = variant_arguments(config.variant).get("extra_tokens", ("cls",))
    with no_init_weights(bool(config.init_checkpoint)):
        model = masked_image_modeling(
            config.variant,
            target_dim=target_dim,
            img_size=config.image_size,
            drop_path_rate=config.drop_path_rate,
            activation_checkpointing=config.activation_checkpointing,
            extra_tokens=(*own_tokens, "mask") if masked else own_tokens,
        )
    if config.init_checkpoint:
        load_pretrained(model, config.init_checkpoint, allow_missing=("lm_head", "mask_token"))
    return model


class Validation:
    """Loss and metrics on validation images: every second patch masked, each image counted once.

    In distillation nothing is masked. At most `run.max_bad_samples` that cannot be read are left
    out and named.
    """

    def __init__(
        self, config: PretrainConfig, step: PretrainStep, views: Views, device: torch.device
    ) -> None:
        self._config, self._grid = config, config.student.grid
        self._step, self._device = step, device
        mask = None if config.objective == "distillation" else partial(alternating_mask, self._grid)
        transform = ValidationTransform(views, mask=mask)
        self.images = open_part("val", transform, teacher=step.teacher, config=config)
        self._samples = IndexedSamples(Mapped(self.images.__getitem__, range(len(self.images))))
        self._left_out = BadSamples(config.run.max_bad_samples, done=LEFT_OUT)
        self._gallery: Callable[[], Gallery] | None = None

    def __call__(self, model: nn.Module, stop: StopSignal | None = None) -> dict[str, float]:
        """Compute the mean loss and metrics over all images; called on all processes."""
        names, run = ("loss", *self._step.objective.metric_names), self._config.run
        sums, left_out = dict.fromkeys(("images", *names), 0.0), dict[str, str]()
        with evaluation_loader(
            Subset(self._samples, distributed.rank_indices(len(self.images))),
            batch_size=run.batch_size,
            workers=run.workers,
            collate=collate_readable,
            stop=stop,
        ) as batches:
            for inputs, _, indexes, unreadable in batches:
                left_out |= {self.images.sample_id(k): why for k, why in unreadable.items()}
                if not len(indexes):
                    continue
                loss, metrics = self._step(model, to_device(with_positions(inputs), self._device))
                for name, value in {"images": torch.ones(()), "loss": loss, **metrics}.items():
                    sums[name] += float(value) * len(indexes)
        lost = {k: why for part in distributed.gather(left_out) for k, why in part.items()}
        self._left_out.add(lost)
        if len(lost) == len(self.images):
            raise ValueError(f"no image for validation can be read, such as {min(lost)}")
        if distributed.rank() == 0:
            self._gallery = self._look(getattr(model, "module", model))
        count, *totals = distributed.sum_over_ranks([*sums.values()], self._device)
        return {name: total / count for name, total in zip(names, totals, strict=True)}

    @torch.no_grad()
    def _look(self, model: nn.Module) -> Callable[[], Gallery]:
        """Predict the first images, for the report."""
        entries = (self._samples[index] for index in range(len(self.images)))
        loaded = [*islice((entry for entry in entries if not entry[3]), SHOWN)]
        inputs, _, selected, _ = collate_readable(loaded)
        batch = to_device(with_positions(inputs), self._device)
        mask = batch["mask"].cpu() if "mask" in batch else None
        objective = self._step.objective
        predicted = (
            torch.ones(len(selected), *self._grid, dtype=torch.bool) if mask is None else mask
        )
        agreement = torch.full(predicted.shape, float("nan"))
        values = objective.agreement(*self._step.compare(model, batch))
        agreement[predicted] = values.float().cpu()
        names = [self.images.sample_id(index) for index in selected.tolist()]
        data = self._config.data
        std, mean = (torch.tensor(values)[:, None, None] for values in (data.std, data.mean))
        images = batch["images"].float().cpu() * std + mean
        return partial(gallery, names, images, mask, agreement, measure=objective.measure)

    def sections(self) -> list[Section]:
        """Show the first images with the last model's predictions, on the main process."""
        return [] if self._gallery is None else [self._gallery()]


def alternating_mask(grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask every other patch (H, W) in reading order, beginning with the first."""
    height, width = grid
    return (np.arange(height * width) % 2 == 0).reshape(height, width)


def train(config: PretrainConfig, device: torch.device, *, recipe: str = "") -> None:
    """Pre-train on a device, from `eva_engine.distributed.start`.

    Raises:
        ValueError: For settings that do not fit together.
    """
    student, data = config.student, config.data
    grid = student.grid
    teacher = build_teacher(config.teacher, device, patches=grid[0])
    if tuple(teacher.grid) != grid:
        raise ValueError(
            f"the teacher sees {tuple(teacher.grid)} patches at {teacher.image_size[0]} px, "
            f"the student {grid} at {student.image_size} px: choose sizes with equal grids"
        )
    objective, target_dim = _objective(config, teacher, device)
    masking = None
    if config.objective != "distillation":
        masking = BlockMasking(grid=grid, **vars(config.mask))
    build = partial(build_student, target_dim=target_dim, masked=masking is not None)
    seed_everything(config.run.seed, purpose="")
    model = build(student)
    views = Views(
        size=student.image_size,
        mean=data.mean,
        std=data.std,
        teacher_size=teacher.image_size[0],
        teacher_mean=teacher.mean,
        teacher_std=teacher.std,
    )
    step = PretrainStep(teacher, objective)
    transform = PretrainTransform(views, scale=data.crop_scale, mask=masking)
    samples = open_part("train", transform, teacher=teacher, config=config)
    validation = Validation(config, step, views, device) if data.val or data.val_share else None
    step.teacher = None if config.teacher.cache else teacher
    del teacher  # whose memory a cache leaves free
    TrainingRun(
        model=model,
        groups=layer_decay_groups(model, config.optimizer, depth=student.depth),
        samples=samples,
        collate=collate,
        step_fn=step,
        config=config,
        device=device,
        evaluate=validation,
        results=("loss", *objective.metric_names),
        flops_per_sample=training_flops(build, student),
        presentation=_presentation(config, recipe, len(samples), objective, validation),
    ).start()


read_recipe = planning.reader(PretrainConfig, "pretrain")


def step(config: PretrainConfig) -> MeasuredStep:
    """Build a step for `eva plan`."""
    cpu, batch = torch.device("cpu"), config.run.batch_size
    half: Precision = "fp32" if config.teacher.precision == "fp32" else "bf16"
    weights = "" if config.teacher.library == "open_clip" else config.teacher.weights
    settings = replace(config.teacher, weights=weights, precision=half)
    teacher = build_teacher(settings, cpu, patches=config.student.grid[0])
    objective, target_dim = _objective(config, teacher, cpu)
    masked = config.objective != "distillation"
    student = replace(config.student, init_checkpoint="")
    model = build_student(student, target_dim=target_dim, masked=masked)
    images = model.patch_embed.proj.weight.new_empty(
        batch, 3, student.image_size, student.image_size
    )
    data: dict[str, Any] = {"images": images}
    if config.teacher.cache:
        data["features"] = images.new_empty(batch, math.prod(teacher.grid), teacher.dim).half()
    else:
        data["teacher_images"] = images.new_empty(batch, 3, *teacher.image_size)
    if masked:
        drawn = BlockMasking(grid=student.grid, **vars(config.mask))()
        mask = torch.from_numpy(drawn).flatten().expand(batch, -1)
        data |= {"mask": mask, "positions": masked_positions(mask)}
    compute = PretrainStep(None if config.teacher.cache else teacher, objective)
    return planning.build_step(config, model, compute, data, student.image_size)


def _presentation(
    config: PretrainConfig,
    recipe: str,
    images: int,
    objective: Objective,
    validation: Validation | None,
) -> Presentation:
    student, teacher, data = config.student, config.teacher, config.data
    described = [("train", f"{images:,} images ({display_path(data.train)})")]
    if validation is not None:
        count = f"{len(validation.images):,} images"
        described.append(validation_fact(count, share=data.val_share, val=data.val, of="train"))
    teacher_name = f"{teacher.model} {teacher.weights}".strip()
    source = "pixels" if teacher.library == "pixels" else teacher_name
    learned = f"{config.objective.replace('_', ' ')} of {source}"
    return Presentation(
        task="Pre-training",
        recipe=recipe,
        model=f"{learned} by {student.variant} at {student.image_size} px",
        weights=student.init_checkpoint,
        data=described,
        meanings={name: MEANINGS[name] for name in (*objective.metric_names, "loss")},
        first_batch=partial(first_samples, mean=data.mean, std=data.std),
        sections=validation.sections if validation else tuple,
        next_steps=partial(next_steps, student.variant),
    )


def _objective(
    config: PretrainConfig, teacher: Teacher, device: torch.device
) -> tuple[Objective, int]:
    """Build the objective, and return how many values it wants for a patch."""
    if config.objective != "masked_tokens":
        pixels = config.teacher.library == "pixels"
        return MaskedPixels() if pixels else MaskedFeatures(), teacher.dim
    tokenizer = load_tokenizer(config.tokenizer, config.teacher).to(device)
    dim = tokenizer.feature_dim
    if dim != teacher.dim:
        raise ValueError(f"{config.tokenizer} is for features of {dim} channels, not {teacher.dim}")
    return MaskedTokens(tokenizer), tokenizer.num_codes
