"""Masked-image pre-training: the parts put together (paper section 2.2)."""

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.initialisation import no_init_weights
from eva_backbone.variants import VARIANTS
from eva_data.sources.manifests import open_images
from eva_engine import distributed
from eva_engine.checkpoints.run_checkpoint import WEIGHTS, RunCheckpoints
from eva_engine.commands import training as command_line
from eva_engine.config import as_plain
from eva_engine.loop import TrainingRun
from eva_engine.steps.flops import forward_flops
from eva_engine.steps.parameter_groups import layer_decay_groups
from eva_pretrain.config import PretrainConfig, StudentConfig, TeacherConfig, TokenizerConfig
from eva_pretrain.masked_image_modeling import MaskedImageModeling, masked_image_modeling
from eva_pretrain.masking import BlockMasking
from eva_pretrain.objectives import FeatureDistillation, MaskedFeatures, MaskedTokens
from eva_pretrain.teachers.backbone import BackboneTeacher
from eva_pretrain.teachers.clip import ClipTeacher
from eva_pretrain.tokens.tokenizer import FeatureTokenizer
from eva_pretrain.transforms import PretrainTransform, Views
from eva_pretrain.validation import Objective, PretrainStep, Teacher, Validation, dtype_of, views_of

logger = logging.getLogger(__name__)

TOKENIZER_CONFIG = "config.json"


def build_teacher(config: TeacherConfig, device: torch.device) -> Teacher:
    """Build the frozen teacher on a device.

    Args:
        config: Which, and its weights.
        device: Where to.

    Returns:
        The teacher; its images have `config.image_size`.

    Raises:
        ValueError: For an unknown model, unfit weights, or fp16 without a GPU.
        FileNotFoundError: If weights are not there.
    """
    if config.precision == "fp16" and device.type == "cpu":
        raise ValueError("teacher.precision=fp16 needs a GPU; on a CPU use fp32")
    if config.library == "eva":
        plain = BackboneTeacher(config.model, weights=config.weights, image_size=config.image_size)
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return plain.to(device, dtypes[config.precision])
    return ClipTeacher.from_open_clip(
        config.model,
        config.weights or None,
        image_size=config.image_size,
        precision=config.precision,
        device=device,
    )


def build_student(config: StudentConfig, *, target_dim: int, masked: bool) -> MaskedImageModeling:
    """Build the model that is trained, with its first weights.

    Args:
        config: Which.
        target_dim: Values to predict for a patch.
        masked: Whether it needs a mask token.

    Returns:
        The model on the CPU.
    """
    with no_init_weights() if config.init_checkpoint else contextlib.nullcontext():
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
    """Pre-train.

    Args:
        config: The recipe.
        device: What `eva_engine.distributed.start` returned.

    Raises:
        ValueError: For settings that do not fit together.
    """
    teacher = build_teacher(config.teacher, device)
    grid = config.student.grid
    if tuple(teacher.grid) != grid:
        raise ValueError(
            f"the teacher sees {tuple(teacher.grid)} patches at {config.teacher.image_size} px, "
            f"the student {grid} at {config.student.image_size} px: choose sizes with equal grids"
        )
    masked = config.objective != "distillation"
    objective, target_dim = _objective(config, teacher, device)
    distributed.seed_all(config.run.seed)
    model = build_student(config.student, target_dim=target_dim, masked=masked)
    masking = BlockMasking(
        grid=grid, num_masked=config.mask.num_masked, min_block=config.mask.min_block
    )
    transform = PretrainTransform(
        views_of(config, teacher),
        scale=config.data.crop_scale,
        mask=masking if masked else None,
    )
    step = PretrainStep(teacher, objective)
    student = replace(config.student, init_checkpoint="")
    TrainingRun(
        model=model,
        groups=layer_decay_groups(
            model, config.optimizer, depth=VARIANTS[config.student.variant].depth
        ),
        samples=open_images(config.data.train, transform),
        step_fn=step,
        run=config.run,
        optimizer=config.optimizer,
        config=as_plain(config),
        device=device,
        evaluate=Validation(config, step, device) if config.data.val else None,
        results=("loss", *objective.metric_names),
        flops_per_sample=3
        * forward_flops(
            partial(build_student, student, target_dim=target_dim, masked=masked),
            image_size=student.image_size,
        ),
    ).start()


def train_tokenizer(config: TokenizerConfig, device: torch.device) -> None:
    """Train the tokenizer of the teacher's features (Table 2a).

    Args:
        config: The recipe.
        device: What `eva_engine.distributed.start` returned.
    """
    teacher = build_teacher(config.teacher, device)
    distributed.seed_all(config.run.seed)
    tokenizer = FeatureTokenizer(
        feature_dim=teacher.dim,
        num_codes=config.num_codes,
        code_dim=config.code_dim,
        width=config.width,
        num_heads=config.num_heads,
    )

    def step(model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        features = teacher(batch["images"].to(dtype_of(teacher)))
        loss, metrics = model(features)
        return loss, metrics

    views = Views(size=config.teacher.image_size, mean=teacher.mean, std=teacher.std)
    transform = PretrainTransform(views, scale=config.data.crop_scale)
    TrainingRun(
        model=tokenizer,
        groups=layer_decay_groups(tokenizer, config.optimizer, depth=0),
        samples=open_images(config.data.train, transform),
        step_fn=step,
        run=config.run,
        optimizer=config.optimizer,
        config=as_plain(config),
        device=device,
    ).start()


def load_tokenizer(source: str) -> FeatureTokenizer:
    """Read a trained tokenizer.

    Args:
        source: Output folder of `train_tokenizer.py`.

    Returns:
        The tokenizer of the newest checkpoint, in evaluation mode.

    Raises:
        FileNotFoundError: If the folder has no complete checkpoint.
        ValueError: If it is no tokenizer's.
    """
    folder = Path(source)
    complete = RunCheckpoints(folder, keep=1).complete()
    if not complete:
        raise FileNotFoundError(f"{source} has no complete checkpoint of train_tokenizer.py")
    config = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    if "num_codes" not in config:
        raise ValueError(f"{source} is the output of another program than train_tokenizer.py")
    state = load_file(complete[-1] / WEIGHTS)
    tokenizer = FeatureTokenizer(
        feature_dim=state["encoder.0.weight"].shape[1],
        num_codes=config["num_codes"],
        code_dim=config["code_dim"],
        width=config["width"],
        num_heads=config["num_heads"],
    )
    tokenizer.load_state_dict(state)
    return tokenizer.eval()


def main() -> None:
    """Command line of `train.py`."""
    command_line.main(
        PretrainConfig,
        train,
        program="pretrain/train.py",
    )


def main_tokenizer() -> None:
    """Command line of `train_tokenizer.py`."""
    command_line.main(
        TokenizerConfig,
        train_tokenizer,
        program="pretrain/train_tokenizer.py",
    )


def _objective(
    config: PretrainConfig, teacher: Teacher, device: torch.device
) -> tuple[Objective, int]:
    """The objective, and how many values it wants for a patch."""
    if config.objective == "masked_features":
        return MaskedFeatures(), teacher.dim
    if config.objective == "distillation":
        return FeatureDistillation(), teacher.dim
    tokenizer = load_tokenizer(config.tokenizer).to(device)
    if tokenizer.feature_dim != teacher.dim:
        raise ValueError(
            f"the tokenizer was trained for features of {tokenizer.feature_dim} channels, the "
            f"teacher gives {teacher.dim}"
        )
    return MaskedTokens(tokenizer), tokenizer.num_codes
