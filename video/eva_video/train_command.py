"""Command line of `video/train.py`; what trains is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.demos.required_data import require_data
from eva_data.labelled_videos.opening import FORMS
from eva_engine.commands import training as command_line
from eva_video.config import VideoConfig

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune a classifier of videos.

    Args:
        arguments: Arguments in place of those of the process.
    """
    command_line.main(
        VideoConfig, _train, program="video/train.py", arguments=arguments, check=_check
    )


def _check(config: VideoConfig) -> None:
    """Answer mistyped paths before torch is imported."""
    for name in ("train", "val"):
        if location := getattr(config.data, name):
            require_data(location, name=f"data.{name}", forms=FORMS)
    if config.model.init_checkpoint:
        resolve_source(config.model.init_checkpoint)


def _train(config: VideoConfig, device: "torch.device") -> None:
    from eva_video.training import train

    train(config, device)


if __name__ == "__main__":
    main()
