"""Command line of `classification/train.py`; what trains is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_classification.config import ClassificationConfig
from eva_classification.model_options import require_images
from eva_engine.commands import training as command_line
from eva_runs.required_data import require_data

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune or probe a classifier.

    Args:
        arguments: Arguments in place of those of the process.
    """
    command_line.main(
        ClassificationConfig,
        _train,
        program="classification/train.py",
        arguments=arguments,
        check=_check,
    )


def _check(config: ClassificationConfig) -> None:
    """Answer mistyped paths before torch is imported."""
    data = config.data
    require_images(data.train, name="data.train")
    if data.val:
        require_images(data.val, name="data.val")
    if data.classes:
        require_data(data.classes, name="data.classes", forms="a text file of classes")
    if config.model.init_checkpoint:
        resolve_source(config.model.init_checkpoint)


def _train(config: ClassificationConfig, device: "torch.device") -> None:
    from eva_classification.training import train

    train(config, device)


if __name__ == "__main__":
    main()
