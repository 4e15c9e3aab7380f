"""Masked-image pre-training: the parts put together (paper section 2.2)."""

from collections.abc import Sequence
from functools import partial

import torch

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.initialisation import no_init_weights
from eva_data.image_sources import open_images
from eva_engine import distributed
from eva_engine.loop import TrainingRun
from eva_engine.report import Presentation
from eva_engine.steps.flops import training_flops
from eva_engine.steps.parameter_groups import layer_decay_groups
from eva_pretrain.config import PretrainConfig, StudentConfig
from eva_pretrain.masked_image_modeling import (
    BlockMasking,
    MaskedFeatures,
    MaskedImageModeling,
    Objective,
    PretrainStep,
    collate,
    masked_image_modeling,
)
from eva_pretrain.report import MEANINGS, gallery, next_steps
from eva_pretrain.teachers import Teacher, build_teacher
from eva_pretrain.tokens.tokenizer import MaskedTokens
from eva_pretrain.tokens.training import load_tokenizer
from eva_pretrain.transforms import PretrainTransform, Views
from eva_pretrain.validation import Validation
from eva_report.content import Section


def build_student(config: StudentConfig, *, target_dim: int, masked: bool) -> MaskedImageModeling:
    """Build the model that is trained, with its first weights, and a mask token if `masked`."""
    with no_init_weights(bool(config.init_checkpoint)):
        model = masked_image_modeling(
            config.variant,
            target_dim=target_dim,
            img_size=config.image_size,
            drop_path_rate=config.drop_path_rate,
            activation_checkpointing=config.activation_checkpointing,
            extra_tokens=("cls", "mask") if masked else ("cls",),
        )
    if config.init_checkpoint:
        load_pretrained(model, config.init_checkpoint, allow_missing=("lm_head", "mask_token"))
    return model


def train(config: PretrainConfig, device: torch.device) -> None:
    """Pre-train on a device, from `eva_engine.distributed.start`.

    Raises:
        ValueError: For settings that do not fit together.
    """
    teacher, grid = build_teacher(config.teacher, device), config.student.grid
    if tuple(teacher.grid) != grid:
        raise ValueError(
            f"the teacher sees {tuple(teacher.grid)} patches at {config.teacher.image_size} px, "
            f"the student {grid} at {config.student.image_size} px: choose sizes with equal grids"
        )
    masked = config.objective != "distillation"
    objective, target_dim = _objective(config, teacher, device)
    build = partial(build_student, target_dim=target_dim, masked=masked)
    distributed.seed_all(config.run.seed)
    model = build(config.student)
    masking = BlockMasking(grid=grid, **vars(config.mask))
    views = Views(
        size=config.student.image_size,
        mean=config.data.mean,
        std=config.data.std,
        teacher_size=config.teacher.image_size,
        teacher_mean=teacher.mean,
        teacher_std=teacher.std,
    )
    transform = PretrainTransform(
        views, scale=config.data.crop_scale, mask=masking if masked else None
    )
    step = PretrainStep(teacher, objective)
    samples = open_images(config.data.train, transform)
    validation = Validation(config, step, views, device) if config.data.val else None
    TrainingRun(
        model=model,
        groups=layer_decay_groups(model, config.optimizer, depth=config.student.depth),
        samples=samples,
        collate=collate,
        step_fn=step,
        config=config,
        device=device,
        evaluate=validation,
        results=("loss", *objective.metric_names),
        flops_per_sample=training_flops(build, config.student),
        presentation=_presentation(config, len(samples), objective, validation),
    ).start()


def _presentation(
    config: PretrainConfig, images: int, objective: Objective, validation: Validation | None
) -> Presentation:
    student, teacher, data = config.student, config.teacher, config.data
    described = [("train", f"{images:,} images ({data.train})")]
    if validation is not None:
        described.append(("val", f"{len(validation.images):,} images ({data.val})"))

    def sections() -> Sequence[Section]:
        if validation is None or validation.seen is None:
            return ()
        return [gallery(validation.seen, mean=data.mean, std=data.std)]

    what = config.objective.replace("_", " ")
    of = " ".join(filter(None, dict.fromkeys((teacher.model, teacher.weights))))
    return Presentation(
        task="Pre-training",
        what=f"{what} of {of} by {student.variant} at {student.image_size} px",
        weights=student.init_checkpoint,
        data=described,
        meanings={name: MEANINGS[name] for name in (*objective.metric_names, "loss")},
        sections=sections,
        next_steps=partial(next_steps, student.variant),
    )


def _objective(
    config: PretrainConfig, teacher: Teacher, device: torch.device
) -> tuple[Objective, int]:
    """Build the objective, and return how many values it wants for a patch."""
    if config.objective != "masked_tokens":
        return MaskedFeatures(), teacher.dim
    tokenizer = load_tokenizer(config.tokenizer).to(device)
    return MaskedTokens(tokenizer), tokenizer.num_codes
