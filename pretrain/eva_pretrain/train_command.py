"""Command lines of pre-training and its tokenizer; what trains is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_engine.commands import training as command_line
from eva_pretrain.config import PretrainConfig, TokenizerConfig

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """Pre-train a ViT.

    Args:
        arguments: Arguments in place of those of the process.
    """
    command_line.main(PretrainConfig, _train, program="pretrain/train.py", arguments=arguments)


def tokenizer(arguments: Sequence[str] | None = None) -> None:
    """Train a tokenizer.

    Args:
        arguments: Arguments in place of those of the process.
    """
    program = "pretrain/train_tokenizer.py"
    command_line.main(TokenizerConfig, _train_tokenizer, program=program, arguments=arguments)


def _train(config: PretrainConfig, device: "torch.device") -> None:
    from eva_pretrain.training import train

    train(config, device)


def _train_tokenizer(config: TokenizerConfig, device: "torch.device") -> None:
    from eva_pretrain.tokens.training import train_tokenizer

    train_tokenizer(config, device)


if __name__ == "__main__":
    main()
