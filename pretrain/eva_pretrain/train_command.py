"""Command lines of pre-training and its tokenizer; what needs torch is imported after parsing."""

from collections.abc import Sequence

from eva_engine.commands import training
from eva_engine.commands.options import deferred
from eva_pretrain.config import PretrainConfig, TokenizerConfig
from eva_runs.commands import require_data
from eva_runs.recipes import require_start

_FORMS = "a manifest (.toml), a folder of images, or a pattern of tar shards"


def main(arguments: Sequence[str] | None = None) -> None:
    """Pre-train a ViT: `pretrain/train.py`."""
    training.main(
        PretrainConfig, deferred("eva_pretrain.training:train"), program="pretrain/train.py",
        arguments=arguments, check=_check,
    )  # fmt: skip


def tokenizer(arguments: Sequence[str] | None = None) -> None:
    """Train a tokenizer: `pretrain/train_tokenizer.py`."""
    training.main(
        TokenizerConfig, deferred("eva_pretrain.tokens.training:train_tokenizer"),
        program="pretrain/train_tokenizer.py", arguments=arguments, check=_check_data,
    )  # fmt: skip


def _check(config: PretrainConfig) -> None:
    _check_data(config)
    if config.student.init_checkpoint:
        require_start("pretrain", config.student.init_checkpoint)
    if config.tokenizer:
        require_data(config.tokenizer, name="tokenizer", forms="the output of train_tokenizer.py")


def _check_data(config: PretrainConfig | TokenizerConfig) -> None:
    for name in ("train", "val"):
        if location := getattr(config.data, name):
            require_data(location, name=f"data.{name}", forms=_FORMS)
    if config.teacher.library == "eva":  # open_clip knows its own names
        require_start("pretrain", config.teacher.weights)
