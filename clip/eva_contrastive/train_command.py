"""Command line of `clip/train.py`; what trains is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_contrastive.config import ContrastiveConfig
from eva_engine.commands import training as command_line

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a CLIP.

    Args:
        arguments: Arguments in place of those of the process.
    """
    command_line.main(ContrastiveConfig, _train, program="clip/train.py", arguments=arguments)


def _train(config: ContrastiveConfig, device: "torch.device") -> None:
    from eva_contrastive.training import train

    train(config, device)


if __name__ == "__main__":
    main()
