"""Command lines of pre-training and its tokenizer; what trains is imported when it is needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_engine.commands import training as command_line
from eva_pretrain.config import PretrainConfig, TokenizerConfig
from eva_runs.commands import require_data

if TYPE_CHECKING:
    import torch

_FORMS = "a manifest (.toml), a folder of images, or a pattern of tar shards"


def main(arguments: Sequence[str] | None = None) -> None:
    """Pre-train a ViT: `pretrain/train.py`."""
    command_line.main(
        PretrainConfig, _train, program="pretrain/train.py", arguments=arguments, check=_check
    )


def tokenizer(arguments: Sequence[str] | None = None) -> None:
    """Train a tokenizer: `pretrain/train_tokenizer.py`."""
    command_line.main(
        TokenizerConfig, _train_tokenizer, program="pretrain/train_tokenizer.py",
        arguments=arguments, check=_check_data,
    )  # fmt: skip


def _check(config: PretrainConfig) -> None:
    _check_data(config)
    if config.student.init_checkpoint:
        resolve_source(config.student.init_checkpoint)
    if config.tokenizer and not Path(config.tokenizer).is_dir():
        raise ValueError(f"tokenizer: there is no folder {config.tokenizer}; train it first")


def _check_data(config: PretrainConfig | TokenizerConfig) -> None:
    for name in ("train", "val"):
        if location := getattr(config.data, name):
            require_data(location, name=f"data.{name}", forms=_FORMS)
    if config.teacher.library == "eva":  # open_clip knows its own names
        resolve_source(config.teacher.weights)


def _train(config: PretrainConfig, device: "torch.device") -> None:
    from eva_pretrain.training import train

    train(config, device)


def _train_tokenizer(config: TokenizerConfig, device: "torch.device") -> None:
    from eva_pretrain.tokens.training import train_tokenizer

    train_tokenizer(config, device)
