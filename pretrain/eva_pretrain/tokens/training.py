"""Training of the tokenizer, and reading what was trained."""

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eva_backbone.checkpoints.run_folders import CONFIG, complete_checkpoints
from eva_data.files import expand_home
from eva_data.image_sources import open_images
from eva_engine.checkpoints.files import WEIGHTS
from eva_engine.data.loading import open_shared
from eva_engine.loop import TrainingRun
from eva_engine.report import Presentation
from eva_engine.steps.parameter_groups import layer_decay_groups
from eva_pretrain.config import TeacherConfig, TokenizerConfig
from eva_pretrain.report import first_samples, use_of_codes
from eva_pretrain.teachers import build_teacher
from eva_pretrain.tokens.tokenizer import Codebook, FeatureTokenizer
from eva_pretrain.transforms import PretrainTransform, Views
from eva_report.content import NextStep
from eva_runs.commands import command_to_run
from eva_runs.data_order import seed_everything

logger = logging.getLogger(__name__)


def train_tokenizer(config: TokenizerConfig, device: torch.device, *, recipe: str = "") -> None:
    """Train the tokenizer of the teacher's features (Table 2a) on a device."""
    teacher = build_teacher(config.teacher, device)
    seed_everything(config.run.seed, purpose="")
    tokenizer = _build(vars(config), feature_dim=teacher.dim)

    def step(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, metrics = model(teacher(batch["images"]))
        return loss, metrics

    views = Views(size=config.teacher.image_size, mean=teacher.mean, std=teacher.std)
    transform = PretrainTransform(views, scale=config.data.crop_scale)
    find = partial(open_images, config.data.train, transform)
    samples = open_shared(lambda folder: find(indexes=folder), config.run.output)
    teacher_config = config.teacher
    TrainingRun(
        model=tokenizer,
        groups=layer_decay_groups(tokenizer, config.optimizer, depth=0),
        samples=samples,
        step_fn=step,
        config=config,
        device=device,
        presentation=Presentation(
            task="Tokenizer",
            recipe=recipe,
            what=f"{config.num_codes:,} codes for {teacher_config.model} {teacher_config.weights}",
            data=[("train", f"{len(samples):,} images ({config.data.train})")],
            first_batch=partial(first_samples, mean=teacher.mean, std=teacher.std),
            sections=lambda: use_of_codes(tokenizer.codebook),
            next_steps=_next_steps,
        ),
    ).start()


def _next_steps(folder: Path) -> list[NextStep]:
    command = command_to_run(
        "pretrain train",
        "pretrain/train.py",
        "eva_b_patch16_224_tokens_300ep",
        "--tokenizer",
        folder,
        "--run.output",
        f"{folder}_pretraining",
    )
    return [NextStep(text="Pre-train a ViT to predict these tokens.", command=command)]


def load_tokenizer(source: str, teacher: TeacherConfig | None = None) -> FeatureTokenizer:
    """Read a trained tokenizer: that of the newest checkpoint, in evaluation mode.

    Args:
        source: Output folder of `train_tokenizer.py`.
        teacher: Whose features it is to be used for; warns if its own teacher was another.

    Raises:
        ValueError: If the folder is anything else.
    """
    folder = expand_home(source)
    complete = complete_checkpoints(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8")) if complete else {}
    if "num_codes" not in config:
        raise ValueError(f"{source} has no complete checkpoint of train_tokenizer.py")
    for name in ("library", "model", "weights") if teacher else ():
        before, now = config["teacher"][name], getattr(teacher, name)
        if Path(before).name != Path(now).name:
            message = "%s was trained with teacher.%s=%s, not %s: its codes may mean nothing"
            logger.warning(message, source, name, before, now)
    state = load_file(complete[-1] / WEIGHTS)
    tokenizer = _build(config, feature_dim=state["encoder.0.weight"].shape[1])
    tokenizer.load_state_dict(state)
    return tokenizer.eval()


def _build(config: Mapping[str, Any], *, feature_dim: int) -> FeatureTokenizer:
    """Build the tokenizer of a `TokenizerConfig` as a dict."""
    return FeatureTokenizer(
        feature_dim=feature_dim,
        codebook=Codebook(num_codes=config["num_codes"], code_dim=config["code_dim"]),
        width=config["width"],
        num_heads=config["num_heads"],
    )
