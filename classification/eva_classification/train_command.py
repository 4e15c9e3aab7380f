"""Command line of `classification/train.py`; what trains is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_classification.config import ClassificationConfig
from eva_engine.commands import training as command_line

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune or probe a classifier.

    Args:
        arguments: Arguments in place of those of the process.
    """
    command_line.main(
        ClassificationConfig, _train, program="classification/train.py", arguments=arguments
    )


def _train(config: ClassificationConfig, device: "torch.device") -> None:
    from eva_classification.training import train

    train(config, device)


if __name__ == "__main__":
    main()
